"""Few-shot classification: all methods on the same draws of labelled references, compared with one of them.

Every test image shows one of the classes (a closed set), as the published methods assume. References are drawn from
the training images; images that show a test image are not drawn. The constants of a method are chosen

    none    by leave-one-out on the references alone
    folds   by leaving out one reference per class at a time
    few     on as many further training images per class as there are references, at most 4
    full    on all other training images

With one reference per class the first two have nothing to choose by (`impart.blending.few_shot.choice`). Solved
references, Vanilla and RAM are augmented encoders. Their settings are those of `impart refset tune` on the drawn
images, in every case.

Intervals are of a bootstrap over test images and draws: each replicate takes images, and draws of references, with
replacement. All methods have the same replicates, so that their differences are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from impart.blending.base import Blender
from impart.blending.encoder import AugmentedEncoder, blender_of
from impart.blending.few_shot.choice import FAMILIES, Labelled, MethodFamily, choose
from impart.blending.ram_onnx import LearnedRam
from impart.blending.tune import tune
from impart.config import FewShotMethod
from impart.encoders.base import Encoder
from impart.errors import ConfigError, DataError
from impart.evaluate.cache import EmbeddingCache
from impart.evaluate.datasets.types import ClassSet
from impart.evaluate.embed import Progress
from impart.evaluate.result import Result
from impart.evaluate.tasks.few_shot_problem import MOST_FEW, FewShotProblem, open_problem
from impart.metrics import bootstrap
from impart.refset.refset import ReferenceSet

__all__ = ["METHODS", "PER_CLASS", "TUNINGS", "few_shot"]

METHODS: tuple[str, ...] = get_args(FewShotMethod)
PER_CLASS = (1, 2, 3, 4, 8)
TUNINGS: Mapping[str, str] = {
    "none": "constants by leave-one-out",
    "folds": "constants by folds of the references",
    "few": "constants by few validation images",
    "full": "constants by all validation images",
}
ZERO_SHOT = "zero-shot"
_DRAWS_SEED = bootstrap.SEED + 1  # of the draws of references, so that they are independent of those of images

Right = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Draw:
    """Rows of drawn references, and how constants are chosen: on validation images, by folds, or by leave-one-out."""

    rows: npt.NDArray[np.int64]
    validation: Labelled | None
    folds: bool


@dataclass(frozen=True)
class _Way:
    """A way to classify the test images of a draw: title, and a function that also gives the constants used."""

    title: str
    measure: Callable[[_Draw], tuple[Right, Mapping[str, Any]]]


def few_shot(
    encoder: Encoder,
    train: ClassSet,
    test: ClassSet,
    *,
    images: Sequence[int] = PER_CLASS,
    draws: int = 5,
    tuned_with: Sequence[str] = ("none",),
    methods: Sequence[str] = METHODS,
    over: str = "tip-adapter",
    rams: Mapping[str, LearnedRam] | None = None,
    prompts: str | Sequence[str] = "ensemble",
    near_duplicate: float = 0.0,
    cache: EmbeddingCache | None = None,
    label: str | None = None,
    batch: int = 32,
    on_progress: Progress | None = None,
) -> list[Result]:
    """Classify test images by a few labelled training images per class, by several methods.

    Args:
        encoder: plain.
        train: images to draw references and validation images from.
        test: test images of the same classes.
        images: references per class.
        draws: draws of the references. Draw 0 takes the first images; the same images serve all methods.
        tuned_with: how the constants are chosen: `none`, `folds`, `few`, `full`.
        methods: names of methods.
        over: the method that the others are compared with.
        rams: trained RAMs by name, to measure as well, open and closed, each with the encoder that it was trained on.
        prompts: as in `zeroshot`.
        near_duplicate: as in `impart.evaluate.contamination.find_contamination`.
        cache: of embeddings; None = no cache.
        label: the encoder's name in reports; None = its id.
        batch: images per forward pass.
        on_progress: called after each part of the images, and after each draw.

    Returns:
        One result per tuning and method, the first of each tuning is `over`. The figures are the mean top-1 over the
        draws, named by the references per class, such as `3 images`; the arrays of the same name are (draws, n), 1
        where a test image is right.

    Raises:
        DataError: the classes differ, a class has no training image, or no image is left for validation.
        ConfigError: a method or number is invalid, or the encoder is augmented.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> import impart
        >>> folder = Path(tempfile.mkdtemp())
        >>> for number in range(9):
        ...     for name, colour in (("red", (255 - 9 * number, 0, 0)), ("blue", (0, 0, 255 - 9 * number))):
        ...         place = folder / ("test" if number % 3 == 0 else "train") / name
        ...         place.mkdir(parents=True, exist_ok=True)
        ...         Image.new("RGB", (64, 64), colour).save(place / f"{number}.png")
        >>> train, test = (impart.evaluate.open_set(folder / part, kind="classes") for part in ("train", "test"))
        >>> found = impart.evaluate.few_shot(
        ...     impart.load_encoder("mini"),
        ...     train,
        ...     test,
        ...     images=[2],
        ...     draws=1,
        ...     methods=["tip-adapter", "ridge"],
        ...     near_duplicate=2,
        ... )
        >>> [result.encoder for result in found], found[0].figures["2 images"]
        (['Tip-Adapter', 'zero-shot', 'kernel ridge'], 1.0)
    """
    _check(encoder, images=images, draws=draws, tuned_with=tuned_with, methods=methods, over=over)
    problem = open_problem(
        encoder,
        train,
        test,
        prompts=prompts,
        near_duplicate=near_duplicate,
        cache=cache,
        batch=batch,
        on_progress=on_progress,
    )
    own = {name: ram for name, ram in (rams or {}).items() if ram.encoder_fingerprint == encoder.fingerprint}
    ways = _ways(problem, [over, *(name for name in dict.fromkeys(methods) if name != over)], own)
    steps = [(tuning, count, seed) for tuning in tuned_with for count in images for seed in range(draws)]
    right = np.zeros((len(ways), len(tuned_with), len(images), draws, len(problem.test.labels)), dtype=np.bool_)
    constants: dict[tuple[str, str], dict[str, list[Mapping[str, Any]]]] = {}
    for done, (tuning, count, seed) in enumerate(steps, start=1):
        draw = _Draw(problem.draw(count, seed), _validation(problem, tuning, count, seed), tuning == "folds")
        place = (list(tuned_with).index(tuning), list(images).index(count), seed)
        for number, way in enumerate(ways):
            right[(number, *place)], used = way.measure(draw)
            constants.setdefault((tuning, way.title), {}).setdefault(_figure(count), []).append(used)
        if on_progress is not None:
            on_progress(done, len(steps))
    return [
        _result(
            problem,
            f"few-shot with {label or encoder.traits.id}, {TUNINGS[tuning]}",
            way.title,
            {_figure(count): right[number, place, column] for column, count in enumerate(images)},
            settings={
                "prompts": prompts if isinstance(prompts, str) else "given",
                "draws": draws,
                "tuned with": tuning,
                "constants": constants[tuning, way.title],
            },
            notes=_notes(problem, images),
        )
        for place, tuning in enumerate(tuned_with)
        for number, way in enumerate(ways)
    ]


def _check(
    encoder: Encoder,
    *,
    images: Sequence[int],
    draws: int,
    tuned_with: Sequence[str],
    methods: Sequence[str],
    over: str,
) -> None:
    if isinstance(encoder, AugmentedEncoder):
        raise ConfigError("few-shot methods stand on a plain encoder: give it without a reference set")
    if not images or min(images) < 1 or draws < 1:
        raise ConfigError(
            f"images {list(images)} and draws {draws}: give positive numbers, such as 1, 2, 4 and 5 draws"
        )
    for name, known in ((over, METHODS), *((one, METHODS) for one in methods), *((one, TUNINGS) for one in tuned_with)):
        if name not in known:
            raise ConfigError(f"unknown {name!r}: there are {', '.join(known)}")
    if len(set(images)) < len(images) or len(set(tuned_with)) < len(tuned_with) or not tuned_with:
        raise ConfigError("give each number of images, and each way of tuning, once")


def _validation(problem: FewShotProblem, tuning: str, count: int, seed: int) -> Labelled | None:
    if tuning in ("none", "folds"):
        return None
    most = min(count, MOST_FEW) if tuning == "few" else len(problem.train.labels)
    rows = problem.draw(most, seed, after=count)
    if not len(rows):
        raise DataError(
            f"{problem.train.name!r} has no image beside {count} per class to choose constants on: draw fewer "
            "references, or choose constants by leave-one-out (none)"
        )
    return problem.train.labelled(rows)


def _ways(problem: FewShotProblem, names: Sequence[str], rams: Mapping[str, LearnedRam]) -> list[_Way]:
    """List the methods in the order of the report: the one to compare with, zero-shot, the others."""
    found: list[_Way] = []
    for name in names:
        if name in FAMILIES:
            found.append(_family(problem, FAMILIES[name]))
        else:
            kind, _, closed = name.partition("-")
            solve = kind == "solved"
            title = "solved references" if solve else "Vanilla"
            found.append(_augmented(problem, title, blender_of, closed=bool(closed), solve=solve))
    plain = problem.logits.argmax(axis=1) == problem.test.labels
    found.insert(1, _Way(ZERO_SHOT, lambda _: (plain, {})))
    for title, ram in rams.items():
        found += [
            _augmented(problem, title, partial(_same, ram), closed=closed, solve=False) for closed in (False, True)
        ]
    return found


def _family(problem: FewShotProblem, family: MethodFamily) -> _Way:
    def measure(draw: _Draw) -> tuple[Right, Mapping[str, Any]]:
        chosen = choose(family, problem.support(draw.rows), draw.validation, folds=draw.folds)
        scores = problem.logits + chosen.method.offsets(problem.test.images)
        return scores.argmax(axis=1) == problem.test.labels, chosen.constants

    return _Way(family.title, measure)


def _augmented(
    problem: FewShotProblem, title: str, blender: Callable[[ReferenceSet], Blender], *, closed: bool, solve: bool
) -> _Way:
    encoder = problem.encoder

    def measure(draw: _Draw) -> tuple[Right, Mapping[str, Any]]:
        tuned = tune(problem.references(draw.rows), background=problem.background, closed=closed, solve=solve)
        augmented = AugmentedEncoder(encoder, tuned.references, blender(tuned.references))
        images = problem.test.images
        v = augmented.apply(images.embeddings, augmented.blend(images))
        return (v @ problem.texts.T).argmax(axis=1) == problem.test.labels, {"rule": tuned.rule}

    return _Way(f"{title}, closed" if closed else title, measure)


def _same(ram: LearnedRam, _: ReferenceSet) -> Blender:
    return ram


def _figure(count: int) -> str:
    return f"{count} image{'s' * (count != 1)}"


def _result(
    problem: FewShotProblem,
    task: str,
    title: str,
    right: Mapping[str, Right],
    *,
    settings: Mapping[str, Any],
    notes: tuple[str, ...],
) -> Result:
    test = problem.test
    draws = len(next(iter(right.values())))
    of_images = bootstrap.draws(len(test.labels))
    of_draws = bootstrap.draws(draws, seed=_DRAWS_SEED) / draws  # (replicates, draws)
    return Result(
        task=task,
        dataset=test.name,
        encoder=title,
        figures={name: float(values.mean()) for name, values in right.items()},
        items=test.keys,
        resampled={
            name: (np.stack([bootstrap.means(draw, of_images) for draw in values], axis=1) * of_draws).sum(axis=1)
            for name, values in right.items()
        },
        counts={
            "images": len(test.labels),
            "classes": len(test.classes),
            "draws": draws,
            "training images": len(problem.train.labels),
            "training images dropped": problem.dropped,
            "unreadable": len(problem.train.unreadable) + len(test.unreadable),
        },
        settings=settings,
        notes=notes,
        arrays={name: values.astype(np.uint8) for name, values in right.items()},
    )


def _notes(problem: FewShotProblem, images: Sequence[int]) -> tuple[str, ...]:
    notes = [f"left out: {reason}" for one in (problem.train, problem.test) for reason in one.unreadable]
    if problem.dropped:
        notes.append(f"{problem.dropped} training images show test images and were not drawn")
    held = np.bincount(problem.train.labels, minlength=len(problem.train.classes))
    for count in images:
        if few := int((held < count).sum()):
            notes.append(f"{few} classes have fewer than {count} training images: all they have are drawn")
    return tuple(notes)
