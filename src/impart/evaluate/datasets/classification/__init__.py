"""Readers of classification data sets, for `zeroshot` and `linear_probe`."""
