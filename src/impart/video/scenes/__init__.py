"""Scenes: runs of segments between cuts."""
