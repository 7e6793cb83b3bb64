"""Copies: which videos contain a clip, and which videos of an index share content, aligned in time."""
