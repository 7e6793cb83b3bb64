"""`impart eval`, `impart reproduce` and `impart refset sweep`."""
