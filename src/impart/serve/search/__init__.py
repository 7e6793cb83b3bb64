"""Searches of a server: queued and answered in batches, from a state that is refreshed in the background."""
