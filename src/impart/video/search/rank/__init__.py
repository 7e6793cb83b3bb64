"""Rank the groups and spans of an index for query vectors."""
