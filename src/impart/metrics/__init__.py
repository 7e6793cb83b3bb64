"""Metrics as pure functions of arrays. Ties count against the encoder everywhere: a constant score is never good."""
