"""Retrieval of videos: by text, text by video, and by an image. A video is the mean of its frames (IMPART 3.3)."""

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
from impart.evaluate.embed_videos import EmbeddedVideo, FrameReader, embed_videos, mean_vector, sampling_of
from impart.evaluate.result import Result
from impart.evaluate.tasks.retrieval import Side, answer, as_searched, both_ways, caption_keys

__all__ = ["HeldOut", "image_to_video", "video_retrieval"]

HeldOut: TypeAlias = Literal["first", "middle"]
Ints = npt.NDArray[np.int64]


def video_retrieval(
    encoder: Encoder,
    dataset: VideoSet,
    *,
    frames: FrameReader,
    query_bank: bool = False,
    cache: EmbeddingCache | None = None,
    label: str | None = None,
    batch: int = 32,
    on_progress: Progress | None = None,
) -> tuple[Result, ...]:
    """Text-to-video and video-to-text retrieval.

    Args:
        encoder: plain or augmented; where augmented, the mean is over the frames' v'.
        dataset: videos (or parts of them) with captions.
        frames: reads a video, such as `partial(impart.video.decode.sampler.sampled_frames, short_side_px=224)`.
        query_bank: measure both directions with query-bank normalisation as well.
        cache: where embeddings are kept; None = nowhere.
        label: what the report calls the encoder; None = its id.
        batch: frames in one forward pass.
        on_progress: told the videos done.

    Returns:
        Text to video, video to text; then both with the query bank, where asked for; then text to video with the hub
        correction, where the model has one.

    Raises:
        DataError: no video could be read, or none that could has a caption.
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
    frames: FrameReader,
    images: Images | None = None,
    owners: Ints | None = None,
    hold_out: HeldOut = "middle",
    cache: EmbeddingCache | None = None,
    label: str | None = None,
    batch: int = 32,
    on_progress: Progress | None = None,
) -> Result:
    """Find the video that an image belongs to.

    Args:
        encoder: plain or augmented.
        dataset: the videos; captions are not needed.
        frames: reads a video.
        images: queries; None = one frame of each video, which then is left out of that video's mean.
        owners: (q,) the video of each query image.
        hold_out: which frame, where no images are given. A frame is much like its neighbours: this is the easy
            form of the task, a check rather than a benchmark. A video of a single frame is searched and asks nothing.
        cache: where embeddings are kept; None = nowhere.
        label: what the report calls the encoder; None = its id.
        batch: frames or images in one forward pass.
        on_progress: told the videos done.

    Raises:
        DataError: no video could be read, or no query is left.
        ConfigError: `images` without `owners`, or `hold_out` is unknown.
    """
    if (images is None) != (owners is None):
        raise ConfigError("image to video: query images come with the number of each one's video (owners)")
    if hold_out not in ("first", "middle"):
        raise ConfigError(f"image to video cannot hold out the {hold_out!r} frame: use first or middle")
    found = _Found(dataset)
    vectors: list[Float32] = []
    asked: list[Float32] = []
    askers: list[int] = []
    for video in embed_videos(encoder, dataset.videos, frames, cache=cache, batch=batch, on_progress=on_progress):
        part = found.part(video)
        if part is None:
            continue
        held = None
        if images is None and len(part.embeddings) > 1:
            at_s = part.spans[0, 0] if hold_out == "first" else (part.spans[0, 0] + part.spans[-1, 1]) / 2
            held = np.array([int(np.searchsorted(part.spans[:, 0], at_s, side="right")) - 1])
            asked.append(part.embeddings[held[0]])
            askers.append(part.number)
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
        order = np.argsort(askers, kind="stable")
        own = np.array(askers, dtype=np.int64)[order]
        stacked = np.stack(asked)[order] if asked else np.zeros((0, encoder.traits.dim), np.float32)
        queries = Side(vectors=stacked, owners=own, keys=tuple(f"{keys[number]}@{hold_out}" for number in own))
        how = f"the {hold_out} frame of each video, held out of its mean"
        common = dataclasses.replace(common, settings={**common.settings, "queries": how})
    if not len(queries):
        raise DataError(f"data set {dataset.name!r} has no query image: its videos are of one frame, or unreadable")
    return answer(queries, videos, task="image to video", common=common)


def video_keys(dataset: VideoSet) -> tuple[str, ...]:
    """A unique name for each video of a set: the path, and the part of it that is meant."""
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
    """Which videos of a set could be read, and which not to their end, as they come."""

    def __init__(self, dataset: VideoSet) -> None:
        self._dataset = dataset
        self._kept: list[int] = []
        self._lost: list[str] = []
        self._partial: list[str] = []

    def part(self, video: EmbeddedVideo) -> EmbeddedVideo | None:
        """The part of a video that is meant; None, and counted, where there is nothing of it."""
        span = self._dataset.spans[video.number] if self._dataset.spans is not None else None
        part = video.within(span)
        reason = part.unreadable
        if reason is None and not len(part.embeddings):
            reason = f"nothing of it lies within {span}"
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

    def common(self, encoder: Encoder, label: str | None, frames: FrameReader) -> Result:
        return Result(
            task="",
            dataset=self._dataset.name,
            encoder=label or encoder.traits.id,
            figures={},
            counts={"unreadable": len(self._lost), "read in part": len(self._partial)},
            settings={"frames": sampling_of(frames) or "a reader without a name"},
            notes=(*self._dataset.notes, *self._lost, *self._partial),
        )
