"""Nearest neighbours, z-scores against a background set, prompt ensembles, and hubness."""
