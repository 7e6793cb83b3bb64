"""Media for the page: byte ranges of files, frame images, previews, and what browsers play."""
