"""Split the images of a run: training, references, validation.

A split is a function of the seed, the number of images and the settings of `[reference]`: runs with equal ones have
equal splits, with RAM or without.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impart.errors import TrainingError
from impart.train.events import Note
from impart.train.prepare.pairs import Failures, Listing
from impart.train.settings import TrainConfig

__all__ = ["ReferencePair", "Split", "hold_out", "may_be_references", "split_images"]

ReferencePair = tuple[int, int]
"""(number of the image, number of the text among the image's texts)."""


@dataclass(frozen=True)
class Split:
    """Numbers of images by use; each (.,) int64, sorted.

    Attributes:
        train: to learn from.
        references: of the reference set.
        validation: to measure on.
    """

    train: npt.NDArray[np.int64]
    references: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]


def split_images(
    config: TrainConfig, listing: Listing, hashes: Sequence[str], failures: Failures, *, augmented: bool = True
) -> Generator[Note, None, tuple[Split, list[ReferencePair]]]:
    """Split a listing; content that validation has is in no other part.

    Args:
        config: `seed`, `data.validation_images` and `reference` are read.
        listing: n images. Without own validation images, up to a tenth of them is held out.
        hashes: n content hashes; images with an empty one are left out.
        failures: so far, for messages.
        augmented: whether references are needed.

    Returns:
        The split, and the pairs of the reference images that become references.

    Raises:
        TrainingError: too few images are left.
    """
    options = config.reference
    split = hold_out(
        listing.own,
        fraction=options.fraction,
        seed=config.seed,
        held_out=options.held_out,
        use=options.use,
        validation=0 if len(hashes) > listing.own else min(config.data.validation_images, listing.own // 10),
        eligible=may_be_references([image.pair.source for image in listing.images[: listing.own]], options.sources),
    )
    usable = np.array([bool(key) for key in hashes], dtype=np.bool_)
    validation = np.concatenate([split.validation, np.arange(listing.own, len(hashes))])
    validation = validation[usable[validation]]
    apart = {hashes[number] for number in validation}
    fresh = usable & np.array([key not in apart for key in hashes], dtype=np.bool_)
    split = Split(split.train[fresh[split.train]], split.references[fresh[split.references]], validation)
    pairs = [
        (int(number), text)
        for number in split.references
        for text in range(len(listing.images[number].texts[: options.captions or None]))
    ]
    if len(split.train) < 2 or (augmented and not pairs):
        raise TrainingError(
            f"{len(split.train)} images are left to train on, {len(pairs)} pairs as references: too few. {failures}"
        )
    yield Note(
        message=f"{len(split.train)} images to train on, {len(pairs)} references, {len(split.validation)} for "
        f"validation; {len(failures)} items failed"
    )
    return split, pairs


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


def may_be_references(collections: Sequence[str], wanted: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return which images may become references, by their collections: those `wanted`, or all if none is named.

    Raises:
        TrainingError: no image is of a wanted collection.
    """
    chosen = np.array([not wanted or name in wanted for name in collections], dtype=np.bool_)
    if len(collections) and not chosen.any():
        raise TrainingError(
            f"reference.sources names {', '.join(wanted)}, but the pairs come from "
            f"{', '.join(sorted(set(collections)))}: name one of these; or all with reference.sources=[], and a share "
            "of them with reference.fraction=0.1"
        )
    return chosen
