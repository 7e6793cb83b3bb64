"""Data preparation: `impart data`."""
