"""Client of a server: searches, names and jobs over HTTP, with the result classes of `VideoIndex`."""
