"""Collect the training images of `mini` again from the public repositories that hold them."""
