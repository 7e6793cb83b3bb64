"""Find the places of an index that may contain a part of a clip: votes of frames for blocks of segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32
from impart.video.copies.frames import Blocks, FrameRun

__all__ = ["Place", "places"]

_FRAMES = 24  # of a chunk that vote
_VOTE = 0.3  # normalised similarity of a frame and a block from which the frame votes
_MOST_VOTES = 400  # per frame: the blocks most similar to it
_BIN_S = 6.0  # votes whose times differ by this much less than twice are counted together
_MOST_PLACES = 12


@dataclass(frozen=True)
class Place:
    """A part of a video that may show what a clip shows.

    Attributes:
        video: number of the video.
        start_s, end_s: times of the blocks that were voted for.
        votes: sum of the normalised similarities above the least one, one block per frame.
    """

    video: int
    start_s: float
    end_s: float
    votes: float


def places(views: Sequence[FrameRun], blocks: Blocks, *, allowed: npt.NDArray[np.bool_] | None = None) -> list[Place]:
    """Find the places with the most votes of a clip's frames.

    Args:
        views: one clip of some twenty seconds at most, as it is and mirrored. The views take turns to vote: a frame and
            its mirror image are similar enough to find the same blocks.
        allowed: (V,) videos that may be returned; None = all.

    Returns:
        At most 12, most votes first.
    """
    clip = views[0]
    rows = np.unique(np.linspace(0, len(clip) - 1, min(len(clip), _FRAMES)).round().astype(np.int64))
    turns = [views[number % len(views)] for number in range(len(rows))]
    voters = np.stack([view.rows[row] for view, row in zip(turns, rows, strict=True)])
    levels = np.array([view.levels[row] for view, row in zip(turns, rows, strict=True)], np.float32)
    frame, block, vote = _votes(voters, levels, blocks)
    if allowed is not None:
        kept = allowed[blocks.video[block]]
        frame, block, vote = frame[kept], block[kept], vote[kept]
    if not len(frame):
        return []
    times_s = ((clip.starts_s + clip.ends_s) / 2)[rows][frame]
    video, shift_s = blocks.video[block], blocks.middle_s[block] - times_s
    bins = np.floor(shift_s / _BIN_S).astype(np.int64)
    found = []
    for half in (0, 1):  # each vote counts in two bins that overlap by half
        keys = np.stack([video, bins - half], axis=1)
        _, key = np.unique(keys, axis=0, return_inverse=True)
        key = key.reshape(-1)
        best = np.zeros((int(key.max()) + 1, len(rows)), np.float32)
        np.maximum.at(best, (key, frame), vote)
        sums = best.sum(axis=1)
        for one in np.argsort(-sums, kind="stable")[:_MOST_PLACES]:
            own = key == one
            middles = blocks.middle_s[block[own]]
            found.append(Place(int(video[own][0]), float(middles.min()), float(middles.max()), float(sums[one])))
    return _without_overlaps(sorted(found, key=lambda place: -place.votes))


def _votes(
    rows: Float32, levels: Float32, blocks: Blocks
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Float32]:
    """Compare frames (A, R) with all blocks.

    r >= t  is the same as  s - (1 - t)(a_1 + a_2)/2 >= t, which needs one pass over the similarities.

    Returns:
        Numbers of frame and block, and the vote, of each pair above the least similarity.
    """
    sims = rows @ blocks.rows.T  # (A, b)
    bound = (1 - _VOTE) / 2 * blocks.levels  # (b,)
    frames, numbers, votes = [], [], []
    for frame, (row, level) in enumerate(zip(sims, levels, strict=True)):
        near = np.flatnonzero(row >= bound + (_VOTE + (1 - _VOTE) / 2 * level))
        both = (blocks.levels[near] + level) / 2
        vote = (row[near] - both) / (1 - both) - _VOTE
        if len(near) > _MOST_VOTES:
            best = np.argpartition(-vote, _MOST_VOTES)[:_MOST_VOTES]
            near, vote = near[best], vote[best]
        frames.append(np.full(len(near), frame))
        numbers.append(near)
        votes.append(vote)
    return np.concatenate(frames), np.concatenate(numbers), np.concatenate(votes)


def _without_overlaps(found: list[Place]) -> list[Place]:
    kept: list[Place] = []
    for place in found:
        if len(kept) == _MOST_PLACES:
            break
        if not any(
            place.video == other.video and place.start_s >= other.start_s and place.end_s <= other.end_s
            for other in kept
        ):
            kept.append(place)
    return kept
