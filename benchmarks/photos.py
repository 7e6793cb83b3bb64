"""Measure how quickly photos are indexed, beside the frames of a video.

    python benchmarks/photos.py --data DATA [--count 64] [--repeat 3]

DATA/images/flickr8k gives the images. They are enlarged, with the noise of a sensor, and written as the frames of a
video and as photos of several sizes and formats (a quarter as many of 12 megapixels). Each way indexes its images into
a new index; the ways take turns, and the figures are medians. Opening the model is not timed. CPU time counts the
decoder process too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pillow_heif
from PIL import Image

import impart
from impart.config import DecodeSettings, Settings
from impart.encoders.base import Encoder
from impart.video.index.events import IndexDone
from impart.video.index.index import VideoIndex

PHOTOS = (
    ("JPEG, 0.3 megapixels", (640, 480), "jpg"),
    ("JPEG, 2 megapixels", (1600, 1200), "jpg"),
    ("JPEG, 12 megapixels", (4032, 3024), "jpg"),
    ("HEIC, 12 megapixels", (4032, 3024), "heic"),
)
NOISE = 4.0  # standard deviation, in grey levels
Pixels = npt.NDArray[np.uint8]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the development data")
    parser.add_argument("--count", type=int, default=64, help="images of each way")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    args = parser.parse_args(arguments)
    sources = sorted((args.data / "images" / "flickr8k").rglob("*.jpg"))[: args.count]
    encoder = impart.load_encoder("mini")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "frames").mkdir()
        _write_video(folder / "frames" / "film.mp4", [_enlarged(path, (640, 480)) for path in sources])
        ways = {"frames of a video, 640 x 480": folder / "frames"}
        for way, size, suffix in PHOTOS:
            ways[way] = folder / way
            ways[way].mkdir()
            for number, path in enumerate(sources if size[0] < 4000 else sources[::4]):
                _write_photo(ways[way] / f"{number:04}.{suffix}", _enlarged(path, size))
        counts = {way: len(list(files.iterdir())) for way, files in ways.items()}
        counts["frames of a video, 640 x 480"] = len(sources)
        runs: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for turn in range(args.repeat):
            for way, files in ways.items():
                runs[way].append(_index(files, folder / f"{way} {turn}.impart", encoder, count=counts[way]))
    lines = ["| | images | per second | CPU time per image |", "| --- | --- | --- | --- |"]
    for way, figures in runs.items():
        wall_s = statistics.median(wall for wall, _ in figures) / counts[way]
        cpu_s = statistics.median(cpu for _, cpu in figures) / counts[way]
        lines.append(f"| {way} | {counts[way]} | {1 / wall_s:.1f} | {1e3 * cpu_s:.0f} ms |")
    print("\n".join(lines))
    if args.out is not None:
        args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _index(files: Path, target: Path, encoder: Encoder, *, count: int) -> tuple[float, float]:
    """Index a folder; return wall and CPU time in seconds."""
    settings = Settings(decode=DecodeSettings(reuse_threshold=0))
    index = VideoIndex.open(target, encoder, settings=settings)
    wall, cpu = time.perf_counter(), _cpu_s()
    (done,) = [event for event in index.add([files]) if isinstance(event, IndexDone)]
    assert done.encoded == count, done
    return time.perf_counter() - wall, _cpu_s() - cpu


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _enlarged(path: Path, size: tuple[int, int]) -> Pixels:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.LANCZOS)).astype(np.float32)
    noise: Callable[..., npt.NDArray[np.float32]] = np.random.default_rng(0).standard_normal
    noisy: Pixels = np.clip(pixels + NOISE * noise(pixels.shape, dtype=np.float32), 0, 255).astype(np.uint8)
    return noisy


def _write_photo(path: Path, pixels: Pixels) -> None:
    image = Image.fromarray(pixels)
    if path.suffix == ".heic":
        pillow_heif.from_pillow(image).save(path, quality=60, enc_params={"preset": "ultrafast"})
    else:
        image.save(path, quality=90)


def _write_video(path: Path, frames: Sequence[Pixels]) -> None:
    """Write each image as one frame, 4 per second."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(4))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main()
