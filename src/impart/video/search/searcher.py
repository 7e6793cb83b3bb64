"""Searcher: keeps the snapshot of an index in memory, reads it again after commits, and turns queries into hits."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from impart.blending.encoder import AugmentedEncoder
from impart.config import SearchSettings
from impart.encoders.base import Encoder, Float32, l2_normalise
from impart.errors import EncoderError, ImpartWarning, QueryError, ReferenceSetError, VideoIndexError
from impart.retrieval.hubness import CaptionBank
from impart.video.index.manifest import IndexManifest
from impart.video.index.store import Store, TableGoneError
from impart.video.names.find import Prepared
from impart.video.names.scores import NamedScores, context_fit, named_scores, rank_named
from impart.video.names.sentences import NamedQuery, named_query
from impart.video.names.store import NameStore
from impart.video.search.cutoff import Asked, fold_hits, mark_hits, wide
from impart.video.search.groups import (
    Groups,
    RankedHits,
    form_groups,
    make_hit,
    make_moment,
    with_exact_bounds,
)
from impart.video.search.hits import Hit
from impart.video.search.query import Query, SearchOptions, query_vectors
from impart.video.search.rank.hits import rank_vectors
from impart.video.search.scoring import frame_scores, frame_vectors, without_hubs
from impart.video.search.snapshot import Snapshot, locate_segment
from impart.video.search.spans.heat import Heat, binned, scaled
from impart.video.search.spans.temporal import find_sequences
from impart.video.search.state.derived import Derived
from impart.video.search.state.in_force import StateInForce
from impart.video.search.state.pieces import products
from impart.video.search.texts import TextVectors

__all__ = ["Searcher"]

_AT_ONCE = 64  # queries scored together
_SAMPLED = 1000  # frames whose median score is the usual one
_TRIES = 5  # of a search, while other sets are put in force
_Found = TypeVar("_Found")


class Searcher:
    """Searches one index. May be shared by threads.

    Args:
        store: the index, which exists.
        encoder_of: returns the encoder of a manifest, loaded at the first call.
        settings: of the search.

    Attributes:
        state: the index in memory. A server keeps it between commits (`StateInForce.hold`).
    """

    def __init__(
        self, store: Store, *, encoder_of: Callable[[IndexManifest], Encoder], settings: SearchSettings
    ) -> None:
        self._store = store
        self._encoder_of = encoder_of
        self._settings = settings
        self.state = StateInForce(store, encoder_of=encoder_of, hub_correction=settings.hub_correction)
        self._texts = TextVectors(settings.prompts)

    def search(self, queries: Sequence[Query], options: SearchOptions) -> list[list[Hit]]:
        """Find the hits of each query."""
        return self._as_of_one_set(lambda: self._search(queries, options))

    def _search(self, queries: Sequence[Query], options: SearchOptions) -> list[list[Hit]]:
        known = self.state.known()
        read: Callable[[], Derived]
        if known is not None:
            manifest, read = known.snapshot.manifest, partial(_same, known)
        else:  # reading the index and loading the model take different cores
            pool = ThreadPoolExecutor(1, thread_name_prefix="impart-index")
            reading = pool.submit(self.state.current)
            pool.shutdown(wait=False)
            manifest, read = self.state.manifest(), reading.result
        encoder = self._encoder_of(manifest)
        base = encoder.base if isinstance(encoder, AugmentedEncoder) else encoder
        parts = [part for query in queries for part in query.parts()]
        prepared = None
        if options.names and NameStore(self._store.folder).state():
            derived = read()
            prepared = None if derived.names is None else derived.names.of(derived.snapshot)
        named = [self._named_query(part, prepared) for part in parts]
        parts = [part if one is None else one.context or part for part, one in zip(parts, named, strict=True)]
        vectors = query_vectors(
            parts,
            encoder if options.augment else base,
            self._settings,
            fit=manifest.decode.fit,
            known=self._texts,
        )
        bank = self.state.bank_of(base)
        derived = read()
        if not any(query.joined for query in queries) and not any(named):  # these compare with all frames of the index
            derived = derived.narrowed(options)
        by_text = np.array([not part.has_image for part in parts])
        if options.together:
            bank = (bank or CaptionBank(vectors[:0])).with_queries(vectors[by_text])
        groups = self._groups(derived, wide(options))
        counts = [len(query.parts()) for query in queries]
        rows = np.cumsum([0, *counts[:-1]])  # of the first part of each query
        by_names = [
            None
            if one is None or prepared is None
            else self._by_names(one, vectors[i], prepared, groups, bank if by_text[i] else None)
            for i, one in enumerate(named)
        ]
        plain = rows[[not query.joined and named[row] is None for query, row in zip(queries, rows, strict=True)]]
        hubness = None
        if bank is not None and len(groups.snapshot) and by_text[plain].any():
            hubness = groups.derived.hubness(bank, groups)
        ranked: list[RankedHits] = []
        for first in range(0, len(plain), _AT_ONCE):
            part = plain[first : first + _AT_ONCE]
            ranked += rank_vectors(vectors[part], groups, by_text=by_text[part], hubness=hubness, bank=self.state.bank)
        of_plain, answers = iter(ranked), []
        for query, row, count in zip(queries, rows, counts, strict=True):
            own = slice(row, row + count)
            asked = Asked(query=query, vectors=vectors[own], by_text=by_text[own], named=tuple(by_names[own]))
            if query.joined:
                found = RankedHits(self._sequences(asked, groups, bank))
            else:
                found = next(of_plain) if by_names[row] is None else RankedHits(self._rank_named(by_names[row], groups))
            answers.append(self._finished(found, asked, groups, options))
        return answers

    def encode(self, queries: Sequence[Query]) -> None:
        """Encode the texts of queries ahead of their search, which then knows their vectors."""
        encoder = self._encoder_of(self.state.manifest())
        base = encoder.base if isinstance(encoder, AugmentedEncoder) else encoder
        weight = self._settings.negative_weight
        terms = [term for query in queries for part in query.parts() for term in part.weighted(weight)]
        self._texts.of([term.text for term in terms if term.text is not None], base)

    def names_in(self, queries: Sequence[Query]) -> list[tuple[str, ...]]:
        """List the taught names that are found in the texts of each query."""
        derived = self.state.current()
        if derived.names is None or not derived.names.store.state():
            return [()] * len(queries)
        prepared = derived.names.of(derived.snapshot)
        found = []
        for query in queries:
            named = [one for part in query.parts() if (one := self._named_query(part, prepared)) is not None]
            found.append(tuple(dict.fromkeys(name for one in named for name in (*one.present, *one.absent))))
        return found

    def _named_query(self, query: Query, prepared: Prepared | None) -> NamedQuery | None:
        """Take the taught names out of a query; None where it has none."""
        names = prepared.taught.names if prepared is not None else ()
        return named_query(query, names, negative_weight=self._settings.negative_weight)

    def _by_names(
        self, named: NamedQuery, vector: Float32, prepared: Prepared, groups: Groups, bank: CaptionBank | None
    ) -> NamedScores:
        """Score all segments for a query with taught names.

        Args:
            vector: (D,) of its context.
            bank: corrects the context for hubs; None = it is not corrected.
        """
        snapshot, fit = groups.snapshot, None
        if not len(snapshot):
            return NamedScores(scores=np.zeros(0, np.float32), present={})
        if named.context is not None and groups.parts is not None:  # a segment has the context of its unit
            units = groups.derived.units(groups)
            context = products(vector[None], units.means)[0]  # (U,)
            context = context if bank is None else context - groups.derived.hubness(bank, groups, kind="unit")
            unit_of = np.repeat(units.of_part, np.diff(groups.parts.bounds))  # (n,)
            fit = context_fit(context, np.bincount(unit_of, weights=snapshot.weight))[unit_of]
        elif named.context is not None:
            context = frame_scores(vector[None], snapshot, groups.encoder)[0]  # (n,)
            context = context if bank is None else context - groups.derived.hubness(bank, groups, kind="frame")
            fit = context_fit(context, snapshot.weight)
        present = {name: prepared.presence(name) for name in named.present}
        absent = [prepared.presence(name) for name in named.absent]
        scores = named_scores(fit, list(present.values()), absent, count=len(snapshot))
        return NamedScores(scores=scores, present=present)

    def _rank_named(self, named: NamedScores, groups: Groups) -> list[Hit]:
        """Find the hits of a query with taught names."""
        ranked = rank_named(named, groups.snapshot, groups.starts, groups.options, allowed=groups.allowed)
        return [
            make_hit(rank, one.score, one.segments, one.best, groups, moments=one.more)
            for rank, one in enumerate(ranked, 1)
        ]

    def _sequences(self, asked: Asked, groups: Groups, bank: CaptionBank | None) -> list[Hit]:
        """Find the hits of queries that are joined in time."""
        snapshot, options = groups.snapshot, groups.options
        if not len(snapshot) or asked.query is None:
            return []
        hubness = None
        if bank is not None and asked.by_text.any():
            hubness = groups.derived.hubness(bank, groups, kind="frame")
        scores = without_hubs(frame_scores(asked.vectors, snapshot, groups.encoder), asked.by_text, hubness)
        for part, one in enumerate(asked.named):
            if one is not None:
                scores[part] = one.scores
        found = find_sequences(
            asked.query, scores, snapshot, groups.starts, allowed=groups.allowed, top=options.top, group=options.group
        )
        hits = []
        for rank, (sequence, *others) in enumerate(found, 1):
            whole = sequence.whole(asked.query.keep)
            more = [other.whole(asked.query.keep) for other in others]
            hit = make_hit(rank, whole.score, range(whole.first, whole.stop), whole.best, groups, moments=more)
            steps = tuple(make_moment(span, snapshot) for span in sequence.spans)
            hits.append(dataclasses.replace(hit, steps=steps))
        return hits

    def _finished(self, found: RankedHits, asked: Asked, groups: Groups, options: SearchOptions) -> list[Hit]:
        """Fold hits that show the same, mark the strong ones, and take those that are asked for."""
        snapshot, encoder, derived, hits = groups.snapshot, groups.encoder, groups.derived, found.hits
        if options.fold_copies and options.group not in ("scene", "frame"):
            hits = fold_hits(hits, snapshot, bound=derived.copy_bound(encoder))
        if options.min_score is not None:
            hits = [hit for hit in hits if round(hit.score, 6) >= options.min_score]  # as scores are printed
        bank = self.state.bank
        marked = mark_hits(
            hits,
            asked,
            snapshot,
            encoder,
            bank=bank,
            hubness=None if bank is None else partial(derived.hubness_of, bank, encoder),
            returned=slice(options.offset, options.offset + options.top),
        )
        returned = marked if found.complete is None else found.complete(marked)
        return [with_exact_bounds(hit, snapshot) for hit in returned] if options.exact else returned

    def similar(self, path: str | os.PathLike[str], at_s: float, options: SearchOptions) -> list[Hit]:
        """Find the hits of a moment of an indexed video, without the group that contains it.

        Raises:
            QueryError: the video is not in the index, or is shorter.
        """
        return self._as_of_one_set(lambda: self._similar(path, at_s, options))

    def _similar(self, path: str | os.PathLike[str], at_s: float, options: SearchOptions) -> list[Hit]:
        derived = self.state.current()
        snapshot = derived.snapshot
        moment = locate_segment(snapshot, path, at_s, folder=self._store.folder)
        one = slice(moment, moment + 1)
        vector = l2_normalise(snapshot.vectors[one])  # (1, D)
        groups = self._groups(derived, wide(options), without=moment)
        if groups.encoder is not None and snapshot.blend is not None:
            vector = groups.encoder.apply(snapshot.vectors[one].astype(np.float32), snapshot.blend[one])
        asked = Asked(vectors=vector, by_text=np.zeros(1, bool))
        return self._finished(rank_vectors(vector, groups, bank=self.state.bank)[0], asked, groups, options)

    def heat(
        self, query: Query | tuple[str, float], video_ids: Sequence[str], *, bins: int = 100, names: bool = True
    ) -> list[Heat]:
        """Find where a query lights up in some videos, see `impart.video.search.spans.heat`.

        Of a query that is joined in time, the brightest of its parts counts.

        Args:
            query: a query, or a moment of a video: its id, and seconds.
            video_ids: of the videos; those that are not in the index are left out.
            bins: per video; a photo has one.
            names: whether taught names are found in the texts.

        Raises:
            QueryError: the video of the moment is not in the index, or is shorter.
        """
        return self._as_of_one_set(lambda: self._heat(query, video_ids, bins, names))

    def _heat(self, query: Query | tuple[str, float], video_ids: Sequence[str], bins: int, names: bool) -> list[Heat]:
        derived = self.state.current()
        snapshot = derived.snapshot
        videos = [number for one in video_ids if (number := snapshot.number_of.get(one)) is not None]
        if not videos:
            return []
        groups = self._groups(derived, SearchOptions(top=1, group="video", by="moment", fold_copies=False))
        sample = np.linspace(0, len(snapshot) - 1, min(len(snapshot), _SAMPLED)).astype(np.int64)
        ranges = [np.arange(*snapshot.offsets[number : number + 2]) for number in videos]
        rows = np.concatenate([sample, *ranges])
        parts = self._scores_at(query, rows, groups, names)  # (P, m)
        lows = np.median(parts[:, : len(sample)], axis=1)
        highs = parts[:, len(sample) :].max(axis=1)
        ends = np.cumsum([len(sample), *(len(one) for one in ranges)]).tolist()
        heats = []
        for number, first, stop in zip(videos, ends, ends[1:], strict=False):
            a, b = snapshot.offsets[number : number + 2].tolist()
            times = snapshot.start_s[a:b], snapshot.end_s[a:b]
            strips = [binned(part[first:stop], *times, bins=bins) for part in parts]
            values = [
                scaled([strip[0]], low=float(low), high=float(high))[0]
                for strip, low, high in zip(strips, lows, highs, strict=True)
            ]
            heats.append(
                Heat(
                    video_id=snapshot.video_ids[number],
                    start_s=strips[0][1],
                    step_s=strips[0][2],
                    bins=tuple(max(column) for column in zip(*values, strict=True)),
                    best_s=float(times[0][int(np.argmax(parts[0][first:stop]))]),
                )
            )
        return heats

    def _scores_at(
        self, query: Query | tuple[str, float], rows: npt.NDArray[np.int64], groups: Groups, names: bool
    ) -> Float32:
        """Compute the scores (P, m) of the P parts of a query for some segments (m,), as a ranking by frames does."""
        snapshot, derived = groups.snapshot, groups.derived
        if isinstance(query, tuple):
            number = snapshot.number_of.get(query[0])
            if number is None:
                raise QueryError(f"the index has no video {query[0]!r}: search again")
            moment = locate_segment(snapshot, snapshot.paths[number], query[1], folder=self._store.folder)
            vector = frame_vectors(snapshot, groups.encoder, np.array([moment]))
            return frame_scores(vector, snapshot, groups.encoder, rows=rows)
        encoder = self._encoder_of(snapshot.manifest)
        base = encoder.base if isinstance(encoder, AugmentedEncoder) else encoder
        prepared = None
        if names and derived.names is not None and derived.names.store.state():
            prepared = derived.names.of(snapshot)
        parts = query.parts()
        named = [self._named_query(part, prepared) for part in parts]
        contexts = [part if one is None else one.context or part for part, one in zip(parts, named, strict=True)]
        fit = snapshot.manifest.decode.fit
        vectors = query_vectors(contexts, encoder, self._settings, fit=fit, known=self._texts)
        by_text = np.array([not part.has_image for part in parts])
        bank = self.state.bank_of(base)
        hubness = derived.hubness_of(bank, groups.encoder, rows) if bank is not None and by_text.any() else None
        scores = without_hubs(frame_scores(vectors, snapshot, groups.encoder, rows=rows), by_text, hubness)
        for number, one in enumerate(named):
            if one is not None and prepared is not None:
                of_text = bank if by_text[number] else None
                scores[number] = self._by_names(one, vectors[number], prepared, groups, of_text).scores[rows]
        return scores

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
            state = self._store.recent_state()
            try:
                found = find()
                break
            except (EncoderError, ReferenceSetError, VideoIndexError):
                if attempt == _TRIES - 1 or self._store.state() == state:
                    raise
            except TableGoneError as error:  # a column that is read when it is first used
                if attempt == _TRIES - 1:
                    raise VideoIndexError(f"{error}; try again") from error
        for text in self.state.last().snapshot.warnings():
            warnings.warn(text, ImpartWarning, stacklevel=4)
        return found

    def current(self) -> Snapshot:
        """Return the snapshot of the index as it is now; it is read again only after a commit."""
        return self.state.current().snapshot

    def _groups(self, derived: Derived, options: SearchOptions, *, without: int | None = None) -> Groups:
        """Form the groups of a search, see `form_groups`."""
        encoder = None
        if options.augment and derived.snapshot.blend is not None:
            in_force = self._encoder_of(derived.snapshot.manifest)
            encoder = in_force if isinstance(in_force, AugmentedEncoder) else None
        return form_groups(derived, options, encoder, without=without)


def _same(derived: Derived) -> Derived:
    return derived
