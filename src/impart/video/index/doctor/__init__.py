"""Check and repair an index: checksums of its files, what damage costs, and how to get back what is whole."""
