"""Nearest reference pairs, z-scores against a background set, prompts, and the correction for hubs."""
