"""The folder of a trained model: saved and loaded, damaged, and written by an earlier version."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from impart.errors import TrainingError  # noqa: E402
from impart.train.heads.checkpoint import load_heads  # noqa: E402

FORMER = Path(__file__).parent / "former_run"
"""Written by a version in which the mode was called `lit`, with its embeddings in `expected.npz`."""


def test_a_folder_of_the_modes_former_name_gives_the_same_embeddings():
    trained, expected = load_heads(FORMER), np.load(FORMER / "expected.npz")
    config = trained.config
    assert (config.mode, config.seed, config.data.validation_images, config.heads.top) == ("heads", 1, 7, 3)
    assert config.optimiser.rates == {"ram": 0.5}
    images = trained.model.encode_images(torch.from_numpy(expected["queries"]), trained.references())
    np.testing.assert_allclose(images, expected["images"], atol=1e-6)
    texts = trained.model.embed_texts(torch.from_numpy(expected["sentences"]))
    np.testing.assert_allclose(texts, expected["texts"], atol=1e-6)
    assert [row.text for row in trained.rows[:2]] == ["t0", "t1"]


def test_a_model_of_another_kind_is_refused(tmp_path):
    folder = shutil.copytree(FORMER / "model", tmp_path / "model")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "kind": "ram"}))
    with pytest.raises(TrainingError, match="kind 'ram', not of mode 'heads'"):
        load_heads(folder)
