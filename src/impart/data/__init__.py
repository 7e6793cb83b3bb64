"""Preparation of training data: what `impart data` runs."""
