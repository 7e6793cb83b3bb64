"""Run a generator that reports progress and returns a result."""

from __future__ import annotations


def drain(steps):
    """Return the events of a generator, and its result."""
    events = []
    while True:
        try:
            events.append(next(steps))
        except StopIteration as stop:
            return events, stop.value
