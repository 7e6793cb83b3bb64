"""Models of transformers: two-tower models as encoders, and image models that find neighbours."""
