"""Parts that routes share: the catalogue of the videos, reference sets, slow results, thumbnails."""
