"""Training mode `pretrain`: whole towers, with or without RAM."""
