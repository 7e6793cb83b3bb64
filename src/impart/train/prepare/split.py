"""Hold-out split: which images train, which are references, which validate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impart.errors import TrainingError

__all__ = ["Split", "hold_out", "may_be_references"]


@dataclass(frozen=True)
class Split:
    """Images by what they are for; each (.,) int64 numbers, sorted.

    Attributes:
        train: learned from.
        references: the cheat sheet.
        validation: neither.
    """

    train: npt.NDArray[np.int64]
    references: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]


def may_be_references(of: Sequence[str], wanted: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which images, told by their collections `of`, may become references: those `wanted`, or all if none is named.

    Raises:
        TrainingError: no image comes from there.
    """
    chosen = np.array([not wanted or name in wanted for name in of], dtype=np.bool_)
    if len(of) and not chosen.any():
        raise TrainingError(
            f"reference.sources names {', '.join(wanted)}, but the pairs come from {', '.join(sorted(set(of)))}: name "
            "one of these; or all with reference.sources=[], and a share of them with reference.fraction=0.1"
        )
    return chosen


def hold_out(
    count: int,
    *,
    fraction: float,
    seed: int,
    held_out: bool = True,
    use: float = 1.0,
    validation: int = 0,
    eligible: npt.NDArray[np.bool_] | None = None,
) -> Split:
    """Draw references and validation images.

    Args:
        count: images in all.
        fraction: share of the eligible images that become references.
        seed: of the draw.
        held_out: whether references are left out of training.
        use: share of the references that is used; a smaller share is a part of a larger one.
        validation: images kept for validation, drawn first.
        eligible: (count,) which images may become references; None = all.

    >>> split = hold_out(10, fraction=0.2, seed=0, validation=2)
    >>> len(split.train), len(split.references), len(split.validation)
    (6, 2, 2)
    """
    order = np.random.default_rng((seed, 0x5B117)).permutation(count)
    validation_rows, rest = order[:validation], order[validation:]
    candidates = rest if eligible is None else rest[eligible[rest]]
    held = candidates[: round(fraction * len(candidates))]
    used = held[: max(1, round(use * len(held)))] if len(held) else held
    train = np.setdiff1d(rest, held) if held_out else np.sort(rest)
    return Split(train.astype(np.int64), np.sort(used).astype(np.int64), np.sort(validation_rows).astype(np.int64))
