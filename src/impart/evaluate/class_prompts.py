"""Classifier weights from class names: prompt ensembles (Radford et al. 2021, section 3.1.4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from impart.encoders.base import Encoder, Float32, l2_normalise
from impart.errors import ConfigError
from impart.evaluate.cache import EmbeddingCache
from impart.evaluate.embed import embed_texts

__all__ = ["ENSEMBLE", "SINGLE", "class_embeddings", "templates_of", "tidy_class_name"]

SINGLE: tuple[str, ...] = ("a photo of a {}.",)
"""The single prompt of the CLIP paper."""

ENSEMBLE: tuple[str, ...] = (
    "a photo of a {}.",
    "a blurry photo of a {}.",
    "a close-up photo of a {}.",
    "a picture of the {}.",
    "a small photo of a {}.",
    "a bright photo of one {}.",
    "{}",
)
"""Seven prompts, averaged: sizes, distances and the bare name."""

_NAMED = {"ensemble": ENSEMBLE, "single": SINGLE}


def tidy_class_name(folder: str) -> str:
    """Convert a folder name to words.

    >>> tidy_class_name("ceiling_fan")
    'ceiling fan'
    """
    return " ".join(folder.replace("_", " ").split())


def templates_of(
    prompts: str | Sequence[str], *, own: Sequence[str] | None = None, name: str = "given"
) -> tuple[str, ...]:
    """Return the prompts named `ensemble` (`ENSEMBLE`), `single` (`SINGLE`) or `set` (those of the data set).

    Args:
        prompts: one of these names, or templates with `{}` for the class name.
        own: prompts of the data set, if it has some.
        name: of the data set, for messages.

    Raises:
        ConfigError: the name is unknown, the set has no templates of its own, or a template lacks `{}`.
    """
    if not isinstance(prompts, str):
        templates = tuple(prompts)
    elif prompts == "set":
        if own is None:
            raise ConfigError(f"data set {name!r} has no prompts of its own: use prompts 'ensemble' or 'single'")
        templates = tuple(own)
    elif prompts in _NAMED:
        templates = _NAMED[prompts]
    else:
        raise ConfigError(f"unknown prompts {prompts!r}: there are {', '.join(_NAMED)} and set")
    lacking = [template for template in templates if "{}" not in template]
    if lacking or not templates:
        raise ConfigError(f"prompt {lacking[0]!r} has no {{}} for the class name" if lacking else "no prompt is given")
    return templates


def class_embeddings(
    encoder: Encoder,
    names: Sequence[str],
    templates: Sequence[str] = ENSEMBLE,
    *,
    cache: EmbeddingCache | None = None,
) -> Float32:
    """Average the normalised embeddings of each class in its prompts, and normalise: one classifier row per class.

    Returns:
        (C, D) float32, L2-normalised rows.
    """
    assert templates, "at least one template"
    texts = [template.replace("{}", name) for name in names for template in templates]
    embedded = embed_texts(encoder, texts, cache=cache)  # (C * P, D)
    grouped = embedded.reshape(len(names), len(templates), -1)  # (C, P, D)
    return l2_normalise(np.mean(grouped, axis=1))
