"""The video index on disk: tables, manifest, writer, and the indexer that fills it."""
