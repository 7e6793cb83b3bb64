"""Collection of the training images of `mini` from public git repositories."""
