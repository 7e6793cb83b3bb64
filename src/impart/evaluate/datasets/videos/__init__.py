"""Readers of video data sets."""
