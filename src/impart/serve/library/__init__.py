"""What routes share about the library: the catalogue of its videos, reference sets, slow results, thumbnails."""
