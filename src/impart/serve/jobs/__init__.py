"""Jobs of the server: indexing and exports, each in a process of its own."""
