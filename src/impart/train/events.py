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
    """Metrics on the validation pairs after `step`.

    Attributes:
        step: steps finished.
        metrics: by name, in percent; those of the base embeddings as `base_<name>` or `<name>_base`.
        items: what was measured, such as `500 images`; empty = not counted.
    """

    step: int
    metrics: dict[str, float] = field(default_factory=dict)
    items: str = ""

    @property
    def verdict(self) -> str:
        """One sentence that compares the trained model with the base embeddings; empty where only one was measured.

        >>> Validated(step=9, metrics={"t2i_r1": 36.3, "base_t2i_r1": 37.9}, items="500 images").verdict
        'validation on 500 images: 36.3 on average, 37.9 without augmentation: nothing gained'
        """
        pairs = [
            (value, self.metrics[base])
            for name, value in self.metrics.items()
            for base in (f"base_{name}", f"{name.removesuffix('_ram')}_base")
            if base in self.metrics and base != name
        ]
        if not pairs:
            return ""
        after, before = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
        where = f" on {self.items}" if self.items else ""
        word = "nothing gained" if after <= before else f"{after - before:.1f} gained"
        return f"validation{where}: {after:.1f} on average, {before:.1f} without augmentation: {word}"


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
        encoder: id of the result for `--encoder`; empty where there is none.
        failed: items that could not be used.
    """

    step: int
    seconds: float
    folder: Path | None = None
    encoder: str = ""
    failed: int = 0


def result_of(steps: Generator[Any, None, Result]) -> Result:
    """Run a generator to its end, drop its events, and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: Result = stop.value
            return result
