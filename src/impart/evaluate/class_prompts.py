"""Classifier weights from class names: prompt ensembles (Radford et al. 2021, section 3.1.4)."""

from __future__ import annotations

from collections.abc import Sequence

from impart.encoders.base import Encoder, Float32
from impart.errors import ConfigError
from impart.evaluate.cache import EmbeddingCache
from impart.evaluate.embed import embed_texts
from impart.retrieval.prompts import ZEROSHOT_ENSEMBLE, ZEROSHOT_SINGLE, prompt_ensemble

__all__ = ["class_embeddings", "templates_of"]

_NAMED = {"ensemble": ZEROSHOT_ENSEMBLE, "single": ZEROSHOT_SINGLE}


def templates_of(
    prompts: str | Sequence[str], *, own: Sequence[str] | None = None, name: str = "given"
) -> tuple[str, ...]:
    """Return the prompts named `ensemble`, `single` or `set` (those written for the data set).

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
    templates: Sequence[str] = ZEROSHOT_ENSEMBLE,
    *,
    cache: EmbeddingCache | None = None,
) -> Float32:
    """Average the normalised embeddings of each class in its prompts, and normalise: one classifier row per class.

    Returns:
        (C, D) float32, L2-normalised rows.
    """
    return prompt_ensemble(names, lambda texts: embed_texts(encoder, texts, cache=cache), prompts=templates)
