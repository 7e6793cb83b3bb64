"""Sweeps over size, quality and blending of a reference set."""
