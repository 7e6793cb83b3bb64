"""Events of a run; the command line renders them."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

__all__ = [
    "Finished",
    "Note",
    "Preparing",
    "Resumed",
    "Saved",
    "StepDone",
    "TrainEvent",
    "Validated",
    "result_of",
]

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class TrainEvent:
    """Base class of all events."""


@dataclass(frozen=True, kw_only=True)
class Preparing(TrainEvent):
    """Progress of work before the first step, such as embeddings or neighbours.

    Attributes:
        what: kind of items, such as `images`.
        done: items finished.
        total: items in all.
        failed: finished items that could not be used.
    """

    what: str
    done: int
    total: int
    failed: int = 0


@dataclass(frozen=True, kw_only=True)
class Note(TrainEvent):
    """One line for the user."""

    message: str


@dataclass(frozen=True, kw_only=True)
class Resumed(TrainEvent):
    """A run continues after `step` of `steps`."""

    step: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class StepDone(TrainEvent):
    """One optimiser step.

    Attributes:
        step: steps finished.
        steps: in all.
        loss: mean since the last line of the log.
        pairs_per_s: moving average.
        eta_s: time until the last step, at that speed.
    """

    step: int
    steps: int
    loss: float
    pairs_per_s: float
    eta_s: float


@dataclass(frozen=True, kw_only=True)
class Validated(TrainEvent):
    """Metrics on the validation pairs after `step`."""

    step: int
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Saved(TrainEvent):
    """A checkpoint of `step` is on disk."""

    step: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class Finished(TrainEvent):
    """End of a run.

    Attributes:
        step: steps in all.
        seconds: time of this call.
        folder: what was exported; None = nothing.
        failed: items that could not be used.
    """

    step: int
    seconds: float
    folder: Path | None = None
    failed: int = 0


def result_of(steps: Generator[Any, None, Result]) -> Result:
    """Run a generator to its end, drop its events, and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: Result = stop.value
            return result
