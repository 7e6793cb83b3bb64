"""Readers of files of image-text pairs: one per format, used by reference sets, training and evaluation."""
