"""Aligned spans of two videos, and the copies and duplicates that they make up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from impart.video.copies.matching import Parallel

__all__ = ["AlignedSpan", "Copy", "Duplicate", "DuplicateGroup", "joined", "seconds_of"]

_SAME_PLACE_S = 1.0  # two spans whose lines are this near continue one another
_FOR_MIRROR = 0.02  # larger score that a mirrored clip needs: many frames are nearly symmetric to an encoder
_WORSE = 0.15  # smaller score with which a second place of the same part does not count
_BESIDE_S, _MUCH_SHORTER = 2.0, 0.6
_SHARED = 0.5  # share of the shorter span that two spans have in common, to be the same one


@dataclass(frozen=True, kw_only=True)
class AlignedSpan:
    """A span of one video that shows what a span of another shows.

    Attributes:
        start_s, end_s: in the clip, or in the first video of a pair.
        video_start_s, video_end_s: in the indexed video, or in the second one of a pair.
        speed: seconds of the indexed video per second of the clip: below 1 where the clip was slowed down.
        score: from 0 (as similar as unrelated frames) to 1 (equal).
        evidence_s: seconds of equal frames with the same evidence; spans and copies are ranked by it.
        mirrored: whether left and right are exchanged; False also where it was not tested, as between indexed videos.
    """

    start_s: float
    end_s: float
    video_start_s: float
    video_end_s: float
    speed: float
    score: float
    evidence_s: float
    mirrored: bool = False

    @classmethod
    def of(cls, found: Parallel, *, mirrored: bool = False) -> AlignedSpan:
        return cls(
            start_s=found.start_s,
            end_s=found.end_s,
            video_start_s=found.video_start_s,
            video_end_s=found.video_end_s,
            speed=found.speed,
            score=found.score,
            evidence_s=found.evidence_s,
            mirrored=mirrored,
        )

    @property
    def length_s(self) -> float:
        """Seconds of the clip."""
        return self.end_s - self.start_s

    def reversed(self) -> AlignedSpan:
        """Exchange the two videos."""
        return replace(
            self,
            start_s=self.video_start_s,
            end_s=self.video_end_s,
            video_start_s=self.start_s,
            video_end_s=self.end_s,
            speed=1 / self.speed,
        )

    def at(self, time_s: float) -> float:
        """Compute the time in the indexed video of a time in the clip."""
        return self.video_start_s + self.speed * (time_s - self.start_s)


@dataclass(frozen=True, kw_only=True)
class Copy:
    """An indexed video that contains a clip, or a part of it.

    Attributes:
        rank: from 1.
        path, video_id, video_s: of the indexed video; its length in seconds.
        spans: aligned spans, most evidence first; `start_s` counts in the clip, `video_start_s` in the indexed video.
        also_at: other files with the same content as the indexed video, sorted.
    """

    rank: int
    path: Path
    video_id: str
    video_s: float
    spans: tuple[AlignedSpan, ...]
    also_at: tuple[Path, ...] = ()

    @property
    def score(self) -> float:
        """Score of the first span."""
        return self.spans[0].score


@dataclass(frozen=True, kw_only=True)
class Duplicate:
    """Two indexed videos that share content.

    Attributes:
        path, other_path: `path` is the longer video; of two equally long ones, the first by name.
        exact: whether the files have the same content, byte by byte; then there is one span, the whole video.
        spans: aligned spans in order of time; `start_s` counts in `path`, `video_start_s` in `other_path`.
        share, other_share: parts of either video that the spans cover, from 0 to 1.
    """

    path: Path
    other_path: Path
    exact: bool
    spans: tuple[AlignedSpan, ...]
    share: float
    other_share: float

    @property
    def score(self) -> float:
        """Largest score of the spans."""
        return max(span.score for span in self.spans)


@dataclass(frozen=True, kw_only=True)
class DuplicateGroup:
    """Videos that are connected by duplicates.

    Attributes:
        number: from 1.
        paths: of all videos of the group, sorted.
        duplicates: pairs, with the largest share first.
    """

    number: int
    paths: tuple[Path, ...]
    duplicates: tuple[Duplicate, ...]


def joined(spans: Iterable[AlignedSpan]) -> list[AlignedSpan]:
    """Join the spans of one pair of videos that continue one another, and drop those found twice.

    Returns:
        Most evidence first.
    """
    kept: list[AlignedSpan] = []
    for span in sorted(spans, key=lambda span: (span.mirrored, span.start_s)):
        for place, other in enumerate(kept):
            if _continues(other, span):
                kept[place] = _union(other, span)
                break
        else:
            kept.append(span)
    best: list[AlignedSpan] = []
    for span in sorted(kept, key=lambda span: (-span.evidence_s, span.mirrored, span.start_s)):
        same = next((place for place, other in enumerate(best) if _is_same(other, span)), None)
        if same is None:
            if not any(_is_worse(span, other) for other in best):
                best.append(span)
        elif _view_score(span) > _view_score(best[same]) and span.mirrored != best[same].mirrored:
            best[same] = span
    return best


def _view_score(span: AlignedSpan) -> float:
    return span.score - _FOR_MIRROR * span.mirrored


def seconds_of(spans: Iterable[tuple[float, float]]) -> float:
    """Compute the length of the union of spans.

    >>> seconds_of([(0, 2), (1, 3), (5, 6)])
    4.0
    """
    total, reached = 0.0, float("-inf")
    for start_s, end_s in sorted(spans):
        total += max(0.0, end_s - max(start_s, reached))
        reached = max(reached, end_s)
    return total


def _continues(first: AlignedSpan, second: AlignedSpan) -> bool:
    """Whether the second span, which starts later, lies on the line of the first one and touches it."""
    if first.mirrored != second.mirrored or second.start_s > first.end_s + _SAME_PLACE_S:
        return False
    middle_s = (second.start_s + min(first.end_s, second.end_s)) / 2
    return abs(first.at(middle_s) - second.at(middle_s)) <= _SAME_PLACE_S


def _union(first: AlignedSpan, second: AlignedSpan) -> AlignedSpan:
    last = max(first, second, key=lambda span: span.end_s)
    if last is first:
        return max(first, second, key=lambda span: span.evidence_s)
    length_s = last.end_s - first.start_s
    overlap_s = max(0.0, first.end_s - second.start_s)
    more_s = second.evidence_s * (1 - min(1.0, overlap_s / max(second.length_s, 1e-9)))
    weights = first.length_s, max(second.length_s - overlap_s, 1e-9)
    return replace(
        first,
        end_s=last.end_s,
        video_end_s=last.video_end_s,
        speed=(last.video_end_s - first.video_start_s) / max(length_s, 1e-9),
        score=(first.score * weights[0] + second.score * weights[1]) / sum(weights),
        evidence_s=first.evidence_s + more_s,
    )


def _is_worse(span: AlignedSpan, other: AlignedSpan) -> bool:
    """Whether a span is no second place of a part that has a better one.

    It has a much lower score, or it lies beside the better one and is much shorter: the frames before and after a part
    are like its first and last ones.
    """
    in_clip, in_video = _shares(span, other)
    if max(in_clip, in_video) <= _SHARED:
        return False
    starts, ends = max(span.video_start_s, other.video_start_s), min(span.video_end_s, other.video_end_s)
    if in_video > _SHARED:
        starts, ends = max(span.start_s, other.start_s), min(span.end_s, other.end_s)
    beside = starts - ends <= _BESIDE_S and span.evidence_s < _MUCH_SHORTER * other.evidence_s
    return beside or span.score < other.score - _WORSE


def _is_same(one: AlignedSpan, other: AlignedSpan) -> bool:
    """Whether two spans have more than half of the shorter one in common, in both videos."""
    return min(_shares(one, other)) > _SHARED


def _shares(one: AlignedSpan, other: AlignedSpan) -> tuple[float, float]:
    """Compute the parts of the shorter span that two spans have in common: in the clip, and in the indexed video."""
    in_clip = _common(one.start_s, one.end_s, other.start_s, other.end_s)
    in_video = _common(one.video_start_s, one.video_end_s, other.video_start_s, other.video_end_s)
    return in_clip, in_video


def _common(start_s: float, end_s: float, other_start_s: float, other_end_s: float) -> float:
    shorter_s = min(end_s - start_s, other_end_s - other_start_s)
    return (min(end_s, other_end_s) - max(start_s, other_start_s)) / max(shorter_s, 1e-9)
