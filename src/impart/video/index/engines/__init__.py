"""Engines: indexing with workers on Ray in place of this process's own decoder and encoder."""
