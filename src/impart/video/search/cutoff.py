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
from collections.abc import Callable, Iterator, Sequence
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
    "FrameHubness",
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

FrameHubness = Callable[[npt.NDArray[np.int64]], Float32]
"""Returns the hubness (m,) of the segments of these numbers (m,)."""

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
    hits: Sequence[Hit],
    asked: Asked,
    snapshot: Snapshot,
    encoder: AugmentedEncoder | None,
    *,
    bank: CaptionBank | None,
    hubness: FrameHubness | None = None,
    returned: slice = slice(None),
) -> list[Hit]:
    """Number hits, best first, and mark the strong ones by the scores of up to 8 frames of each span.

    Of a query that is joined in time, the mean of its parts must reach the bounds, and the score of the hit the share.

    Args:
        encoder: the augmentation in force; None compares the base vectors.
        bank: captions that come with the model.
        hubness: returns that of segments by `bank`; None computes it.
        returned: the hits that are returned; the others are compared with these.
    """
    strong = np.zeros(len(hits), bool)
    compared = hits[:_COMPARED]
    if compared:
        strong[: len(compared)] = _strong_ones(compared, asked, snapshot, encoder, bank=bank, hubness=hubness)
    ranks = range(1, len(hits) + 1)
    marked = zip(hits[returned], ranks[returned], strong[returned].tolist(), strict=True)
    if not any(asked.named):
        return [dataclasses.replace(hit, rank=rank, strong=one) for hit, rank, one in marked]
    return [
        dataclasses.replace(hit, rank=rank, strong=one, names=_names_in(hit, asked, snapshot))
        for hit, rank, one in marked
    ]


def _strong_ones(
    compared: Sequence[Hit],
    asked: Asked,
    snapshot: Snapshot,
    encoder: AugmentedEncoder | None,
    *,
    bank: CaptionBank | None,
    hubness: FrameHubness | None,
) -> npt.NDArray[np.bool_]:
    """Select the strong ones (k,) of k hits."""
    bank = bank if asked.by_text.all() else None
    spans = [asked.spans_of(hit) for hit in compared]
    parts = len(spans[0])
    numbers = [snapshot.number_of[hit.video_id] for hit in compared for _ in range(parts)]
    flat = _span_rows(snapshot, numbers, [span for of_hit in spans for span in of_hit])
    rows = [flat[first : first + parts] for first in range(0, len(flat), parts)]
    scores, cosines = _of_spans(rows, asked, snapshot, encoder, bank=bank, hubness=hubness)  # (k, P) each
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
    return best & _reached(rows, scores, cosines, asked, bounded=bank is not None)


def _names_in(hit: Hit, asked: Asked, snapshot: Snapshot) -> tuple[str, ...]:
    """List the taught names of a query that are present in a hit."""
    found: list[str] = []
    spans = asked.spans_of(hit)
    rows = _span_rows(snapshot, [snapshot.number_of[hit.video_id]] * len(spans), spans)
    for named, of_span in zip(asked.named, rows, strict=True):
        if named is not None:
            found += named.names_in(of_span)
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
    own = np.unique(np.asarray(videos), return_inverse=True)[1]
    if not ((cosines >= bound) & (own[:, None] != own[None])).any():
        return list(range(len(vectors)))
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
    numbers = [snapshot.number_of[hit.video_id] for hit in compared]
    rows = _span_rows(snapshot, numbers, [(hit.start_s, hit.end_s) for hit in compared])
    vectors = l2_normalise(snapshot.retrieval[np.concatenate(rows)].astype(np.float32))
    means = np.empty((len(rows), vectors.shape[1]), np.float32)
    for own, places in _by_length(rows):  # (k',), (k', length)
        means[own] = vectors[places].mean(axis=1)
    leader = leaders(l2_normalise(means), [hit.video_id for hit in compared], bound=bound)
    if leader == list(range(len(compared))):
        return list(hits)
    copies: dict[int, list[NearCopy]] = {}
    for hit, first in zip(compared, leader, strict=True):
        if compared[first] is not hit:
            for path in (hit.path, *hit.also_at):
                copy = NearCopy(path=path, start_s=hit.start_s, end_s=hit.end_s, score=hit.score, kind=hit.kind)
                copies.setdefault(first, []).append(copy)
    kept = [
        dataclasses.replace(hit, near_copies=tuple(copies[number])) if number in copies else hit
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
    hubness: FrameHubness | None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Compute the scores and cosines (k, P) of k hits with the P parts of a query: of the better half of the frames."""
    flat = [one for of_hit in rows for one in of_hit]  # k * P
    every, place = np.unique(np.concatenate(flat), return_inverse=True)  # (m,), and where each row is in it
    vectors = frame_vectors(snapshot, encoder, every)
    cosines = asked.vectors @ vectors.T  # (P, m)
    scores = cosines.copy()
    if bank is not None:
        scores -= bank.hubness(vectors) if hubness is None else hubness(every)
    for part, named in enumerate(asked.named):
        if named is not None:
            scores[part] = named.scores[every]
    parts = len(asked.vectors)

    def of_spans(values: Float32) -> npt.NDArray[np.float64]:
        found = np.empty(len(flat))
        for numbers, places in _by_length(flat):  # (k',), (k', count)
            taken = values[(numbers % parts)[:, None], place[places]]
            found[numbers] = np.sort(taken, axis=1)[:, taken.shape[1] // 2 :].mean(axis=1)
        return found.reshape(len(rows), parts)

    return of_spans(scores), of_spans(cosines)


def _by_length(
    rows: Sequence[npt.NDArray[np.int64]],
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yield the numbers (k',) of the lists of one length, and the places (k', length) of their items in all joined."""
    lengths = np.array([len(one) for one in rows])
    starts = np.cumsum(lengths) - lengths
    for length in np.unique(lengths).tolist():
        numbers = np.flatnonzero(lengths == length)
        yield numbers, starts[numbers][:, None] + np.arange(length)


def _span_rows(
    snapshot: Snapshot, videos: Sequence[int], spans: Sequence[tuple[float, float]]
) -> list[npt.NDArray[np.int64]]:
    """List up to 8 evenly spaced segments of each of k spans (s); at least one.

    Args:
        videos: k numbers of their videos.
    """
    found = []
    for video, (start_s, end_s) in zip(videos, spans, strict=True):
        first, stop = int(snapshot.offsets[video]), int(snapshot.offsets[video + 1])
        low = first + int(snapshot.end_s[first:stop].searchsorted(start_s + _EPSILON_S, side="right"))
        high = first + int(snapshot.start_s[first:stop].searchsorted(end_s - _EPSILON_S, side="left"))
        low = min(low, stop - 1)
        found.append(_evenly(low, max(high, low + 1), _ROWS_OF_HIT))
    return found


def _evenly(first: int, stop: int, most: int) -> npt.NDArray[np.int64]:
    """List up to `most` evenly spaced whole numbers from `first` to below `stop`.

    >>> _evenly(10, 13, 8).tolist(), _evenly(10, 20, 4).tolist()
    ([10, 11, 12], [10, 13, 16, 19])
    """
    if stop - first <= most:
        return np.arange(first, stop)
    step = (stop - 1 - first) / (most - 1)
    return (first + step * np.arange(most)).round().astype(np.int64)
