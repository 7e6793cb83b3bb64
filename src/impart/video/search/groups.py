"""Groups of segments that a search ranks, and the hits made of them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from impart.blending.encoder import AugmentedEncoder
from impart.encoders.base import l2_normalise
from impart.errors import DecodeError, ImpartWarning
from impart.video.search.filters import allowed_videos
from impart.video.search.hits import Hit, Moment, Reason
from impart.video.search.query import SearchOptions
from impart.video.search.snapshot import Snapshot
from impart.video.search.spans.moments import MOST, FoundSpan, Parts
from impart.video.search.spans.scored import ScoredParts, VideoCurve

if TYPE_CHECKING:
    from impart.video.search.state.derived import Derived

__all__ = [
    "Groups",
    "RankedHits",
    "form_groups",
    "make_hit",
    "make_moment",
    "reasons_of",
    "span_hit",
    "with_exact_bounds",
    "with_moments",
]

_LEAST_WEIGHT = 0.0005  # of a reference pair that is named; the weight of the segment is 1
_EPS_S = 1e-6


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The G groups (videos, moments, scenes or frames) that a search ranks.

    Attributes:
        derived: what is kept of the snapshot.
        encoder: the augmented encoder in force; None ranks base vectors.
        starts: (G,) first segment of each group; the groups cover all n segments.
        allowed: (G,) groups that may be returned; None = all.
        parts: what spans are made of; None where hits are no spans.
    """

    snapshot: Snapshot
    derived: Derived
    options: SearchOptions
    encoder: AugmentedEncoder | None
    starts: npt.NDArray[np.int64]
    allowed: npt.NDArray[np.bool_] | None
    parts: Parts | None = None

    @property
    def stops(self) -> npt.NDArray[np.int64]:
        """(G,) first segment behind each group."""
        return np.append(self.starts, len(self.snapshot))[1:]


def form_groups(
    derived: Derived, options: SearchOptions, encoder: AugmentedEncoder | None, *, without: int | None = None
) -> Groups:
    """Form the groups of a search.

    Args:
        encoder: the augmented encoder in force; None ranks base vectors.
        without: a segment whose group is left out.
    """
    snapshot = derived.snapshot
    parts = None
    if len(snapshot) and (options.group == "moment" or (options.group == "video" and options.by != "frame")):
        parts = derived.parts
    starts = snapshot.scenes
    if options.group == "frame":
        starts = np.arange(len(snapshot))
    elif options.group == "video":
        starts = snapshot.offsets[:-1]
    elif parts is not None:
        starts = parts.bounds[:-1]
    allowed = None
    own = None if without is None else int(snapshot.video_of[without])
    videos = allowed_videos(snapshot, options, own=own)
    if videos is not None and len(starts):
        allowed = videos[snapshot.video_of[starts]]
    if without is not None:
        allowed = np.ones(len(starts), bool) if allowed is None else allowed
        allowed[int(np.searchsorted(starts, without, side="right")) - 1] = False
        if options.group == "moment" and parts is not None:
            allowed[parts.scene_of == snapshot.scene_of[without]] = False
    return Groups(
        snapshot=snapshot,
        derived=derived,
        options=options,
        encoder=encoder,
        starts=starts,
        allowed=allowed,
        parts=parts,
    )


@dataclass(frozen=True)
class RankedHits:
    """The hits of one query, best first.

    Attributes:
        complete: adds the further moments of the videos to the hits that are returned; None = they have none.
    """

    hits: list[Hit]
    complete: Callable[[list[Hit]], list[Hit]] | None = None


def make_hit(
    rank: int, score: float, segments: range, best: int, groups: Groups, moments: Sequence[FoundSpan] = ()
) -> Hit:
    """Make the hit of a run of segments.

    Args:
        best: segment with the highest score.
        moments: further spans of the same video.
    """
    snapshot, options = groups.snapshot, groups.options
    number = int(snapshot.video_of[best])
    start_s, end_s = _times(segments, snapshot)
    copies = snapshot.copies.get(number, ()) if options.fold_copies else ()
    return Hit(
        rank=rank,
        path=snapshot.paths[number],
        start_s=start_s,
        end_s=end_s,
        score=score,
        video_id=snapshot.video_ids[number],
        best_s=float(snapshot.start_s[best]),
        scene_start_s=float(snapshot.scene_start_s[snapshot.scene_of[best]]),
        scene_end_s=float(snapshot.scene_end_s[snapshot.scene_of[best]]),
        video_s=float(snapshot.durations_s[number]),
        kind=snapshot.kinds[number],
        recorded_at=None if np.isnan(snapshot.recorded_at[number]) else float(snapshot.recorded_at[number]),
        moments=tuple(make_moment(span, snapshot) for span in moments),
        also_at=tuple(snapshot.paths[copy] for copy in copies if copy != number),
        why=reasons_of(best, snapshot, groups.encoder) if options.why else (),
    )


def with_exact_bounds(hit: Hit, snapshot: Snapshot) -> Hit:
    """Refine the bounds of a hit that are cuts to the exact frame, by decoding the frames around them."""
    if hit.kind == "photo" or hit.video_id not in snapshot.video_ids:
        return hit
    video = snapshot.video_ids.index(hit.video_id)

    def refined(start_s: float, end_s: float) -> tuple[float, float]:
        first, behind = _cut(start_s, video, snapshot), _cut(end_s, video, snapshot)
        return (start_s if first is None else first), (end_s if behind is None else behind)

    start_s, end_s = refined(hit.start_s, hit.end_s)

    def all_refined(moments: tuple[Moment, ...]) -> tuple[Moment, ...]:
        bounds = [refined(moment.start_s, moment.end_s) for moment in moments]
        return tuple(
            dataclasses.replace(moment, start_s=first, end_s=behind)
            for moment, (first, behind) in zip(moments, bounds, strict=True)
        )

    return dataclasses.replace(
        hit, start_s=start_s, end_s=end_s, steps=all_refined(hit.steps), moments=all_refined(hit.moments)
    )


def make_moment(span: FoundSpan, snapshot: Snapshot) -> Moment:
    """Make the moment of a span, with its times."""
    start_s, end_s = _times(range(span.first, span.stop), snapshot)
    return Moment(start_s=start_s, end_s=end_s, score=span.score, best_s=float(snapshot.start_s[span.best]))


def span_hit(rank: int, score: float, span: FoundSpan, groups: Groups) -> Hit:
    """Make the hit of a span."""
    return make_hit(rank, score, range(span.first, span.stop), span.best, groups)


def with_moments(
    scored: ScoredParts, curves: Mapping[str, VideoCurve], snapshot: Snapshot, hits: list[Hit]
) -> list[Hit]:
    """Add the further moments of the videos to their hits."""
    scored.find([curves[hit.video_id] for hit in hits], most=MOST)
    return [
        dataclasses.replace(hit, moments=tuple(make_moment(span, snapshot) for span in curves[hit.video_id].spans[1:]))
        for hit in hits
    ]


def _times(segments: range, snapshot: Snapshot) -> tuple[float, float]:
    """Return start and end (s) of segments; at the bounds of a scene, those of the scene."""
    first, last = segments[0], segments[-1]
    start_s, end_s = float(snapshot.start_s[first]), float(snapshot.end_s[last])
    scene, behind = int(snapshot.scene_of[first]), int(snapshot.scene_of[last])
    if snapshot.scenes[scene] == first:
        start_s = float(snapshot.scene_start_s[scene])
    if last + 1 in (len(snapshot), *snapshot.scenes[behind + 1 : behind + 2].tolist()):
        end_s = float(snapshot.scene_end_s[behind])
    return start_s, end_s


def _cut(time_s: float, video: int, snapshot: Snapshot) -> float | None:
    """Find the exact time (s) of the cut at a bound; None where the bound is no cut."""
    first, stop = snapshot.offsets[video : video + 2].tolist()
    scenes = np.flatnonzero((snapshot.scenes > first) & (snapshot.scenes < stop))  # without the first one
    at = scenes[np.abs(snapshot.scene_start_s[scenes] - time_s) < _EPS_S]
    if not len(at):
        return None
    from impart.video.scenes.exact import exact_cut  # imports the decoder

    path: Path = snapshot.paths[video]
    decode, start_s = snapshot.manifest.decode, float(snapshot.start_s[snapshot.scenes[at[0]]])
    try:
        return exact_cut(path, max(0.0, start_s - 2 / decode.fps), start_s, stream=decode.stream)
    except (DecodeError, OSError) as error:
        warnings.warn(f"cannot refine the bounds in {path}: {error}", ImpartWarning, stacklevel=2)
        return None


def reasons_of(segment: int, snapshot: Snapshot, encoder: AugmentedEncoder | None) -> tuple[Reason, ...]:
    """List the reference pairs blended into a segment with at least `_LEAST_WEIGHT`, largest weight first.

    Args:
        encoder: the augmented encoder in force; None = no reference set is.
    """
    blend = snapshot.blend
    if encoder is None or blend is None:
        return ()
    references = encoder.references
    weights = np.maximum(np.abs(blend.img[segment]), np.abs(blend.txt[segment]))
    used = np.flatnonzero((blend.ids[segment] >= 0) & (weights >= _LEAST_WEIGHT))
    if not len(used):
        return ()
    ids = blend.ids[segment][used]
    retrieval = l2_normalise(np.asarray(snapshot.retrieval[segment], np.float32))  # (R,)
    similarities = references.retrieval_embeddings[ids] @ retrieval
    sources = references.table["source"]
    reasons = [
        Reason(
            text=references.texts[row],
            source=sources[int(row)].as_py() or "",
            weight_img=float(blend.img[segment, k]),
            weight_txt=float(blend.txt[segment, k]),
            similarity=float(similarity),
            row=int(row),
        )
        for row, k, similarity in zip(ids, used, similarities, strict=True)
    ]
    return tuple(sorted(reasons, key=lambda reason: -(abs(reason.weight_img) + abs(reason.weight_txt))))
