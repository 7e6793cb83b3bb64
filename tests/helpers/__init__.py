"""Small encoders, models, data sets and videos that tests make."""
