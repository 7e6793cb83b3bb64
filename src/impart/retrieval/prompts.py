"""All prompts of the package, and the prompt ensemble.

    t' = normalise(sum over prompts p of t(p(text)))

Image-text models have learned captions, and captions begin and end in habitual ways. Radford et al. (ICML 2021, section
3.1.4) therefore average the embeddings of a class name over several prompts, and put `a photo of` before the captions
of their retrieval experiments.

Each constant is a tuple of prompts with `{}` for the text. Prompts that belong to one data set are in
`evaluate/datasets/names`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from impart.config import SearchSettings
from impart.encoders.base import Float32, l2_normalise
from impart.errors import ConfigError

__all__ = [
    "CLASS_PROMPTS",
    "EPISODE_PROMPTS",
    "RECIPE_PROMPTS",
    "SEARCH_PROMPTS",
    "ZEROSHOT_ENSEMBLE",
    "ZEROSHOT_SINGLE",
    "fill_prompt",
    "fill_sentence",
    "prompt_ensemble",
    "query_embeddings",
]

SEARCH_PROMPTS = SearchSettings.prompts
"""Search: chosen on Flickr8k `val` with `mini`, +0.8 (± 0.5) points of mean reciprocal rank over the plain text."""

CLASS_PROMPTS = ("{}", "a photo of a {}", "a picture of the {}", "a close-up of a {}", "a drawing of a {}")
"""Class names of a reference set (`impart refset build --class-prompts`): CLIP's ensemble, shortened."""

ZEROSHOT_SINGLE = ("a photo of a {}.",)
"""Zero-shot evaluation with `--prompts single`: the prompt of the CLIP paper."""

ZEROSHOT_ENSEMBLE = (
    "a photo of a {}.",
    "a blurry photo of a {}.",
    "a close-up photo of a {}.",
    "a picture of the {}.",
    "a small photo of a {}.",
    "a bright photo of one {}.",
    "{}",
)
"""Zero-shot evaluation with `--prompts ensemble`: several sizes and distances, and the plain name."""

EPISODE_PROMPTS = ("{}", "a photo of {}.")
"""Concepts in training mode `episodes`: references have the first prompt, candidates the mean."""

RECIPE_PROMPTS = ("a photo of {}", "{}", "a picture of {}", "a blurry photo of {}", "a small photo of {}")
"""Class names, with their article, that the bundled model is trained on."""


def fill_prompt(prompt: str, text: str) -> str:
    """Put a text into a prompt, unchanged.

    >>> fill_prompt("a photo of a {}.", "dog")
    'a photo of a dog.'
    """
    return prompt.replace("{}", text)


def fill_sentence(prompt: str, text: str) -> str:
    """Put a sentence into a prompt without its full stop; the prompt `{}` leaves the sentence unchanged.

    >>> fill_sentence("a photo of {}.", "A dog runs."), fill_sentence("{}", "A dog runs.")
    ('a photo of A dog runs.', 'A dog runs.')
    """
    return text if prompt == "{}" else fill_prompt(prompt, text.strip().rstrip(" ."))


def prompt_ensemble(
    texts: Sequence[str],
    encode: Callable[[list[str]], Float32],
    *,
    prompts: Sequence[str],
    fill: Callable[[str, str], str] = fill_prompt,
) -> Float32:
    """Embed each text as the normalised mean of its embeddings in P prompts.

    Args:
        texts: T class names or sentences.
        encode: texts to unit vectors (n, D), such as `Encoder.encode_texts`.
        prompts: P prompts, at least one.
        fill: puts a text into a prompt.

    Returns:
        (T, D) float32, L2-normalised.

    Raises:
        ConfigError: the prompts are one text, none, or lack the place of the text.
    """
    if isinstance(prompts, str) or not prompts or any(prompt.count("{}") != 1 for prompt in prompts):
        raise ConfigError(
            f"prompts are {prompts!r}: give a list of texts, each with one {{}}, such as ['a photo of {{}}']"
        )
    embedded = encode([fill(prompt, text) for text in texts for prompt in prompts])  # (T * P, D)
    return l2_normalise(embedded.reshape(len(texts), len(prompts), embedded.shape[-1]).mean(axis=1))


def query_embeddings(
    texts: Sequence[str], encode: Callable[[list[str]], Float32], *, prompts: Sequence[str] = SEARCH_PROMPTS
) -> Float32:
    """Embed the texts of a search: (T, D), L2-normalised; see `prompt_ensemble`."""
    return prompt_ensemble(texts, encode, prompts=prompts, fill=fill_sentence)
