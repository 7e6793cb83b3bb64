"""Training mode `heads`: heads on frozen towers, with or without RAM."""
