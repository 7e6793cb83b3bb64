"""Scenes of files that are in no index: decode, encode, detect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from impart.blending.encoder import AugmentedEncoder
from impart.config import Settings
from impart.encoders.base import Encoder, ImageEmbeddings
from impart.video.decode.decoder import Decoder
from impart.video.decode.sampler import DecodedSegment, DecodeFailed, DecodeFinished
from impart.video.scenes.bounds import find_scenes
from impart.video.scenes.samples import Samples, grey_thumbnail
from impart.video.scenes.scene import Scene, scenes_of

__all__ = ["FileScenes", "scenes_of_files"]


@dataclass(frozen=True, kw_only=True)
class FileScenes:
    """Scenes of one file.

    Attributes:
        scenes: in order of time; none where the file cannot be decoded.
        problem: why this is not the whole video, or None.
        notes: see `DecodeFinished`.
    """

    path: Path
    scenes: tuple[Scene, ...]
    problem: str | None = None
    notes: tuple[str, ...] = ()


def scenes_of_files(
    paths: Iterable[Path], encoder: Encoder, *, settings: Settings | None = None
) -> Iterator[FileScenes]:
    """Find the scenes of files, one after another. One that cannot be decoded does not stop the others.

    Args:
        encoder: as for an index; of an augmented one the base encoder is used.
        settings: of decoding, of the batch size, and of `index.cut_threshold`.

    Yields:
        One item per file, in the order given.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from impart import load_encoder
        >>> folder = tempfile.TemporaryDirectory()
        >>> film = Path(folder.name) / "film.gif"
        >>> red, rings = Image.new("RGB", (256, 256), "red"), Image.radial_gradient("L").convert("RGB")
        >>> red.save(film, save_all=True, append_images=[red, rings, rings], duration=600)
        >>> for found in scenes_of_files([film], load_encoder("mini")):
        ...     print([(scene.kind, round(scene.start_s, 2)) for scene in found.scenes])
        [('cut', 0.0), ('cut', 1.2)]
        >>> folder.cleanup()
    """
    settings = settings or Settings()
    base = encoder.base if isinstance(encoder, AugmentedEncoder) else encoder
    with Decoder(settings.decode, short_side_px=base.traits.image_size_px) as decoder:
        file = _File(base, settings)
        for item in decoder.decode(paths):
            if isinstance(item, DecodedSegment):
                file.add(item)
                continue
            yield file.failed(item) if isinstance(item, DecodeFailed) else file.finish(item)
            file = _File(base, settings)


class _File:
    """Segments of the file that is being decoded."""

    def __init__(self, encoder: Encoder, settings: Settings) -> None:
        self._encoder, self._settings = encoder, settings
        self._waiting: list[npt.NDArray[np.uint8]] = []
        self._made: list[ImageEmbeddings] = []
        self._thumbs: list[npt.NDArray[np.uint8]] = []
        self._starts_s: list[float] = []
        self._weights: list[int] = []
        self._end_s = 0.0

    def add(self, segment: DecodedSegment) -> None:
        self._waiting.append(segment.image)
        self._thumbs.append(grey_thumbnail(segment.image))
        self._starts_s.append(segment.start_s)
        self._weights.append(segment.weight)
        self._end_s = segment.end_s
        if len(self._waiting) >= self._settings.encoder.batch:
            self._encode()

    def _encode(self) -> None:
        if self._waiting:
            self._made.append(self._encoder.encode_images(self._waiting))
            self._waiting = []

    @staticmethod
    def failed(item: DecodeFailed) -> FileScenes:
        return FileScenes(path=item.path, scenes=(), problem=item.reason)

    def finish(self, item: DecodeFinished) -> FileScenes:
        self._encode()
        samples = Samples.of_segments(
            np.concatenate([made.retrieval for made in self._made]),
            np.stack(self._thumbs),
            starts_s=self._starts_s,
            weights=self._weights,
            fps=self._settings.decode.fps,
        )
        threshold = self._settings.index.cut_threshold
        bounds = find_scenes(samples, item.steps, end_s=self._end_s, threshold=threshold)
        vectors = np.concatenate([made.embeddings for made in self._made])
        scenes = scenes_of(bounds, vectors, starts_s=np.array(self._starts_s), weights=np.array(self._weights))
        return FileScenes(path=item.path, scenes=tuple(scenes), problem=item.problem, notes=item.notes)
