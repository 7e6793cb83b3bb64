"""Small encoders, models, data sets and videos, generated for tests."""
