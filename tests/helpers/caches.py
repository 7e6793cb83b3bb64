"""Whether the cache of an index is complete and up to date."""

from __future__ import annotations

from impart.video.index.index import VideoIndex
from impart.video.index.store import Store
from impart.video.search.state.cache import from_cache

__all__ = ["is_cached"]


def is_cached(index: VideoIndex) -> bool:
    """Whether a search of the index reads no table."""
    store = Store(index.path)
    found = from_cache(store, index.manifest)
    return found is not None and found.state == store.state()
