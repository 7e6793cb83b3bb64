"""Video retrieval: text to video, video to text, image to video. A video is the mean of its frames (IMPART 3.3)."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Encoder, Float32
from impart.errors import ConfigError, DataError
from impart.evaluate.cache import EmbeddingCache
from impart.evaluate.datasets.types import Images, VideoSet
from impart.evaluate.embed import Progress, embed_images, embed_texts
from impart.evaluate.embed_videos import EmbeddedVideo, Frames, embed_videos, frames_in_words, mean_vector
from impart.evaluate.result import Result
from impart.evaluate.tasks.retrieval import Side, answer, as_searched, both_ways, caption_keys

__all__ = ["HeldOut", "image_to_video", "video_retrieval"]

HeldOut: TypeAlias = Literal["first", "middle"]
Ints = npt.NDArray[np.int64]


def video_retrieval(
    encoder: Encoder,
    dataset: VideoSet,
    *,
    frames: Frames = None,
    query_bank: bool = False,
    cache: EmbeddingCache | None = None,
    label: str | None = None,
    batch: int = 32,
    on_progress: Progress | None = None,
) -> tuple[Result, ...]:
    """Rank videos by text and texts by video.

    Args:
        encoder: plain or augmented; of an augmented one, the mean is over the frames' v'.
        dataset: videos (or parts of them) with captions.
        frames: settings of the decoder, None = the defaults; or a function that yields the frames of a video.
        query_bank: measure both directions with query-bank normalisation as well.
        cache: of embeddings; None = no cache.
        label: the encoder's name in reports; None = its id.
        batch: frames per forward pass.
        on_progress: called with the videos done.

    Returns:
        Text to video, video to text; then both with the query bank, if requested; then text to video with the ranking
        of `impart search`.

    Raises:
        DataError: no video could be read, or no readable video has a caption.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from PIL import Image
        >>> import impart
        >>> def frames(path):
        ...     for second, colour in enumerate(path.stem.split("-")):
        ...         yield second, second + 1.0, np.asarray(Image.new("RGB", (64, 64), colour))
        >>> videos = (Path("red-red-red.mp4"), Path("blue-blue-blue.mp4"))
        >>> dataset = impart.evaluate.VideoSet(
        ...     name="colours", videos=videos, captions=("red", "blue"), owners=np.array([0, 1])
        ... )
        >>> to_video, *_ = impart.evaluate.video_retrieval(impart.load_encoder("mini"), dataset, frames=frames)
        >>> to_video.figures["R@1"]
        1.0
    """
    found = _Found(dataset)
    vectors = []
    for video in embed_videos(encoder, dataset.videos, frames, cache=cache, batch=batch, on_progress=on_progress):
        part = found.part(video)
        if part is not None:
            vectors.append(mean_vector(part))
    keys = video_keys(dataset)
    videos = found.side(vectors, keys)
    texts = Side(
        vectors=embed_texts(encoder, dataset.captions, cache=cache),
        owners=dataset.owners,
        keys=caption_keys(keys, dataset.owners),
        clusters=dataset.owners,
    )
    common = found.common(encoder, label, frames)
    return both_ways(
        texts,
        videos,
        names=("text", "video"),
        common=common,
        query_bank=query_bank,
        searched=as_searched(encoder, dataset.captions, cache=cache),
    )


def image_to_video(
    encoder: Encoder,
    dataset: VideoSet,
    *,
    frames: Frames = None,
    images: Images | None = None,
    owners: Ints | None = None,
    hold_out: HeldOut = "middle",
    cache: EmbeddingCache | None = None,
    label: str | None = None,
    batch: int = 32,
    on_progress: Progress | None = None,
) -> Result:
    """Rank videos by an image of one of them.

    Args:
        encoder: plain or augmented.
        dataset: the videos; captions are not needed.
        frames: settings of the decoder, None = the defaults; or a function that yields the frames of a video.
        images: queries; None = one frame of each video, which is left out of that video's mean.
        owners: (q,) the video of each query image.
        hold_out: which frame, if no images are given. A frame is similar to the frames beside it, so this form of the
            task is easy: a check rather than a benchmark. A video of a single frame is an item but no query.
        cache: of embeddings; None = no cache.
        label: the encoder's name in reports; None = its id.
        batch: frames or images per forward pass.
        on_progress: called with the videos done.

    Raises:
        DataError: no video could be read, or no query is left.
        ConfigError: `images` without `owners`, or `hold_out` is unknown.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from PIL import Image
        >>> import impart
        >>> def frames(path):
        ...     for second, colour in enumerate(path.stem.split("-")):
        ...         yield second, second + 1.0, np.asarray(Image.new("RGB", (64, 64), colour))
        >>> videos = (Path("red-red-red.mp4"), Path("blue-blue-blue.mp4"))
        >>> none = np.zeros(0, np.int64)
        >>> dataset = impart.evaluate.VideoSet(name="colours", videos=videos, captions=(), owners=none)
        >>> impart.evaluate.image_to_video(impart.load_encoder("mini"), dataset, frames=frames).figures["R@1"]
        1.0
    """
    if (images is None) != (owners is None):
        raise ConfigError("image to video: give query images together with the number of each one's video (owners)")
    if hold_out not in ("first", "middle"):
        raise ConfigError(f"image to video cannot hold out the {hold_out!r} frame: use first or middle")
    found = _Found(dataset)
    vectors: list[Float32] = []
    held_out: list[Float32] = []
    held_owners: list[int] = []
    for video in embed_videos(encoder, dataset.videos, frames, cache=cache, batch=batch, on_progress=on_progress):
        part = found.part(video)
        if part is None:
            continue
        held = None
        if images is None and len(part.embeddings) > 1:
            at_s = part.spans[0, 0] if hold_out == "first" else (part.spans[0, 0] + part.spans[-1, 1]) / 2
            held = np.array([int(np.searchsorted(part.spans[:, 0], at_s, side="right")) - 1])
            held_out.append(part.embeddings[held[0]])
            held_owners.append(part.number)
        vectors.append(mean_vector(part, without=held))
    keys = video_keys(dataset)
    videos = found.side(vectors, keys)
    common = found.common(encoder, label, frames)
    if images is not None and owners is not None:
        embedded = embed_images(encoder, images, cache=cache, batch=batch)
        names = tuple(images.keys[number] for number in embedded.kept)
        own = owners[embedded.kept]
        queries = Side(vectors=embedded.embeddings, owners=own, keys=names, clusters=own)
        queries = queries.only(np.isin(own, videos.owners))
        notes = (*common.notes, *(f"left out: {reason}" for reason in embedded.unreadable))
        common = dataclasses.replace(common, settings={**common.settings, "queries": "images given"}, notes=notes)
    else:
        order = np.argsort(held_owners, kind="stable")
        own = np.array(held_owners, dtype=np.int64)[order]
        stacked = np.stack(held_out)[order] if held_out else np.zeros((0, encoder.traits.dim), np.float32)
        queries = Side(vectors=stacked, owners=own, keys=tuple(f"{keys[number]}@{hold_out}" for number in own))
        how = f"the {hold_out} frame of each video, held out of its mean"
        common = dataclasses.replace(common, settings={**common.settings, "queries": how})
    if not len(queries):
        raise DataError(f"data set {dataset.name!r} has no query image: its videos have one frame, or are unreadable")
    return answer(queries, videos, task="image to video", common=common)


def video_keys(dataset: VideoSet) -> tuple[str, ...]:
    """Name each video of a set by its path and its part of the file; names are unique."""
    spans = dataset.spans or (None,) * len(dataset.videos)
    names = [
        str(path) if span is None else f"{path}[{span[0]:g}-{span[1]:g} s]"
        for path, span in zip(dataset.videos, spans, strict=True)
    ]
    seen: dict[str, int] = {}
    for number, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            names[number] = f"{name} ({seen[name]})"
    return tuple(names)


class _Found:
    """Collects the readable videos of a set, and notes on unreadable and incomplete ones."""

    def __init__(self, dataset: VideoSet) -> None:
        self._dataset = dataset
        self._kept: list[int] = []
        self._lost: list[str] = []
        self._partial: list[str] = []

    def part(self, video: EmbeddedVideo) -> EmbeddedVideo | None:
        """Return the part of a video that the set names; None, with a note, if it has no frame."""
        span = self._dataset.spans[video.number] if self._dataset.spans is not None else None
        part = video.within(span)
        reason = part.unreadable
        if reason is None and not len(part.embeddings):
            reason = f"it has no frame within {span}"
        if reason is not None:
            self._lost.append(f"left out: {self._dataset.videos[video.number]}: {reason}")
            return None
        if part.problem is not None:
            self._partial.append(f"read in part: {self._dataset.videos[video.number]}: {part.problem}")
        self._kept.append(video.number)
        return part

    def side(self, vectors: list[Float32], keys: tuple[str, ...]) -> Side:
        if not vectors:
            first = self._lost[0] if self._lost else "the set is empty"
            raise DataError(f"none of {len(self._dataset.videos)} videos could be read; first: {first}")
        order = np.argsort(self._kept)
        kept = np.array(self._kept, dtype=np.int64)[order]
        return Side(vectors=np.stack(vectors)[order], owners=kept, keys=tuple(keys[number] for number in kept))

    def common(self, encoder: Encoder, label: str | None, frames: Frames) -> Result:
        return Result(
            task="",
            dataset=self._dataset.name,
            encoder=label or encoder.traits.id,
            figures={},
            counts={"unreadable": len(self._lost), "read in part": len(self._partial)},
            settings={"frames": frames_in_words(encoder, frames)},
            notes=(*self._dataset.notes, *self._lost, *self._partial),
        )
