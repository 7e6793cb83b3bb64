"""Make hits of ranked segments: their times, files, and the reference pairs that were blended in."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impart.blending.encoder import AugmentedEncoder
from impart.encoders.base import Float32, l2_normalise
from impart.errors import DecodeError, ImpartWarning
from impart.video.index.store import SEGMENTS, Store, TableGoneError
from impart.video.search.hits import Hit, Moment, Reason
from impart.video.search.moments import FoundSpan, Parts
from impart.video.search.query import SearchOptions
from impart.video.search.snapshot import Snapshot

__all__ = ["Groups", "HitMaker"]

_LEAST_WEIGHT = 0.0005  # of a reference pair that is named; the weight of the segment is 1


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The G groups (videos, moments, scenes or frames) that a search ranks.

    Attributes:
        encoder: the augmented encoder in force; None ranks base vectors.
        starts: (G,) first segment of each group; the groups cover all n segments.
        allowed: (G,) groups that may be returned; None = all.
        parts: what spans are made of; None where hits are no spans.
    """

    snapshot: Snapshot
    options: SearchOptions
    encoder: AugmentedEncoder | None
    starts: npt.NDArray[np.int64]
    allowed: npt.NDArray[np.bool_] | None
    parts: Parts | None = None

    @property
    def stops(self) -> npt.NDArray[np.int64]:
        """(G,) first segment behind each group."""
        return np.append(self.starts, len(self.snapshot))[1:]


class HitMaker:
    """Makes the hits of one index. May be shared by threads.

    Args:
        store: of the index.
        lock: held while the store is read.
    """

    def __init__(self, store: Store, lock: threading.Lock) -> None:
        self._store = store
        self._lock = lock

    def hit(
        self, rank: int, score: float, segments: range, best: int, groups: Groups, moments: Sequence[FoundSpan] = ()
    ) -> Hit:
        """Make a hit.

        Args:
            segments: that the hit covers; best: the one that is shown.
            moments: further spans of the same video.
        """
        snapshot, options = groups.snapshot, groups.options
        number = int(snapshot.video_of[best])
        start_s, end_s = self._times(segments, snapshot, exact=options.exact)
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
            moments=tuple(self._moment(span, groups) for span in moments),
            also_at=tuple(snapshot.paths[copy] for copy in copies if copy != number),
            why=self._reasons(best, groups) if options.why else (),
        )

    def _moment(self, span: FoundSpan, groups: Groups) -> Moment:
        snapshot = groups.snapshot
        start_s, end_s = self._times(range(span.first, span.stop), snapshot, exact=groups.options.exact)
        return Moment(start_s=start_s, end_s=end_s, score=span.score, best_s=float(snapshot.start_s[span.best]))

    def _times(self, segments: range, snapshot: Snapshot, *, exact: bool) -> tuple[float, float]:
        """Return start and end (s) of segments; at the bounds of a scene, those of the scene.

        Args:
            exact: decode around bounds at cuts, for the time of the frame.
        """
        first, last = segments[0], segments[-1]
        start_s, end_s = float(snapshot.start_s[first]), float(snapshot.end_s[last])
        scene, behind = int(snapshot.scene_of[first]), int(snapshot.scene_of[last])
        if snapshot.scenes[scene] == first:
            start_s = float(snapshot.scene_start_s[scene])
        if last + 1 in (len(snapshot), *snapshot.scenes[behind + 1 : behind + 2].tolist()):
            end_s = float(snapshot.scene_end_s[behind])
        if exact:
            start_s = self._cut(first, snapshot) or start_s
            end_s = self._cut(last + 1, snapshot) or end_s
        return start_s, end_s

    def _cut(self, segment: int, snapshot: Snapshot) -> float | None:
        """Find the exact time (s) of the cut before the first segment of a scene; None where there is none."""
        if segment in snapshot.offsets or snapshot.scenes[snapshot.scene_of[segment]] != segment:
            return None
        from impart.video.scenes.exact import exact_cut  # imports the decoder

        path = snapshot.paths[int(snapshot.video_of[segment])]
        decode, start_s = snapshot.manifest.decode, float(snapshot.start_s[segment])
        try:
            return exact_cut(path, max(0.0, start_s - 2 / decode.fps), start_s, stream=decode.stream)
        except (DecodeError, OSError) as error:
            warnings.warn(f"cannot refine the bounds in {path}: {error}", ImpartWarning, stacklevel=2)
            return None

    def _reasons(self, segment: int, groups: Groups) -> tuple[Reason, ...]:
        """List the reference pairs blended into a segment with at least `_LEAST_WEIGHT`, largest weight first."""
        snapshot, encoder, blend = groups.snapshot, groups.encoder, groups.snapshot.blend
        if encoder is None or blend is None:
            return ()
        references = encoder.references
        weights = np.maximum(np.abs(blend.img[segment]), np.abs(blend.txt[segment]))
        used = np.flatnonzero((blend.ids[segment] >= 0) & (weights >= _LEAST_WEIGHT))
        if not len(used):
            return ()
        ids = blend.ids[segment][used]
        retrieval = self._retrieval_embedding(segment, snapshot)
        similarities = np.full(len(ids), np.nan)
        if retrieval is not None:
            similarities = references.retrieval_embeddings[ids] @ retrieval
        sources = references.table["source"]
        reasons = [
            Reason(
                text=references.texts[row],
                source=sources[int(row)].as_py() or "",
                weight_img=float(blend.img[segment, k]),
                weight_txt=float(blend.txt[segment, k]),
                similarity=float(similarity),
            )
            for row, k, similarity in zip(ids, used, similarities, strict=True)
        ]
        return tuple(sorted(reasons, key=lambda reason: -(abs(reason.weight_img) + abs(reason.weight_txt))))

    def _retrieval_embedding(self, segment: int, snapshot: Snapshot) -> Float32 | None:
        """Read the unit retrieval embedding (R,) of a segment; None where its video is being replaced."""
        video = int(snapshot.video_of[segment])
        number = segment - int(snapshot.offsets[video])
        where = f"video_id = '{snapshot.video_ids[video]}' AND number = {number}"
        with self._lock:  # of two revisions, an orphan and the committed one, either will do for a note
            try:
                rows = self._store.read(SEGMENTS, columns=["retrieval"], where=where).to_pylist()
            except TableGoneError:
                rows = []
        return l2_normalise(np.array(rows[-1]["retrieval"], np.float32)) if rows else None
