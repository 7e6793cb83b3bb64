"""Training: RAM, heads or whole towers (`impart train`), its data (`impart data`), and the recipe of `mini`."""
