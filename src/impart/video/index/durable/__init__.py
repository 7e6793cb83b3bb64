"""Durable commits: one writer at a time, files synced before they count, a way back after a power cut."""
