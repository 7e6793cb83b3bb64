"""Video: decode files, index their segments, search for moments."""
