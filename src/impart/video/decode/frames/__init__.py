"""Frames: how the image of a decoded frame is stored: fields, colour, orientation."""
