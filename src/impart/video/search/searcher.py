"""The searching side of an index: keeps it in memory, notices commits, and turns query vectors into hits."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from impart.blending.encoder import AugmentedEncoder
from impart.config import SearchSettings
from impart.encoders.base import Encoder, Float32, l2_normalise
from impart.errors import QueryError
from impart.retrieval.hubness import CaptionBank, bundled_bank
from impart.video.index.manifest import IndexManifest
from impart.video.index.store import SEGMENTS, Store, TableGoneError
from impart.video.search.ranking import (
    By,
    Group,
    Hit,
    Query,
    Reason,
    best_of,
    frame_hubness,
    frame_scores,
    group_means,
    path_mask,
    query_vectors,
    timecode,
    top_groups,
)
from impart.video.search.snapshot import Snapshot, load_snapshot

__all__ = ["Searcher", "SearchOptions"]

_AT_ONCE = 64  # queries scored together


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How a search ranks and what it returns.

    Attributes:
        top, group, by: see `SearchSettings`.
        augment: whether frames are seen through the reference set.
        path_glob: only videos whose name (or path, where the pattern has a slash) matches.
        why: whether hits carry reasons.
        together: whether the queries that are texts correct each other for hubs (`CaptionBank.with_queries`): for lists
            whose queries have videos of their own. Else each is answered as if it were alone.
    """

    top: int
    group: Group
    by: By
    augment: bool = True
    path_glob: str | None = None
    why: bool = False
    together: bool = False

    def __post_init__(self) -> None:
        if self.top < 1:
            raise QueryError(f"top is {self.top}: ask for at least one hit")
        if self.group not in ("video", "scene", "frame"):
            raise QueryError(f"cannot group by {self.group!r}: use video, scene or frame")
        if self.by not in ("mean", "moment"):
            raise QueryError(f"cannot rank by {self.by!r}: use mean or moment")

    @property
    def by_means(self) -> bool:
        """Whether groups are ranked by the mean of their frames; else by their best frame."""
        return self.by == "mean" and self.group != "frame"


class Searcher:
    """Searches one index. May be shared by threads.

    Args:
        store: the index, which exists.
        encoder_of: the encoder to an index's manifest, loaded when it is first needed.
        settings: of the search.
    """

    def __init__(
        self, store: Store, *, encoder_of: Callable[[IndexManifest], Encoder], settings: SearchSettings
    ) -> None:
        self._store = store
        self._encoder_of = encoder_of
        self._settings = settings
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._means: dict[tuple[str, Group, bool], Float32] = {}
        self._hubness: dict[tuple[str, str, bool], Float32] = {}
        self._bank: CaptionBank | None = None

    def search(self, queries: Sequence[Query], options: SearchOptions) -> list[list[Hit]]:
        """Hits for each query."""
        # Reading the index and loading the model take different cores.
        with ThreadPoolExecutor(1, thread_name_prefix="impart-index") as pool:
            reading = pool.submit(self.current)
            manifest = IndexManifest.load(self._store.folder)
            encoder = self._encoder_of(manifest)
            if isinstance(encoder, AugmentedEncoder) and not options.augment:
                encoder = encoder.base
            vectors = query_vectors(queries, encoder, self._settings, fit=manifest.decode.fit)
            if self._settings.hub_correction and self._bank is None:
                self._bank = bundled_bank(encoder.base if isinstance(encoder, AugmentedEncoder) else encoder)
            snapshot = reading.result()
        by_text = np.array([query.image is None for query in queries])
        bank = self._bank
        if options.together:
            bank = (bank or CaptionBank(vectors[:0])).with_queries(vectors[by_text])
        starts = _starts(snapshot, options.group)
        allowed = self._allowed(snapshot, starts, options)
        hubness = self._hubness_of(bank, snapshot, starts, options) if bank is not None and by_text.any() else None
        hits = []
        for first in range(0, len(vectors), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            hits += self._rank(
                vectors[part], snapshot, starts, options, allowed=allowed, by_text=by_text[part], hubness=hubness
            )
        return hits

    def similar(self, path: str | os.PathLike[str], at_s: float, options: SearchOptions) -> list[Hit]:
        """Hits for a moment of an indexed video, without the video, scene or frame that holds it."""
        snapshot = self.current()
        moment = self._locate(snapshot, path, at_s)
        one = slice(moment, moment + 1)
        vector = l2_normalise(snapshot.vectors[one])  # (1, D)
        encoder, blend = self._augmented(snapshot, options), snapshot.blend
        if encoder is not None and blend is not None:
            vector = encoder.apply(snapshot.vectors[one].astype(np.float32), blend[one])
        starts = _starts(snapshot, options.group)
        allowed = self._allowed(snapshot, starts, options)
        if allowed is None:
            allowed = np.ones(len(starts), bool)
        allowed[int(np.searchsorted(starts, moment, side="right")) - 1] = False
        return self._rank(vector, snapshot, starts, options, allowed=allowed)[0]

    def current(self) -> Snapshot:
        """The index as it is now; read again only where something was committed."""
        with self._lock:
            if self._snapshot is None or self._snapshot.state != self._store.state():
                self._snapshot = load_snapshot(self._store)
                self._means.clear()
                self._hubness.clear()
            return self._snapshot

    def video_means(self) -> Float32:
        """(V, D) unit means of the videos' vectors, seen through the reference set in force, for `save_cache`."""
        snapshot = self.current()
        options = SearchOptions(top=1, group="video", by="mean")
        return self._group_means(snapshot, snapshot.offsets[:-1], options, self._augmented(snapshot, options))

    def _allowed(
        self, snapshot: Snapshot, starts: npt.NDArray[np.int64], options: SearchOptions
    ) -> npt.NDArray[np.bool_] | None:
        """(G,) groups whose video's path matches, or None for all."""
        if options.path_glob is None or not len(starts):
            return None
        return path_mask(snapshot, options.path_glob)[snapshot.video_of[starts]]

    def _rank(
        self,
        vectors: Float32,
        snapshot: Snapshot,
        starts: npt.NDArray[np.int64],
        options: SearchOptions,
        *,
        allowed: npt.NDArray[np.bool_] | None,
        by_text: npt.NDArray[np.bool_] | None = None,
        hubness: Float32 | None = None,
    ) -> list[list[Hit]]:
        """Hits for each of T query vectors (T, D).

        Args:
            starts: (G,) first segment of each group; they cover all segments.
            allowed: (G,) groups that may be found, or None for all.
            by_text: (T,) queries that are texts alone: hubs are corrected for those.
            hubness: what is taken off their scores, see `_hubness_of`; None = nothing.
        """
        if not len(snapshot):
            return [[] for _ in vectors]
        encoder = self._augmented(snapshot, options)
        frames: Float32 | None = None
        if options.by_means:
            scores = vectors @ self._group_means(snapshot, starts, options, encoder).T  # (T, G)
            scores = _without_hubs(scores, by_text, hubness)
        else:
            frames = frame_scores(vectors, snapshot, encoder)  # (T, n)
            frames = _without_hubs(frames, by_text, hubness)
            scores = frames if options.group == "frame" else np.maximum.reduceat(frames, starts, axis=1)
        chosen = [top_groups(row, top=options.top, allowed=allowed) for row in scores]
        stops = np.append(starts, len(snapshot))[1:]
        at = starts  # where a group's frames begin in `frames`
        if frames is None:  # ranked by means: only the frames of the groups that were chosen are looked at
            union = np.unique(np.concatenate(chosen))
            rows = np.concatenate([np.zeros(0, np.int64), *(np.arange(starts[g], stops[g]) for g in union)])
            frames = frame_scores(vectors, snapshot, encoder, rows=rows)  # (T, m)
            at = np.zeros(len(starts), np.int64)
            at[union] = np.cumsum(stops[union] - starts[union]) - (stops[union] - starts[union])
        answers = []
        for of_groups, of_frames, groups in zip(scores, frames, chosen, strict=True):
            hits = []
            for rank, group in enumerate(groups, 1):
                first, stop = int(starts[group]), int(stops[group])
                best = first + best_of(of_frames[at[group] : at[group] + stop - first])
                score = float(np.round(of_groups[group], 6))
                hits.append(self._hit(rank, score, range(first, stop), best, snapshot, options))
            answers.append(hits)
        return answers

    def _hit(
        self, rank: int, score: float, segments: range, best: int, snapshot: Snapshot, options: SearchOptions
    ) -> Hit:
        number = int(np.searchsorted(snapshot.offsets, best, side="right")) - 1
        scene = options.group == "scene"
        return Hit(
            rank=rank,
            path=snapshot.paths[number],
            start_s=float(snapshot.start_s[segments[0] if scene else best]),
            end_s=float(snapshot.end_s[segments[-1] if scene else best]),
            score=score,
            video_id=snapshot.video_ids[number],
            best_s=float(snapshot.start_s[best]),
            why=self._reasons(best, snapshot) if options.why and options.augment else (),
        )

    def _reasons(self, segment: int, snapshot: Snapshot) -> tuple[Reason, ...]:
        """The reference pairs blended into a segment, strongest first."""
        encoder, blend = self._encoder_of(snapshot.manifest), snapshot.blend
        if not isinstance(encoder, AugmentedEncoder) or blend is None:
            return ()
        references = encoder.references
        used = np.flatnonzero((blend.ids[segment] >= 0) & ((blend.img[segment] != 0) | (blend.txt[segment] != 0)))
        if not len(used):
            return ()
        video = int(snapshot.video_of[segment])
        number = segment - int(snapshot.offsets[video])
        where = f"video_id = '{snapshot.video_ids[video]}' AND number = {number}"
        with self._lock:  # of two revisions, a writer's leftover and the present one, either will do for a note
            try:
                rows = self._store.read(SEGMENTS, columns=["retrieval"], where=where).to_pylist()
            except TableGoneError:  # the video is just being replaced
                rows = []
        retrieval = l2_normalise(np.array(rows[-1]["retrieval"], np.float32)) if rows else None
        ids = blend.ids[segment][used]
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

    def _augmented(self, snapshot: Snapshot, options: SearchOptions) -> AugmentedEncoder | None:
        if not options.augment or snapshot.blend is None:
            return None
        encoder = self._encoder_of(snapshot.manifest)
        return encoder if isinstance(encoder, AugmentedEncoder) else None

    def _group_means(
        self,
        snapshot: Snapshot,
        starts: npt.NDArray[np.int64],
        options: SearchOptions,
        encoder: AugmentedEncoder | None,
    ) -> Float32:
        key = (snapshot.state, options.group, encoder is not None)
        means = self._means.get(key)
        if means is None and snapshot.video_means is not None and key[1:] == ("video", snapshot.blend is not None):
            means = snapshot.video_means
        if means is None:
            means = group_means(snapshot, starts, references=encoder.references if encoder else None)
            self._means[key] = means
        return means

    def _hubness_of(
        self, bank: CaptionBank, snapshot: Snapshot, starts: npt.NDArray[np.int64], options: SearchOptions
    ) -> Float32:
        """What is taken off the scores of texts: (G,) of each group, or (n,) of frames where these are ranked."""
        encoder = self._augmented(snapshot, options)
        key = (snapshot.state, options.group if options.by_means else "", encoder is not None)
        known = self._hubness.get(key) if bank is self._bank else None
        if known is not None:
            return known
        if options.by_means:
            hubness = bank.hubness(self._group_means(snapshot, starts, options, encoder))
        else:
            hubness = frame_hubness(bank, snapshot, encoder)
        if bank is self._bank:
            self._hubness[key] = hubness
        return hubness

    def _locate(self, snapshot: Snapshot, path: str | os.PathLike[str], at_s: float) -> int:
        """The segment of a video at a time. A bare file name will do where only one video has it."""
        given = Path(os.path.abspath(os.path.expanduser(path)))  # noqa: PTH100, PTH111 - as `scan` does
        known = {video: i for i, video in enumerate(snapshot.paths)}
        number = known.get(Path(os.path.realpath(given.parent)) / given.name, known.get(Path(path)))
        if number is None and Path(path).name == str(path):
            namesakes = [i for i, known_path in enumerate(snapshot.paths) if known_path.name == str(path)]
            if len(namesakes) > 1:
                raise QueryError(f"{len(namesakes)} indexed videos are called {path}: give the path of one of them")
            number = namesakes[0] if namesakes else None
        if number is None:
            raise QueryError(f"{given} is not in the index {self._store.folder}: index it first, or check its path")
        first, stop = int(snapshot.offsets[number]), int(snapshot.offsets[number + 1])
        end_s = float(snapshot.end_s[stop - 1])
        if not 0 <= at_s <= end_s:
            raise QueryError(f"{given} has no moment {at_s:g} s: it runs to {timecode(end_s)}")
        return first + max(0, int(np.searchsorted(snapshot.start_s[first:stop], at_s, side="right")) - 1)


def _without_hubs(scores: Float32, by_text: npt.NDArray[np.bool_] | None, hubness: Float32 | None) -> Float32:
    """Scores (T, G), those of texts less the hubness (G,)."""
    if by_text is None or hubness is None:
        return scores
    return scores - by_text[:, None].astype(np.float32) * hubness[None]


def _starts(snapshot: Snapshot, group: Group) -> npt.NDArray[np.int64]:
    """(G,) first segment of each group."""
    if group == "frame":
        return np.arange(len(snapshot))
    return snapshot.offsets[:-1] if group == "video" else snapshot.scenes
