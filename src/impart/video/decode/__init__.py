"""Decode videos: sampled frames with presentation times, in a process of its own."""
