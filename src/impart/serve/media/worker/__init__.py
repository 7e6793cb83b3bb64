"""Decoding and encoding for the page, in processes of their own."""
