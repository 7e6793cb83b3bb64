"""Search: snapshot of an index in memory, query vectors, ranking, hits."""
