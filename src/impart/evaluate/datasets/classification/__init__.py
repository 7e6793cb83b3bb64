"""Readers of classification data sets."""
