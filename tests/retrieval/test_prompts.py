"""The prompt ensemble against a naive loop, and how texts are put into prompts."""

from __future__ import annotations

import numpy as np
import pytest

from impart.encoders.base import l2_normalise
from impart.errors import ConfigError
from impart.retrieval import prompts
from impart.retrieval.prompts import CLASS_PROMPTS, SEARCH_PROMPTS, prompt_ensemble, query_embeddings


def encode(texts: list[str]) -> np.ndarray:
    """(T, 12) random unit vectors, equal for equal texts."""
    rows = [np.random.default_rng(list(text.encode())).standard_normal(12) for text in texts]
    return l2_normalise(np.array(rows).reshape(len(texts), 12))


def test_an_ensemble_is_the_normalised_mean_over_the_prompts() -> None:
    names = ["dog", "tennis ball", "U.S. flag."]
    for name, row in zip(names, prompt_ensemble(names, encode, prompts=CLASS_PROMPTS), strict=True):
        mean = np.mean([encode([prompt.replace("{}", name)])[0] for prompt in CLASS_PROMPTS], axis=0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-6)
    assert prompt_ensemble([], encode, prompts=CLASS_PROMPTS).shape == (0, 12)


def test_a_query_has_one_full_stop_in_every_prompt() -> None:
    asked: list[str] = []

    def noted(texts: list[str]) -> np.ndarray:
        asked.extend(texts)
        return encode(texts)

    query_embeddings(["A dog runs. "], noted)
    assert asked == [prompt.replace("{}", "A dog runs") for prompt in SEARCH_PROMPTS]
    asked.clear()
    query_embeddings(["A dog runs. "], noted, prompts=["{}"])
    assert asked == ["A dog runs. "]


@pytest.mark.parametrize("name", [name for name in prompts.__all__ if name.isupper()])
def test_every_prompt_has_one_place_for_the_text(name: str) -> None:
    assert all(prompt.count("{}") == 1 for prompt in getattr(prompts, name))


@pytest.mark.parametrize("odd", ["a photo of {}", [], ["a photo"], ["{} and {}"], ["{}", "a photo"]])
def test_prompts_without_the_place_of_the_text_are_refused(odd: object) -> None:
    with pytest.raises(ConfigError, match="give a list of texts"):
        prompt_ensemble(["dog"], lambda texts: np.eye(len(texts), dtype=np.float32), prompts=odd)  # type: ignore[arg-type]
