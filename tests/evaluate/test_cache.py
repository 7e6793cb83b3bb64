"""Cache of embeddings: what does not fit is made anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers.sets_of_colours import coloured
from helpers.tiny_encoder import TinyEncoder
from impart.evaluate.cache import Arrays, EmbeddingCache
from impart.evaluate.embed import embed_images, embed_texts

NAMES = ["red", "blue", "broken", "green"]

ODD: dict[str, Callable[[Arrays], None]] = {
    "another width": lambda stored: stored.update(embeddings=np.zeros((3, 5), np.float32)),
    "another width of the retrieval": lambda stored: stored.update(retrieval=np.zeros((3, 99), np.float32)),
    "another length": lambda stored: stored.update(embeddings=stored["embeddings"][:2]),
    "one dimension": lambda stored: stored.update(embeddings=np.zeros(3, np.float32)),
    "no dimension": lambda stored: stored.update(hashes=np.array("red")),
    "texts": lambda stored: stored.update(embeddings=np.full(stored["embeddings"].shape, "x")),
    "nan": lambda stored: stored["embeddings"].fill(np.nan),
    "other rows": lambda stored: stored.update(kept=stored["kept"] + 50),
    "fractions as rows": lambda stored: stored.update(kept=stored["kept"] + 0.5),
    "a missing array": lambda stored: stored.pop("kept"),
}


@pytest.mark.parametrize("name", ODD)
def test_images_whose_arrays_do_not_fit_are_encoded_again(tiny: TinyEncoder, tmp_path: Path, name: str) -> None:
    cache = EmbeddingCache(tmp_path)
    want = embed_images(tiny, coloured(NAMES), cache=cache)
    (path,) = tmp_path.rglob("*.npz")
    with np.load(path) as opened:
        stored = dict(opened)
    ODD[name](stored)
    np.savez(path, **stored)
    for _ in range(2):  # made anew, and stored
        again = embed_images(tiny, coloured(NAMES), cache=cache)
        np.testing.assert_array_equal(again.embeddings, want.embeddings)
        np.testing.assert_array_equal(again.kept, [0, 1, 3])
    assert tiny.images_encoded == 6


@pytest.mark.parametrize("odd", [np.zeros((2, 3)), np.zeros((1, 16)), np.zeros(2), np.full((2, 16), np.inf)])
def test_texts_whose_array_does_not_fit_are_encoded_again(tiny: TinyEncoder, tmp_path: Path, odd: np.ndarray) -> None:
    cache = EmbeddingCache(tmp_path)
    want = embed_texts(tiny, ["red", "blue"], cache=cache)
    (path,) = tmp_path.rglob("*.npz")
    np.savez(path, texts=odd)
    np.testing.assert_array_equal(embed_texts(tiny, ["red", "blue"], cache=cache), want)


def test_a_file_that_is_no_archive_is_made_again(tiny: TinyEncoder, tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path)
    want = embed_images(tiny, coloured(NAMES), cache=cache)
    (path,) = tmp_path.rglob("*.npz")
    for content in (b"", b"no archive", path.read_bytes()[:200]):
        path.write_bytes(content)
        again = embed_images(tiny, coloured(NAMES), cache=cache)
        np.testing.assert_array_equal(again.embeddings, want.embeddings)
