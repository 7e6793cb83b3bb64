"""Search an index: snapshot in memory, ranking, hits."""
