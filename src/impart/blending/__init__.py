"""v -> v': what a reference set adds to an image embedding."""
