"""Searcher: keeps the snapshot of an index in memory, reads it again after commits, and turns queries into hits."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from impart.blending.encoder import AugmentedEncoder
from impart.config import SearchSettings
from impart.encoders.base import Encoder, Float32, l2_normalise
from impart.errors import EncoderError, ImpartWarning, QueryError, ReferenceSetError, VideoIndexError
from impart.retrieval.hubness import CaptionBank, bundled_bank
from impart.video.index.manifest import IndexManifest
from impart.video.index.scan import absolute
from impart.video.index.store import SEGMENTS, Store, TableGoneError
from impart.video.search.filters import allowed_videos
from impart.video.search.hits import Hit, Reason, timecode
from impart.video.search.query import Query, SearchOptions, query_vectors
from impart.video.search.ranking import best_of, group_means, top_groups
from impart.video.search.scoring import frame_hubness, frame_scores, without_hubs
from impart.video.search.snapshot import Snapshot, load_snapshot

__all__ = ["Searcher"]

_AT_ONCE = 64  # queries scored together
_LEAST_WEIGHT = 0.0005  # of a reference pair that is named; the weight of the segment is 1
_TRIES = 5  # of a search, while other sets are put in force
_Found = TypeVar("_Found")


@dataclass(frozen=True, kw_only=True)
class _Groups:
    """The G groups (videos, scenes or frames) that a search ranks.

    Attributes:
        encoder: the augmented encoder in force; None ranks base vectors.
        starts: (G,) first segment of each group; the groups cover all n segments.
        allowed: (G,) groups that may be returned; None = all.
    """

    snapshot: Snapshot
    options: SearchOptions
    encoder: AugmentedEncoder | None
    starts: npt.NDArray[np.int64]
    allowed: npt.NDArray[np.bool_] | None

    @property
    def stops(self) -> npt.NDArray[np.int64]:
        """(G,) first segment behind each group."""
        return np.append(self.starts, len(self.snapshot))[1:]


class Searcher:
    """Searches one index. May be shared by threads.

    Args:
        store: the index, which exists.
        encoder_of: returns the encoder of a manifest, loaded at the first call.
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
        self._means: dict[tuple[str, str, bool], Float32] = {}
        self._hubness: dict[tuple[str, str, bool], Float32] = {}
        self._bank: CaptionBank | None = None

    def search(self, queries: Sequence[Query], options: SearchOptions) -> list[list[Hit]]:
        """Find the hits of each query."""
        return self._as_of_one_set(lambda: self._search(queries, options))

    def _search(self, queries: Sequence[Query], options: SearchOptions) -> list[list[Hit]]:
        # Reading the index and loading the model take different cores.
        with ThreadPoolExecutor(1, thread_name_prefix="impart-index") as pool:
            reading = pool.submit(self.current)
            manifest = IndexManifest.load(self._store.folder)
            encoder = self._encoder_of(manifest)
            base = encoder.base if isinstance(encoder, AugmentedEncoder) else encoder
            vectors = query_vectors(
                queries, encoder if options.augment else base, self._settings, fit=manifest.decode.fit
            )
            if self._settings.hub_correction and self._bank is None:
                self._bank = bundled_bank(base)
            snapshot = reading.result()
        by_text = np.array([query.image is None for query in queries])
        bank = self._bank
        if options.together:
            bank = (bank or CaptionBank(vectors[:0])).with_queries(vectors[by_text])
        groups = self._groups(snapshot, options)
        hubness = self._hubness_of(bank, groups) if bank is not None and by_text.any() else None
        hits = []
        for first in range(0, len(vectors), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            hits += self._rank(vectors[part], groups, by_text=by_text[part], hubness=hubness)
        return hits

    def similar(self, path: str | os.PathLike[str], at_s: float, options: SearchOptions) -> list[Hit]:
        """Find the hits of a moment of an indexed video, without the group that contains it.

        Raises:
            QueryError: the video is not in the index, or is shorter.
        """
        return self._as_of_one_set(lambda: self._similar(path, at_s, options))

    def _similar(self, path: str | os.PathLike[str], at_s: float, options: SearchOptions) -> list[Hit]:
        snapshot = self.current()
        moment = self._locate(snapshot, path, at_s)
        one = slice(moment, moment + 1)
        vector = l2_normalise(snapshot.vectors[one])  # (1, D)
        groups = self._groups(snapshot, options, without=moment)
        if groups.encoder is not None and snapshot.blend is not None:
            vector = groups.encoder.apply(snapshot.vectors[one].astype(np.float32), snapshot.blend[one])
        return self._rank(vector, groups)[0]

    def manifest(self) -> IndexManifest:
        """Read the manifest of the index.

        Raises:
            VideoIndexError: the index was not created yet.
        """
        return IndexManifest.load(self._store.folder)

    def ask(self, use: Callable[[Snapshot], _Found]) -> _Found:
        """Call `use` with the snapshot, again where the index was changed meanwhile.

        Raises:
            ImpartError: it failed although nothing was changed, or each time.
        """
        return self._as_of_one_set(lambda: use(self.current()))

    def _as_of_one_set(self, find: Callable[[], _Found]) -> _Found:
        """Call `find`, again where the index was changed meanwhile: the set that it was opening is deleted then.

        Raises:
            ImpartError: it failed although nothing was changed, or each time.
        """
        for attempt in range(_TRIES):
            state = self._store.state()
            try:
                found = find()
                break
            except (EncoderError, ReferenceSetError, VideoIndexError):
                if attempt == _TRIES - 1 or self._store.state() == state:
                    raise
            except TableGoneError as error:  # a column that is read when it is first used
                if attempt == _TRIES - 1:
                    raise VideoIndexError(f"{error}; try again") from error
        for text in self.current().warnings():
            warnings.warn(text, ImpartWarning, stacklevel=4)
        return found

    def current(self) -> Snapshot:
        """Return the snapshot of the index as it is now; it is read again only after a commit."""
        with self._lock:
            if self._snapshot is None or self._snapshot.state != self._store.state():
                self._snapshot = load_snapshot(self._store)
                self._means.clear()
                self._hubness.clear()
            return self._snapshot

    def video_means(self) -> Float32:
        """Compute the unit means (V, D) of the videos' augmented vectors, for `save_cache`."""
        return self._group_means(self._groups(self.current(), SearchOptions(top=1, group="video", by="mean")))

    def _groups(self, snapshot: Snapshot, options: SearchOptions, *, without: int | None = None) -> _Groups:
        """Form the groups of a search.

        Args:
            without: a segment whose group is left out.
        """
        encoder = None
        if options.augment and snapshot.blend is not None:
            in_force = self._encoder_of(snapshot.manifest)
            encoder = in_force if isinstance(in_force, AugmentedEncoder) else None
        if options.group == "frame":
            starts = np.arange(len(snapshot))
        else:
            starts = snapshot.offsets[:-1] if options.group == "video" else snapshot.scenes
        allowed = None
        own = None if without is None else int(snapshot.video_of[without])
        videos = allowed_videos(snapshot, options, own=own)
        if videos is not None and len(starts):
            allowed = videos[snapshot.video_of[starts]]
        if without is not None:
            allowed = np.ones(len(starts), bool) if allowed is None else allowed
            allowed[int(np.searchsorted(starts, without, side="right")) - 1] = False
        return _Groups(snapshot=snapshot, options=options, encoder=encoder, starts=starts, allowed=allowed)

    def _rank(
        self,
        vectors: Float32,
        groups: _Groups,
        *,
        by_text: npt.NDArray[np.bool_] | None = None,
        hubness: Float32 | None = None,
    ) -> list[list[Hit]]:
        """Find the hits of T query vectors (T, D).

        Args:
            by_text: (T,) queries without an image: only these are corrected for hubs.
            hubness: what is subtracted from their scores, see `_hubness_of`; None = nothing.
        """
        snapshot, options, starts, stops = groups.snapshot, groups.options, groups.starts, groups.stops
        if not len(snapshot):
            return [[] for _ in vectors]
        frames: Float32 | None = None
        if options.by_means:
            scores = without_hubs(vectors @ self._group_means(groups).T, by_text, hubness)  # (T, G)
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
                hits.append(self._hit(rank, score, range(first, stop), best, groups))
            answers.append(hits)
        return answers

    def _hit(self, rank: int, score: float, segments: range, best: int, groups: _Groups) -> Hit:
        snapshot, options = groups.snapshot, groups.options
        number = int(snapshot.video_of[best])
        scene = options.group == "scene"
        copies = snapshot.copies.get(number, ()) if options.fold_copies else ()
        return Hit(
            rank=rank,
            path=snapshot.paths[number],
            start_s=float(snapshot.start_s[segments[0] if scene else best]),
            end_s=float(snapshot.end_s[segments[-1] if scene else best]),
            score=score,
            video_id=snapshot.video_ids[number],
            best_s=float(snapshot.start_s[best]),
            scene_start_s=float(snapshot.scene_start_s[snapshot.scene_of[best]]),
            scene_end_s=float(snapshot.scene_end_s[snapshot.scene_of[best]]),
            video_s=float(snapshot.durations_s[number]),
            kind=snapshot.kinds[number],
            also_at=tuple(snapshot.paths[copy] for copy in copies if copy != number),
            why=self._reasons(best, groups) if options.why else (),
        )

    def _reasons(self, segment: int, groups: _Groups) -> tuple[Reason, ...]:
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

    def _group_means(self, groups: _Groups) -> Float32:
        """Compute the unit means (G, D) of groups, or take them from the snapshot."""
        snapshot, augmented = groups.snapshot, groups.encoder is not None
        key = (snapshot.state, groups.options.group, augmented)
        means = self._means.get(key)
        if means is None and snapshot.video_means is not None and key[1:] == ("video", snapshot.blend is not None):
            means = snapshot.video_means
        if means is None:
            references = groups.encoder.references if groups.encoder else None
            means = group_means(snapshot, groups.starts, references=references)
            self._means[key] = means
        return means

    def _hubness_of(self, bank: CaptionBank, groups: _Groups) -> Float32:
        """Compute the hubness that is subtracted from text scores: (G,) of groups ranked by means, else (n,)."""
        by_means = groups.options.by_means
        key = (groups.snapshot.state, groups.options.group if by_means else "", groups.encoder is not None)
        known = self._hubness.get(key) if bank is self._bank else None
        if known is not None:
            return known
        if by_means:
            hubness = bank.hubness(self._group_means(groups))
        else:
            hubness = frame_hubness(bank, groups.snapshot, groups.encoder)
        if bank is self._bank:
            self._hubness[key] = hubness
        return hubness

    def _locate(self, snapshot: Snapshot, path: str | os.PathLike[str], at_s: float) -> int:
        """Find the segment of a video at a time. A bare file name is enough where only one video has it."""
        given = absolute(path)
        known = {video: i for i, video in enumerate(snapshot.paths)}
        number = known.get(given, known.get(Path(path)))
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
            raise QueryError(f"{at_s:g} s is outside {snapshot.paths[number]}: it ends at {timecode(end_s)}")
        return first + max(0, int(np.searchsorted(snapshot.start_s[first:stop], at_s, side="right")) - 1)
