"""Decoding: sampled frames with presentation timestamps, in a worker process."""
