"""Crops: embeddings of parts of the frames, off by default. `impart index --crops` makes them; names profit."""
