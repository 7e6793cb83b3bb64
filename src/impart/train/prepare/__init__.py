"""Prepare a run: list pairs, split, embed, find neighbours."""
