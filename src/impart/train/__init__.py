"""Training (`impart train`) in four modes: `ram`, `episodes`, `heads`, `pretrain`."""
