"""The state in force: the index in memory that searches use, and its refresh after commits.

A library reads the index again at the first search after a commit. A server does not let a search wait: it holds the
state, and calls `refresh` in a thread of its own. Names that are taught are in force at once in both.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from impart.blending.encoder import AugmentedEncoder
from impart.encoders.base import Encoder
from impart.retrieval.hubness import CaptionBank, bundled_bank
from impart.video.index.manifest import IndexManifest
from impart.video.index.store import Store
from impart.video.names.find import NamesInForce
from impart.video.names.store import NameStore
from impart.video.search.rank.pairs import check_pairs
from impart.video.search.snapshot import Snapshot
from impart.video.search.state.choice import choice_of
from impart.video.search.state.codes import read_basis
from impart.video.search.state.derived import Derived
from impart.video.search.state.load import load_snapshot

__all__ = ["StateInForce"]


class StateInForce:
    """The snapshot that searches use, and what is derived from it. May be shared by threads.

    Args:
        store: the index.
        encoder_of: returns the encoder of a manifest, loaded at the first call.
        hub_correction: whether scores of texts are corrected for hubs.

    Attributes:
        bank: captions that come with the model; None = there are none, or they are not needed yet.

    Example:
        >>> import tempfile
        >>> from impart import VideoIndex
        >>> folder = tempfile.TemporaryDirectory()
        >>> index = VideoIndex.open(f"{folder.name}/library.impart")
        >>> list(index.add([]))  # doctest: +ELLIPSIS
        [...]
        >>> state = index.searcher.state
        >>> _ = state.current()  # reads it
        >>> state.hold()  # searches no longer read the index
        >>> state.refresh()  # ... this does, in any thread; nothing has changed since `add`
        False
        >>> folder.cleanup()
    """

    def __init__(self, store: Store, *, encoder_of: Callable[[IndexManifest], Encoder], hub_correction: bool) -> None:
        self._store = store
        self._encoder_of = encoder_of
        self._hub_correction = hub_correction
        self._lock = threading.Lock()
        self._refreshing = threading.Lock()
        self._derived: Derived | None = None
        self._held = False
        self._names_state = ""
        self.bank: CaptionBank | None = None

    def current(self) -> Derived:
        """Return the snapshot in force; unless it is held, it is read again after a commit."""
        known = self.known()
        if known is not None:
            return known
        with self._lock:
            if self._derived is None or (not self._held and not self.is_current):
                self._derived = None  # so that its memory is free while the new one is read
                self._derived = self._new(load_snapshot(self._store))
            return self._derived

    def known(self) -> Derived | None:
        """Return the snapshot in force where it is up to date, or held; None where it has to be read."""
        known = self._derived
        return known if known is not None and (self._held or self.is_current) else None

    def last(self) -> Derived:
        """Return what was read last, without a check whether it is up to date."""
        return self._derived or self.current()

    def manifest(self) -> IndexManifest:
        """Return the manifest that belongs to the state in force."""
        known = self._derived
        if self._held and known is not None:
            return known.snapshot.manifest
        return IndexManifest.load(self._store.folder)

    def bank_of(self, base: Encoder) -> CaptionBank | None:
        """Return the captions that come with a model; None where it has none, or they are not used."""
        if self._hub_correction and self.bank is None:
            self.bank = bundled_bank(base)
        return self.bank

    def hold(self) -> None:
        """From now on, answer from the state that was read last; only `refresh` reads the index again.

        A search then never waits for a commit to be read. Until the next `refresh` it may return what was removed.
        """
        self._held = True

    def newest(self) -> str:
        """Return a digest of the newest state of index and names; it changes with every commit."""
        return f"{self._store.recent_state()} {NameStore(self._store.folder).state()}"

    def in_force(self) -> str:
        """Return a digest of what searches use now: the state in force, and the names, which are always the newest."""
        known = self._derived
        state = self._store.recent_state() if known is None or not self._held else known.snapshot.state
        return f"{state} {NameStore(self._store.folder).state()}"

    @property
    def known_state(self) -> str:
        """State of the snapshot in force, without asking the index; empty where none was read."""
        known = self._derived
        return "" if known is None else known.snapshot.state

    @property
    def is_current(self) -> bool:
        """Whether the state in force is the newest one."""
        known = self._derived
        return known is not None and known.snapshot.state == self._store.recent_state()

    @property
    def is_warm(self) -> bool:
        """Whether the state in force is the newest one, and the names that are taught now are prepared."""
        return self.is_current and self._names_state == NameStore(self._store.folder).state()

    def refresh(self) -> bool:
        """Read the newest state beside the one in force, compute what a first search would, and put it in force.

        Searches go on meanwhile. Names that were taught since are prepared as well.

        Returns:
            Whether the state has changed.

        Raises:
            VideoIndexError: the index is damaged; the state in force stays.
        """
        with self._refreshing:
            old = self._derived
            changed = not self.is_current
            derived = old
            if old is None:
                derived = self.current()
            elif changed:
                derived = self._new(load_snapshot(self._store, old=old.snapshot))
            assert derived is not None
            in_force = self._encoder_of(derived.snapshot.manifest)
            augmented = in_force if isinstance(in_force, AugmentedEncoder) else None
            bank = self.bank_of(in_force if augmented is None else augmented.base)
            encoder = augmented if derived.snapshot.blend is not None else None
            names_state = NameStore(self._store.folder).state()
            derived.warm(encoder=encoder, bank=bank, old=old)
            self._derived, self._names_state = derived, names_state
            return changed

    def prepare_frames(self) -> None:
        """Compute the hubness of all frames, which marks of hits, sequences and heat need; 20 s of 100 hours."""
        derived = self.current()
        in_force = self._encoder_of(derived.snapshot.manifest)
        augmented = in_force if isinstance(in_force, AugmentedEncoder) else None
        bank = self.bank_of(in_force if augmented is None else augmented.base)
        if bank is not None:
            derived.warm_frames(encoder=augmented if derived.snapshot.blend is not None else None, bank=bank)

    def _new(self, snapshot: Snapshot) -> Derived:
        cache, manifest = self._store.folder / "cache", snapshot.manifest
        check_pairs(self._store.folder, manifest, choice_of(snapshot).shards)
        return Derived(
            snapshot,
            names=NamesInForce(NameStore(self._store.folder)),
            basis=lambda count: read_basis(cache, manifest, count=count),
        )
