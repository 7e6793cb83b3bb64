"""Retrieval-augmented CLIP."""
