"""Metrics as pure functions of arrays. Ties are broken pessimistically, so a constant score is never good."""
