"""The frozen towers of mode `heads`, and their cached outputs."""
