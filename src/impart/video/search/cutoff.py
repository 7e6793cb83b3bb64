"""Cutoff: mark where the good hits of a search end, and fold hits that show the same.

No score is good for every query. A hit is marked as strong where both hold, for the mean score of the better half of
its frames:

- it is at least `SHARE` of the best hit's score. Scores of a text count from 0, which is what the captions that come
  with the model reach on the same frames (`impart.retrieval.hubness`). Scores of an image, or of a model without
  captions, count from the mean score of the index;
- for a text and a model with captions: it is at least `LEAST_SCORE`, and the cosine at least `LEAST_COSINE`. No caption
  describes a chart or a title, so that any odd text scores well above the captions there; its cosine is low.

All were chosen with `mini` on Flickr8k `val`, where the image of each caption is known, and on photos of OpenStax
books. Of the captions whose image is the best of 66, 94% reach both bounds there, and 30 of 35 single words that some
of 500 images show. Of 200 descriptions of textbook photos, which those 500 images do not show, 53% have no strong hit,
of 20 texts without sense 95% (`benchmarks/sequences.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impart.blending.encoder import AugmentedEncoder
from impart.encoders.base import Float32, l2_normalise
from impart.refset.refset import ReferenceSet
from impart.retrieval.hubness import CaptionBank
from impart.retrieval.near_duplicates import CopyBounds
from impart.video.names.scores import NamedScores
from impart.video.search.hits import Hit, NearCopy
from impart.video.search.query import Query, SearchOptions
from impart.video.search.scoring import frame_vectors
from impart.video.search.snapshot import Snapshot

__all__ = [
    "LEAST_COSINE",
    "LEAST_SCORE",
    "SHARE",
    "Asked",
    "copy_bound",
    "fold_hits",
    "leaders",
    "mark_hits",
    "strong_hits",
    "wide",
]

LEAST_SCORE = 0.22
"""Least score of a strong hit of a text."""
LEAST_COSINE = 0.36
"""Least cosine of a strong hit of a text."""
SHARE = 0.8
"""Least share of the best score that a strong hit has."""

_COMPARED = 100  # best hits that are marked, and compared with each other
_ROWS_OF_HIT = 8  # frames of a span that are compared; evenly spaced
_SAMPLED = 256  # frames of an index whose mean score stands for all
_BOUND_FRAMES = 1500
_EPSILON_S = 1e-6


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A query with its vectors.

    Attributes:
        vectors: (P, D) of its parts, see `Query.parts`.
        by_text: (P,) parts without an image.
        query: None for a moment of an indexed video.
        named: P, of the parts with taught names; None of others. Empty: no part has one.
    """

    vectors: Float32
    by_text: npt.NDArray[np.bool_]
    query: Query | None = None
    named: tuple[NamedScores | None, ...] = ()

    def spans_of(self, hit: Hit) -> list[tuple[float, float]]:
        """List start and end (s) of the P spans of a hit that the parts of the query fit."""
        if self.query is None or not hit.steps:
            return [(hit.start_s, hit.end_s)]
        return [
            (span.start_s, span.end_s)
            for step, span in zip(self.query.steps(), hit.steps, strict=True)
            for _ in range(1 if step.also is None else 2)
        ]


def wide(options: SearchOptions) -> SearchOptions:
    """Return options that find enough hits for those that are left out, folded or before the offset."""
    spare = options.top if options.fold_copies else 0
    return dataclasses.replace(options, top=options.offset + options.top + spare)


def strong_hits(scores: npt.NDArray[np.floating], *, floor: float = 0.0) -> npt.NDArray[np.bool_]:
    """Mark those of k hits that have at least `SHARE` of the best score; the best is always among them.

    Args:
        scores: (k,) of the hits.
        floor: the score from which shares are counted.

    >>> strong_hits(np.array([0.5, 0.42, 0.2])).tolist()
    [True, True, False]
    """
    if not len(scores):
        return np.zeros(0, bool)
    best = float(scores.max())
    strong: npt.NDArray[np.bool_] = scores >= min(best, floor + SHARE * (best - floor))
    return strong


def mark_hits(
    hits: Sequence[Hit], asked: Asked, snapshot: Snapshot, encoder: AugmentedEncoder | None, *, bank: CaptionBank | None
) -> list[Hit]:
    """Number hits, best first, and mark the strong ones by the scores of up to 8 frames of each span.

    Of a query that is joined in time, the mean of its parts must reach the bounds, and the score of the hit the share.

    Args:
        encoder: the augmentation in force; None compares the base vectors.
        bank: captions that come with the model.
    """
    compared = hits[:_COMPARED]
    strong = np.zeros(len(hits), bool)
    if compared:
        bank = bank if asked.by_text.all() else None
        rows = [[_span_rows(snapshot, hit, span) for span in asked.spans_of(hit)] for hit in compared]
        scores, cosines = _of_spans(rows, asked, snapshot, encoder, bank=bank)  # (k, P) each
        floor = 0.0
        if asked.query is not None and asked.query.joined:
            best = strong_hits(np.array([hit.score for hit in compared]))
        elif any(asked.named):
            best = strong_hits(scores[:, 0])
        else:
            if bank is None:
                sample = frame_vectors(snapshot, encoder, _evenly(0, len(snapshot), _SAMPLED))
                floor = float((sample @ asked.vectors[0]).mean())
            best = strong_hits(scores[:, 0], floor=floor)
        strong[: len(compared)] = best & _reached(rows, scores, cosines, asked, bounded=bank is not None)
    names = [_names_in(hit, asked, snapshot) for hit in hits]
    return [
        dataclasses.replace(hit, rank=rank, strong=bool(one), names=of_hit)
        for rank, (hit, one, of_hit) in enumerate(zip(hits, strong, names, strict=True), 1)
    ]


def _names_in(hit: Hit, asked: Asked, snapshot: Snapshot) -> tuple[str, ...]:
    """List the taught names of a query that are present in a hit."""
    if not any(asked.named):
        return hit.names
    found: list[str] = []
    for named, span in zip(asked.named, asked.spans_of(hit), strict=True):
        if named is not None:
            found += named.names_in(_span_rows(snapshot, hit, span))
    return tuple(dict.fromkeys(found))


def copy_bound(snapshot: Snapshot, references: ReferenceSet | None) -> float:
    """Compute the cosine of retrieval embeddings from which two spans show the same.

    It is that of the reference set in force, since its images are known to differ; without one, that of frames of
    different videos of the index. Above 1 where there are too few.
    """
    if references is not None and len(references):
        return references.copy_bounds.copy
    rows = _evenly(0, len(snapshot), _BOUND_FRAMES)
    if not len(rows):
        return CopyBounds().copy
    found = l2_normalise(snapshot.retrieval[rows].astype(np.float32))
    videos = [str(video) for video in snapshot.video_of[rows]]  # frames of one video are not unrelated
    return CopyBounds.of(found, videos, np.arange(len(rows), dtype=np.int32)).copy


def leaders(vectors: Float32, videos: Sequence[str], *, bound: float) -> list[int]:
    """Find for each of k hits the first hit of another video that shows the same; its own number where none does.

    A hit is compared with hits that are their own leader.

    Args:
        vectors: (k, R) unit vectors of the spans.
        videos: k ids of the videos.
        bound: cosine from which two spans show the same.
    """
    cosines = vectors @ vectors.T
    found: list[int] = []
    for hit in range(len(vectors)):
        same = (
            other
            for other in range(hit)
            if found[other] == other and videos[other] != videos[hit] and cosines[hit, other] >= bound
        )
        found.append(next(same, hit))
    return found


def fold_hits(hits: Sequence[Hit], snapshot: Snapshot, *, bound: float) -> list[Hit]:
    """Fold each hit that shows the same as a better hit of another video into the `near_copies` of that one.

    Args:
        bound: cosine of the mean retrieval embeddings of two spans from which they show the same.
    """
    compared = list(hits[:_COMPARED])
    if len({hit.video_id for hit in compared}) < 2 or not snapshot.manifest.retrieval_dim:
        return list(hits)
    rows = [_span_rows(snapshot, hit, (hit.start_s, hit.end_s)) for hit in compared]
    means = [l2_normalise(snapshot.retrieval[one].astype(np.float32)).mean(axis=0) for one in rows]
    leader = leaders(l2_normalise(np.stack(means)), [hit.video_id for hit in compared], bound=bound)
    copies: dict[int, list[NearCopy]] = {}
    for hit, first in zip(compared, leader, strict=True):
        if compared[first] is not hit:
            for path in (hit.path, *hit.also_at):
                copy = NearCopy(path=path, start_s=hit.start_s, end_s=hit.end_s, score=hit.score, kind=hit.kind)
                copies.setdefault(first, []).append(copy)
    kept = [
        dataclasses.replace(hit, near_copies=tuple(copies.get(number, ())))
        for number, hit in enumerate(compared)
        if leader[number] == number
    ]
    return [*kept, *hits[_COMPARED:]]


def _reached(
    rows: Sequence[Sequence[npt.NDArray[np.int64]]],
    scores: npt.NDArray[np.float64],
    cosines: npt.NDArray[np.float64],
    asked: Asked,
    *,
    bounded: bool,
) -> npt.NDArray[np.bool_]:
    """Select the hits (k,) that reach the bounds: all names are present, and the mean of the other parts is enough.

    Args:
        scores, cosines: (k, P) of the parts.
        bounded: whether there are bounds of scores and cosines.
    """
    named = [one is not None for one in asked.named] or [False] * scores.shape[1]
    reached = np.ones(len(rows), bool)
    others = [part for part, is_named in enumerate(named) if not is_named]
    if bounded and others:
        reached &= scores[:, others].mean(axis=1) >= LEAST_SCORE
        reached &= cosines[:, others].mean(axis=1) >= LEAST_COSINE
    for part, one in enumerate(asked.named):
        if one is not None:
            reached &= np.array([set(one.present) <= set(one.names_in(of_hit[part])) for of_hit in rows])
    return reached


def _of_spans(
    rows: Sequence[Sequence[npt.NDArray[np.int64]]],
    asked: Asked,
    snapshot: Snapshot,
    encoder: AugmentedEncoder | None,
    *,
    bank: CaptionBank | None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Compute the scores and cosines (k, P) of k hits with the P parts of a query: of the better half of the frames."""
    every = np.unique(np.concatenate([one for of_hit in rows for one in of_hit]))
    vectors = frame_vectors(snapshot, encoder, every)
    cosines = asked.vectors @ vectors.T  # (P, m)
    scores = cosines.copy() if bank is None else cosines - bank.hubness(vectors)
    for part, named in enumerate(asked.named):
        if named is not None:
            scores[part] = named.scores[every]

    def of_spans(values: Float32) -> npt.NDArray[np.float64]:
        return np.array(
            [
                [_of_better_half(values[part, np.searchsorted(every, one)]) for part, one in enumerate(of_hit)]
                for of_hit in rows
            ]
        )

    return of_spans(scores), of_spans(cosines)


def _of_better_half(scores: Float32) -> float:
    return float(np.sort(scores)[len(scores) // 2 :].mean())


def _span_rows(snapshot: Snapshot, hit: Hit, span: tuple[float, float]) -> npt.NDArray[np.int64]:
    """List up to 8 evenly spaced segments of a span (s) of the hit's video; at least one."""
    video = snapshot.number_of[hit.video_id]
    first, stop = int(snapshot.offsets[video]), int(snapshot.offsets[video + 1])
    low = first + int(np.searchsorted(snapshot.end_s[first:stop], span[0] + _EPSILON_S, side="right"))
    high = first + int(np.searchsorted(snapshot.start_s[first:stop], span[1] - _EPSILON_S, side="left"))
    low = min(low, stop - 1)
    return _evenly(low, max(high, low + 1), _ROWS_OF_HIT)


def _evenly(first: int, stop: int, most: int) -> npt.NDArray[np.int64]:
    """List up to `most` evenly spaced whole numbers from `first` to below `stop`."""
    return np.unique(np.linspace(first, stop - 1, min(most, stop - first)).round().astype(np.int64))
