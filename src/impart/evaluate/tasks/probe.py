"""Linear probe: scikit-learn's L-BFGS logistic regression on embeddings made once (Radford et al. 2021, section 3.2).

The figure depends on the strength of the regularisation. A probe without a sweep of C is too low, by up to 5 points in
published comparisons, and by a different amount per encoder. So C is chosen on a validation split (given, or a fifth of
the training images per class) from a logarithmic grid of 1e-6 to 1e6: first every second decade, then smaller steps
around the best, down to an eighth of a decade as CLIP did. The probe is then fitted on training and validation images
together.

Embeddings are centred and divided by one number, so that their mean variance over the training images is 1. The
intercept is not regularised, so only the unit of C changes. The fit converges in far fewer steps, and C has the same
meaning for encoders of any width.
"""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from impart.config import Features
from impart.encoders.base import Encoder, Float32
from impart.errors import ConfigError, DataError, MissingExtraError
from impart.evaluate.cache import EmbeddingCache
from impart.evaluate.datasets.types import ClassSet
from impart.evaluate.embed import Progress, embed_images
from impart.evaluate.result import Result
from impart.metrics import bootstrap, classification

__all__ = ["Features", "linear_probe"]

Ints = npt.NDArray[np.int64]

COARSE = tuple(float(power) for power in range(-6, 7, 2))
"""Powers of ten of the first sweep."""
STEPS = (1.0, 0.5, 0.25, 0.125)
"""Steps of the sweeps around the best, in decades."""
VALIDATION_SHARE = 0.2
_SWEEP_ITERATIONS = 200
_FINAL_ITERATIONS = 1000


def linear_probe(
    encoder: Encoder,
    train: ClassSet,
    test: ClassSet,
    *,
    val: ClassSet | None = None,
    features: Features = "embedding",
    seed: int = 0,
    cache: EmbeddingCache | None = None,
    label: str | None = None,
    batch: int = 32,
    on_progress: Progress | None = None,
) -> Result:
    """Train a linear classifier on embeddings and measure it on other images.

    Args:
        encoder: plain or augmented; the tower itself is not trained.
        train: training images.
        test: test images, with the same classes.
        val: images to choose C on; None = a fifth of `train`, drawn per class.
        features: `embedding` (v, or v' of an augmented encoder), `retrieval` (the retrieval embedding of the base), or
            `both`, concatenated.
        seed: of the validation split.
        cache: of embeddings; None = no cache.
        label: the encoder's name in reports; None = its id.
        batch: images per forward pass.
        on_progress: called after each part of the images of each set.

    Returns:
        `top-1`, `top-5`, `mean per class`; the array `confusion`, and `sweep` (fits, 2): C and validation top-1.

    Raises:
        DataError: the classes differ, a set cannot be read, `train` has too few images for a validation split or
            only one class, or two of the sets are mostly the same images.
        ConfigError: `features` is unknown.
        MissingExtraError: scikit-learn is not installed.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> import impart
        >>> folder = Path(tempfile.mkdtemp())
        >>> for number in range(6):
        ...     for name, colour in (("red", (255 - 9 * number, 0, 0)), ("blue", (0, 0, 255 - 9 * number))):
        ...         place = folder / ("test" if number % 3 == 0 else "train") / name
        ...         place.mkdir(parents=True, exist_ok=True)
        ...         Image.new("RGB", (64, 64), colour).save(place / f"{number}.png")
        >>> train, test = (impart.evaluate.open_set(folder / part, kind="classes") for part in ("train", "test"))
        >>> impart.evaluate.linear_probe(impart.load_encoder("mini"), train, test).figures["top-1"]
        1.0
    """
    for other in (test, val):
        if other is not None and other.classes != train.classes:
            raise DataError(
                f"{train.name!r} has {len(train.classes)} classes, {other.name!r} {len(other.classes)}, and they are "
                "not the same classes in the same order: test a probe on the classes of its training images"
            )
    if features not in ("embedding", "retrieval", "both"):
        raise ConfigError(f"unknown features {features!r}: use embedding, retrieval or both")
    _regression(1)  # raises before the embedding if scikit-learn is missing
    notes: list[str] = []
    sets = [train, test] if val is None else [train, test, val]
    opened = [
        _Part.of(encoder, one, features=features, cache=cache, batch=batch, on_progress=on_progress, notes=notes)
        for one in sets
    ]
    trained, tested = opened[0], opened[1]
    for i, j in itertools.combinations(range(len(sets)), 2):
        notes += _shared(opened[i], opened[j], names=(sets[i].name, sets[j].name))
    if len(np.unique(trained.labels)) < 2:
        raise DataError(f"{train.name!r} has images of one class only: give two classes or more")
    if val is None:
        chosen_on = np.zeros(len(trained), dtype=bool)
        chosen_on[_validation_rows(trained.labels, name=train.name, seed=seed)] = True
        fitted, validation = trained.only(~chosen_on), trained.only(chosen_on)
    else:
        fitted, validation = trained, opened[2]
    sweep, unfinished = _sweep(fitted, validation, classes=len(train.classes))
    best = max(sweep, key=lambda power: (sweep[power], -power))  # of equals the smaller C
    scores, converged, iterations = _final(_joined(fitted, validation), tested, best, classes=len(train.classes))
    if not converged:
        notes.append(f"the final fit stopped at {iterations} steps and has not converged")
    if unfinished:
        notes.append(f"{unfinished} of {len(sweep)} fits of the sweep stopped at {_SWEEP_ITERATIONS} steps")
    right = {f"top-{k}": classification.top_k(scores, tested.labels, k=k) for k in (1, 5)}
    drawn = bootstrap.draws(len(tested))
    return Result(
        task="linear probe",
        dataset=test.name,
        encoder=label or encoder.traits.id,
        figures={
            **{name: float(values.mean()) for name, values in right.items()},
            "mean per class": classification.mean_per_class(right["top-1"], tested.labels),
        },
        items=tested.keys,
        per_item={name: values.astype(np.float64) for name, values in right.items()},
        resampled={"mean per class": bootstrap.class_means(right["top-1"], tested.labels, drawn)},
        counts={
            "images": len(tested),
            "classes": len(train.classes),
            "training images": len(fitted) + len(validation),
            "validation images": len(validation),
            "unreadable": sum(part.unreadable for part in opened),
        },
        settings={
            "trained on": train.name,
            "features": features,
            "C": float(10**best),
            "C chosen on": val.name if val is not None else f"{VALIDATION_SHARE:.0%} of the training images",
            "validation top-1": sweep[best],
            "seed": seed,
            "steps of the final fit": iterations,
        },
        notes=(*train.notes, *test.notes, *notes),
        arrays={
            "confusion": classification.confusion(scores, tested.labels),
            "sweep": np.array([(10**power, sweep[power]) for power in sorted(sweep)]),
        },
        labels=train.classes,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Part:
    """Features (n, D) and labels (n,) of the readable images of a set."""

    features: Float32
    labels: Ints
    keys: tuple[str, ...]
    hashes: tuple[str, ...] = ()
    unreadable: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def of(
        cls,
        encoder: Encoder,
        dataset: ClassSet,
        *,
        features: Features,
        cache: EmbeddingCache | None,
        batch: int,
        on_progress: Progress | None,
        notes: list[str],
    ) -> _Part:
        embedded = embed_images(encoder, dataset.images, cache=cache, batch=batch, on_progress=on_progress)
        notes += [f"left out: {reason}" for reason in embedded.unreadable]
        chosen = {
            "embedding": [embedded.embeddings],
            "retrieval": [embedded.retrieval],
            "both": [embedded.embeddings, embedded.retrieval],
        }[features]
        return cls(
            features=np.concatenate(chosen, axis=1),
            labels=dataset.labels[embedded.kept],
            keys=tuple(dataset.images.keys[number] for number in embedded.kept),
            hashes=embedded.hashes,
            unreadable=len(embedded.unreadable),
        )

    def only(self, rows: npt.NDArray[np.bool_]) -> _Part:
        keys = tuple(key for key, use in zip(self.keys, rows, strict=True) if use)
        return _Part(features=self.features[rows], labels=self.labels[rows], keys=keys)


def _shared(one: _Part, other: _Part, *, names: tuple[str, str]) -> list[str]:
    """Note the images that two sets share, as some published sets do; raise if they are mostly the same set."""
    count = len(set(one.hashes) & set(other.hashes))
    if 2 * count > min(len(set(one.hashes)), len(set(other.hashes))):
        raise DataError(
            f"{count} images of {names[0]!r} are in {names[1]!r} too: give different images for training, validation "
            "and test (--train-split, --val-split, --split)"
        )
    return [f"{count} images of {names[0]!r} are in {names[1]!r} too: kept"] if count else []


def _joined(one: _Part, other: _Part) -> _Part:
    return _Part(
        features=np.concatenate([one.features, other.features]),
        labels=np.concatenate([one.labels, other.labels]),
        keys=one.keys + other.keys,
    )


def _validation_rows(labels: Ints, *, name: str, seed: int) -> Ints:
    """Draw a fifth of each class, at least one image if the class has two."""
    rng = np.random.default_rng(seed)
    rows: list[int] = []
    for number in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == number))
        rows += own[: max(1, round(VALIDATION_SHARE * len(own))) if len(own) > 1 else 0].tolist()
    if not rows:
        raise DataError(f"{name!r} has one image per class, none to choose C on: give a validation set")
    return np.sort(np.array(rows, dtype=np.int64))


def _sweep(train: _Part, validation: _Part, *, classes: int) -> tuple[dict[float, float], int]:
    """Compute validation top-1 per power of ten, and count the fits that did not converge."""
    prepare = _scaler(train)
    found: dict[float, float] = {}
    unfinished = 0

    def fit_all(powers: list[float]) -> None:
        nonlocal unfinished
        model = _regression(_SWEEP_ITERATIONS)  # warm start: each fit begins at the result for the last, smaller C
        for power in sorted(powers):
            converged = _fit(model, prepare(train.features), train.labels, power)
            scores = _scores(model, prepare(validation.features), classes=classes)
            found[power] = float(classification.top_k(scores, validation.labels, k=1).mean())
            unfinished += not converged

    fit_all(list(COARSE))
    for step in STEPS:
        best = max(found, key=lambda power: (found[power], -power))
        around = [power for power in (best - step, best + step) if COARSE[0] <= power <= COARSE[-1]]
        fit_all([power for power in around if power not in found])
    return found, unfinished


def _final(train: _Part, test: _Part, power: float, *, classes: int) -> tuple[Float32, bool, int]:
    """Return scores (n, C) of the test images, whether the fit converged, and its steps."""
    prepare = _scaler(train)
    model = _regression(_FINAL_ITERATIONS)
    converged = _fit(model, prepare(train.features), train.labels, power)
    return _scores(model, prepare(test.features), classes=classes), converged, int(np.max(model.n_iter_))


def _scaler(train: _Part) -> Any:
    mean = train.features.mean(axis=0, keepdims=True)
    spread = max(float(np.sqrt(((train.features - mean) ** 2).mean())), 1e-12)
    return lambda features: (features - mean) / spread


def _regression(iterations: int) -> Any:
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MissingExtraError("scikit-learn", extra="eval", purpose="the linear probe") from error
    return LogisticRegression(solver="lbfgs", max_iter=iterations, warm_start=True)


def _fit(model: Any, features: Float32, labels: Ints, power: float) -> bool:
    """Fit with C = 10^power, and return whether it converged."""
    from sklearn.exceptions import ConvergenceWarning

    model.set_params(C=float(10**power))
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        model.fit(features, labels)
    return not any(issubclass(warning.category, ConvergenceWarning) for warning in raised)


def _scores(model: Any, features: Float32, *, classes: int) -> Float32:
    """Return scores (n, C); -inf for classes without training images."""
    known = features @ model.coef_.T + model.intercept_  # (n, classes trained), or (n, 1) of two
    if known.shape[1] == 1:
        known = np.concatenate([np.zeros_like(known), known], axis=1)
    scores = np.full((len(features), classes), -np.inf, dtype=np.float32)
    scores[:, model.classes_] = known
    return scores
