"""Rank groups or spans for query vectors, and make their hits.

Of a large index, scores are estimated from coarse codes first (`Derived.coarse`), and those of the candidates are
computed exactly (`impart.video.search.rank.candidates`). What a hit contains is always exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32
from impart.retrieval.coarse import Codes
from impart.retrieval.hubness import CaptionBank
from impart.video.search.groups import Groups, RankedHits, make_hit, span_hit, with_moments
from impart.video.search.rank.candidates import Exact, Scores
from impart.video.search.ranking import best_of, top_groups
from impart.video.search.scoring import FrameCosines, frame_scores, without_hubs
from impart.video.search.spans.moments import Parts
from impart.video.search.spans.scored import ScoredParts
from impart.video.search.state.pieces import products

__all__ = ["rank_vectors"]

_MANY = 4  # queries

_ExactOf = Callable[[int, Float32 | None, npt.NDArray[np.int64] | slice], Float32]
"""Returns the exact scores (m,) of a query (its number, and its hubness) with some items."""


def rank_vectors(
    vectors: Float32,
    groups: Groups,
    *,
    by_text: npt.NDArray[np.bool_] | None = None,
    hubness: Float32 | None = None,
    bank: CaptionBank | None = None,
) -> list[RankedHits]:
    """Find the hits of T query vectors (T, D).

    Args:
        by_text: (T,) queries without an image: only these are corrected for hubs.
        hubness: what is subtracted from their scores, see `Derived.hubness`; None = nothing.
        bank: captions that come with the model.
    """
    options = groups.options
    if not len(groups.snapshot):
        return [RankedHits([]) for _ in vectors]
    if groups.parts is not None and (options.spans or options.ranked_by == "moment"):
        return _rank_spans(vectors, groups, groups.parts, by_text=by_text, hubness=hubness, bank=bank)
    if options.ranked_by != "mean" and (codes := groups.derived.coarse(groups, bank, kind="frame")) is not None:
        return _rank_by_frames(vectors, groups, codes, by_text=by_text, hubness=hubness)
    return _rank_all(vectors, groups, by_text=by_text, hubness=hubness)


def _rank_all(
    vectors: Float32, groups: Groups, *, by_text: npt.NDArray[np.bool_] | None, hubness: Float32 | None
) -> list[RankedHits]:
    """Rank by the exact scores of all groups."""
    snapshot, options, starts, stops = groups.snapshot, groups.options, groups.starts, groups.stops
    frames: Float32 | None = None
    if options.ranked_by == "mean":
        scores = without_hubs(products(vectors, groups.derived.group_means(groups)), by_text, hubness)  # (T, G)
    else:
        frames = without_hubs(frame_scores(vectors, snapshot, groups.encoder), by_text, hubness)  # (T, n)
        scores = frames if options.group == "frame" else np.maximum.reduceat(frames, starts, axis=1)
    chosen = [top_groups(row, top=options.top, allowed=groups.allowed) for row in scores]
    at = starts  # where a group's frames begin in `frames`
    if frames is None:  # ranked by means: only the frames of the chosen groups are scored
        union = np.unique(np.concatenate(chosen))
        rows = np.concatenate([np.zeros(0, np.int64), *(np.arange(starts[g], stops[g]) for g in union)])
        frames = frame_scores(vectors, snapshot, groups.encoder, rows=rows)  # (T, m)
        at = np.zeros(len(starts), np.int64)
        at[union] = np.cumsum(stops[union] - starts[union]) - (stops[union] - starts[union])
    answers = []
    for of_groups, of_frames, best_groups in zip(scores, frames, chosen, strict=True):
        hits = []
        for rank, group in enumerate(best_groups, 1):
            first, stop = int(starts[group]), int(stops[group])
            best = first + best_of(of_frames[at[group] : at[group] + stop - first])
            score = float(np.round(of_groups[group], 6))
            segments = range(first, stop) if options.group == "scene" else range(best, best + 1)
            hits.append(make_hit(rank, score, segments, best, groups))
        answers.append(RankedHits(hits))
    return answers


def _rank_by_frames(
    vectors: Float32, groups: Groups, codes: Codes, *, by_text: npt.NDArray[np.bool_] | None, hubness: Float32 | None
) -> list[RankedHits]:
    """Rank groups by their best frame: frames are candidates by their codes."""
    options, snapshot = groups.options, groups.snapshot
    cosines = FrameCosines(vectors, snapshot, groups.encoder)
    offsets = None if options.group == "frame" else np.append(groups.starts, len(snapshot))
    everything = np.arange(len(snapshot))

    def exact(number: int, own: Float32 | None, items: npt.NDArray[np.int64] | slice) -> Float32:
        rows = everything[items]
        if len(rows) == len(everything):
            found = frame_scores(vectors[number][None], snapshot, groups.encoder)[0]
        else:
            found = cosines.of(number, rows)
        scores: Float32 = found if own is None else found - own[items]
        return scores

    answers = []
    for _, scores in _estimated(vectors, codes, exact, by_text=by_text, hubness=hubness):
        hits = []
        chosen, values = scores.best(options.top, offsets=offsets, allowed=groups.allowed)
        for rank, (group, value) in enumerate(zip(chosen.tolist(), values.tolist(), strict=True), 1):
            first, stop = (group, group + 1) if offsets is None else offsets[group : group + 2].tolist()
            best, _ = scores.best_item(slice(first, stop))
            segments = range(first, stop) if options.group == "scene" else range(best, best + 1)
            hits.append(make_hit(rank, float(np.round(np.float32(value), 6)), segments, best, groups))
        answers.append(RankedHits(hits))
    return answers


def _rank_spans(
    vectors: Float32,
    groups: Groups,
    parts: Parts,
    *,
    by_text: npt.NDArray[np.bool_] | None,
    hubness: Float32 | None,
    bank: CaptionBank | None,
) -> list[RankedHits]:
    """Find the hits of T query vectors as spans: one per video with its further moments, or all spans alike."""
    snapshot, options, derived = groups.snapshot, groups.options, groups.derived
    means, units = derived.group_means(groups, kind="part"), derived.units(groups)
    of_videos: Float32 | None = None
    if options.ranked_by == "mean":
        of_videos = without_hubs(products(vectors, derived.group_means(groups)), by_text, hubness)  # (T, V)
        if hubness is not None and bank is not None:
            hubness = derived.hubness(bank, groups, kind="unit")
    cosines = FrameCosines(vectors, snapshot, groups.encoder)
    codes = derived.coarse(groups, bank, kind="unit")
    with_parts: Float32 | None = None
    scored_units: Iterator[tuple[Float32 | None, Scores]]
    if codes is not None:

        def exact(number: int, own: Float32 | None, items: npt.NDArray[np.int64] | slice) -> Float32:
            found: Float32 = units.means[items] @ vectors[number]
            return found if own is None else found - own[items]

        scored_units = _estimated(vectors, codes, exact, by_text=by_text, hubness=hubness)
    else:
        of_units = without_hubs(products(vectors, units.means), by_text, hubness)  # (T, U)
        texts = np.zeros(len(vectors), bool) if by_text is None else by_text
        scored_units = (
            (hubness if is_text else None, Scores(row)) for row, is_text in zip(of_units, texts, strict=True)
        )
        # One product with all parts costs less than those of each query with the parts of its best videos.
        with_parts = products(vectors, means) if len(vectors) >= _MANY else None  # (T, P)
    answers = []
    for number, (vector, (own_hubness, scores)) in enumerate(zip(vectors, scored_units, strict=True)):
        scored = ScoredParts(
            parts=parts,
            means=means,
            query=vector,
            scores=scores,
            units=units,
            hubness=own_hubness,
            frames=partial(cosines.of, number),
            cosines=None if with_parts is None else with_parts[number],
        )
        if options.group == "moment":
            spans = scored.best(options.top, allowed=groups.allowed)
            answers.append(RankedHits([span_hit(rank, one.score, one, groups) for rank, one in enumerate(spans, 1)]))
            continue
        if of_videos is None:
            chosen, highest = scores.best(options.top, offsets=units.offsets, allowed=groups.allowed)
        else:
            chosen = top_groups(of_videos[number], top=options.top, allowed=groups.allowed)
            highest = of_videos[number][chosen]
        values = np.round(highest.astype(np.float64), 6).tolist()  # as printed
        curves = [scored.curve(video) for video in chosen.tolist()]
        scored.find(curves, most=1)
        ranked = enumerate(zip(values, curves, strict=True), 1)
        hits = [span_hit(rank, value, curve.spans[0], groups) for rank, (value, curve) in ranked]
        by_video = {hit.video_id: curve for hit, curve in zip(hits, curves, strict=True)}
        complete = partial(with_moments, scored, by_video, snapshot)
        answers.append(RankedHits(hits, complete if options.spans else None))
    return answers


def _estimated(
    vectors: Float32,
    codes: Codes,
    exact: _ExactOf,
    *,
    by_text: npt.NDArray[np.bool_] | None,
    hubness: Float32 | None,
) -> Iterator[tuple[Float32 | None, Scores]]:
    """Yield for each of T queries the hubness that is subtracted (None = nothing is), and its scores."""
    estimates, errors = codes.scores(vectors), codes.basis.errors(vectors)  # (T, n), (T,)
    for number in range(len(vectors)):
        own = hubness if by_text is not None and by_text[number] else None
        values = estimates[number]
        if own is not None:
            values -= own
        known: Exact = partial(exact, number, own)
        yield own, Scores(values, error=float(errors[number]), exact=known)
