"""Few-shot classification with an image-text model, without training: labelled references beside the class names."""
