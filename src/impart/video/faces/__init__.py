"""Faces: an extra that is off by default. `impart names faces` finds them, `impart names purge` deletes all of them."""
