"""Engines: building a reference set with workers on Ray in place of this process's own encoder."""
