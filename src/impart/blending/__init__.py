"""Blend the references nearest to an image into its embedding: v to v'."""
