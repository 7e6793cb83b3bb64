"""Names of people, animals, places and things, taught by a few images."""
