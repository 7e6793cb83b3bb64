"""Files that video editors read, one module per format."""
