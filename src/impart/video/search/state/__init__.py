"""State: the index in memory as of one commit: read from tables or cache, updated, and what searches derive from it."""
