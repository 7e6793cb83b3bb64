"""Spans of time: moments, and sequences of moments. Pure functions of scores."""
