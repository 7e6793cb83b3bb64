"""Evaluation tasks: each takes an encoder and a data set and returns a result."""
