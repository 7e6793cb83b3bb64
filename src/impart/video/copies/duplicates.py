"""Find videos of an index that share content: exact copies by their digest, near copies by their frames.

All blocks are compared with all later ones, tile by tile, so that memory is bounded. Pairs of blocks that are alike
vote for a pair of videos and a shift in time. Where votes agree, the frames are aligned as those of a clip are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from impart.encoders.base import Float32
from impart.video.copies.finder import FASTEST, chunks
from impart.video.copies.frames import Blocks, IndexedFrames
from impart.video.copies.matching import parallels
from impart.video.copies.spans import AlignedSpan, Duplicate, DuplicateGroup, joined, seconds_of

__all__ = ["duplicate_groups"]

_TILE = 2048, 16_384  # blocks compared at once: 128 MB of similarities
_VOTE = 0.45  # normalised similarity from which two blocks vote
_MOST_VOTES = 32  # of a block in one tile: those most similar
_BIN_S = 6.0
_MOST_PLACES = 6  # of a chunk in one other video
_ROOM_S = 2.0

Votes = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Numbers of two blocks per vote, the first one of the earlier video."""


def duplicate_groups(
    frames: IndexedFrames,
    paths: Sequence[Path],
    *,
    copies: Mapping[int, tuple[int, ...]],
    durations_s: npt.NDArray[np.float64],
    fps: float,
    least: float,
    min_length_s: float,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[DuplicateGroup]:
    """Find the groups of videos that share content.

    Args:
        paths: V, of the videos.
        copies: numbers of the videos with the same content, by number (`Snapshot.copies`). The first one of them stands
            for all when frames are compared.
        durations_s: (V,)
        fps: samples per second of the time grid on which videos are aligned.
        least: smallest score of a span; min_length_s: least seconds that two videos share.
        on_progress: called with the number of blocks done and of all blocks.

    Returns:
        Groups with the largest shares first.
    """
    pairs = [
        _exact(paths, first, other, durations_s)
        for first, same in copies.items()
        if first == same[0]
        for other in same[1:]
    ]
    stands = np.array([copies.get(video, (video,))[0] == video for video in range(len(paths))])
    votes: dict[tuple[int, int], list[Votes]] = defaultdict(list)
    for one, other in _votes(frames.blocks, stands, on_progress):
        videos = np.stack([frames.blocks.video[one], frames.blocks.video[other]], axis=1)
        keys, key = np.unique(videos, axis=0, return_inverse=True)
        order = np.argsort(key.reshape(-1), kind="stable")
        own = np.split(order, np.cumsum(np.bincount(key.reshape(-1)))[:-1])
        for (first, second), part in zip(keys.tolist(), own, strict=True):
            votes[first, second].append((one[part], other[part]))
    with threadpool_limits(limits=1, user_api="blas"):  # of small products, waiting threads take more than they give
        for (first, second), parts in sorted(votes.items()):
            one, other = (np.concatenate(side) for side in zip(*parts, strict=True))
            spans = _aligned(frames, first, second, one, other, fps=fps, least=least)
            if seconds_of((span.start_s, span.end_s) for span in spans) >= min_length_s:
                pairs.append(_near(paths, first, second, spans, durations_s))
    return _grouped(pairs)


def _votes(
    blocks: Blocks, stands: npt.NDArray[np.bool_], on_progress: Callable[[int, int], None] | None
) -> Iterator[Votes]:
    """Find the pairs of similar blocks of different videos, tile by tile.

    r >= t  is the same as  s - (1 - t)(a_1 + a_2)/2 >= t: the levels become two more columns of the product.
    """
    used = np.flatnonzero(stands[blocks.video])
    half = (1 - _VOTE) / 2 * blocks.levels[used]
    ones = np.ones_like(half)
    left = np.column_stack([blocks.rows[used], -half, ones])
    right = np.column_stack([blocks.rows[used], ones, -half])
    video = blocks.video[used]
    for low in range(0, len(used), _TILE[0]):
        part = slice(low, low + _TILE[0])
        for first in range(low, len(used), _TILE[1]):
            near = left[part] @ right[first : first + _TILE[1]].T
            row, column = np.nonzero(near >= _VOTE)
            later = video[low + row] < video[first + column]
            row, column = row[later], column[later]
            if len(row):
                kept = _largest(row, near[row, column])
                yield used[low + row[kept]], used[first + column[kept]]
        if on_progress is not None:
            on_progress(min(low + _TILE[0], len(used)), len(used))


def _largest(row: npt.NDArray[np.int64], value: Float32) -> npt.NDArray[np.int64]:
    """Choose up to `_MOST_VOTES` entries of each row, those with the largest values."""
    order = np.lexsort((-value, row))
    starts = np.searchsorted(row[order], row[order], side="left")
    kept: npt.NDArray[np.int64] = order[np.arange(len(order)) - starts < _MOST_VOTES]
    return kept


def _aligned(
    frames: IndexedFrames,
    first: int,
    second: int,
    one: npt.NDArray[np.int64],
    other: npt.NDArray[np.int64],
    *,
    fps: float,
    least: float,
) -> list[AlignedSpan]:
    """Align two videos where blocks of the one voted for blocks of the other."""
    blocks = frames.blocks
    times, other_times = blocks.middle_s[one], blocks.middle_s[other]
    found: list[AlignedSpan] = []
    for chunk in chunks(frames.clip(int(frames.offsets[first]), int(frames.offsets[first + 1]))):
        start_s, end_s = float(chunk.starts_s[0]), float(chunk.ends_s[-1])
        own = (times >= start_s - _ROOM_S) & (times <= end_s + _ROOM_S)
        if not own.any():
            continue
        shift = np.floor((other_times[own] - times[own]) / _BIN_S).astype(np.int64)
        bins, counts = np.unique(shift, return_counts=True)
        reach_s = FASTEST * (end_s - start_s) + _ROOM_S
        seen: list[tuple[float, float]] = []
        for one_bin in bins[np.argsort(-counts, kind="stable")[:_MOST_PLACES]]:
            there = other_times[own][shift == one_bin]
            low_s, high_s = float(there.min()), float(there.max())
            if any(low_s >= start and high_s <= end for start, end in seen):
                continue
            seen.append((low_s - reach_s / 2, high_s + reach_s / 2))
            window = frames.window(second, low_s - reach_s, high_s + reach_s)
            spans = parallels(chunk, window, frames.background, fps=fps, least=least)
            found += [AlignedSpan.of(span) for span in spans]
    return joined(found)


def _exact(paths: Sequence[Path], first: int, other: int, durations_s: npt.NDArray[np.float64]) -> Duplicate:
    length_s = float(durations_s[first])
    whole = AlignedSpan(
        start_s=0.0,
        end_s=length_s,
        video_start_s=0.0,
        video_end_s=length_s,
        speed=1.0,
        score=1.0,
        evidence_s=length_s,
    )
    return Duplicate(path=paths[first], other_path=paths[other], exact=True, spans=(whole,), share=1.0, other_share=1.0)


def _near(
    paths: Sequence[Path], first: int, second: int, spans: list[AlignedSpan], durations_s: npt.NDArray[np.float64]
) -> Duplicate:
    if durations_s[second] > durations_s[first]:
        first, second = second, first
        spans = [span.reversed() for span in spans]
    covered_s = seconds_of((span.start_s, span.end_s) for span in spans)
    other_s = seconds_of((span.video_start_s, span.video_end_s) for span in spans)
    return Duplicate(
        path=paths[first],
        other_path=paths[second],
        exact=False,
        spans=tuple(sorted(spans, key=lambda span: (span.start_s, span.video_start_s))),
        share=min(1.0, covered_s / max(float(durations_s[first]), 1e-9)),
        other_share=min(1.0, other_s / max(float(durations_s[second]), 1e-9)),
    )


def _grouped(pairs: list[Duplicate]) -> list[DuplicateGroup]:
    """Join pairs that have a video in common."""
    head: dict[Path, Path] = {}

    def find(path: Path) -> Path:
        head.setdefault(path, path)
        while head[path] != path:
            head[path] = path = head[head[path]]
        return path

    for pair in pairs:
        head[find(pair.path)] = find(pair.other_path)
    members: dict[Path, list[Duplicate]] = defaultdict(list)
    for pair in sorted(pairs, key=lambda pair: (not pair.exact, -pair.other_share, -pair.share, pair.path)):
        members[find(pair.path)].append(pair)
    groups = sorted(members.values(), key=lambda own: (not own[0].exact, -own[0].other_share, own[0].path))
    return [
        DuplicateGroup(
            number=number,
            paths=tuple(sorted({path for pair in own for path in (pair.path, pair.other_path)})),
            duplicates=tuple(own),
        )
        for number, own in enumerate(groups, 1)
    ]
