"""Search: snapshot of an index in memory, query vectors, ranking, hits."""

from impart.video.search.query import Query

__all__ = ["Query"]
