"""Video: decode, index, search."""
