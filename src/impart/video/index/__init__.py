"""The video index on disk, and the indexer that fills it."""
