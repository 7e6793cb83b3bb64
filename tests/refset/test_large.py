"""Sets above the size from which vectors stay on disk: the same blends, and what their folder has."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from helpers.tiny_encoder import TinyEncoder
from impart.blending.encoder import AugmentedEncoder
from impart.blending.tune import tune
from impart.blending.vanilla import Vanilla
from impart.config import VanillaSettings
from impart.encoders.base import ImageEmbeddings, l2_normalise
from impart.errors import ReferenceSetError
from impart.refset import refset, storage
from impart.refset.refset import ReferenceSet
from impart.retrieval import nearest
from impart.retrieval.rows import StoredRows

COUNT = 3000


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets of 2,000 pairs are large, and their rows are in several batches."""
    monkeypatch.setattr(refset, "ANN_ABOVE", 2000)
    monkeypatch.setattr(nearest, "ANN_ABOVE", 2000)
    monkeypatch.setattr(nearest, "EXACT_BELOW", 2000)
    monkeypatch.setattr(storage, "BATCH", 700)


def made(encoder: TinyEncoder, count: int = COUNT) -> ReferenceSet:
    rng = np.random.default_rng(0)
    traits = encoder.traits
    centres = rng.standard_normal((60, traits.retrieval_dim))
    retrieval = centres[np.arange(count) % 60] + 0.3 * rng.standard_normal((count, traits.retrieval_dim))
    return ReferenceSet.from_arrays(
        [f"text {i % 60}" for i in range(count)],
        image=l2_normalise(rng.standard_normal((count, traits.dim))),
        text=l2_normalise(rng.standard_normal((count, traits.dim))),
        retrieval=l2_normalise(retrieval),
        encoder_id=traits.id,
        encoder_fingerprint=encoder.fingerprint,
        meta={"hash": [f"{i // 2:064x}" for i in range(count)]},
    )


def questions(encoder: TinyEncoder, references: ReferenceSet) -> ImageEmbeddings:
    rng = np.random.default_rng(1)
    near = references.retrieval_embeddings[::50] + 0.1 * rng.standard_normal((60, encoder.traits.retrieval_dim))
    return ImageEmbeddings(l2_normalise(rng.standard_normal((60, encoder.traits.dim))), l2_normalise(near))


SETTINGS = VanillaSettings(k=4, w_img=0.3, w_txt=0.5, tau=0.05, floor=0.5, ramp=1.0, target=0.4)


def test_a_large_set_on_disk_blends_as_a_small_one_in_memory(tiny: TinyEncoder, tmp_path: Path, request) -> None:
    small = made(tiny)
    asked = questions(tiny, small)
    want = AugmentedEncoder(tiny, small, Vanilla(SETTINGS))
    blend = want.blend(asked)
    request.getfixturevalue("large")
    folder = made(tiny)._indexed("auto").save(tmp_path / "set")
    opened = ReferenceSet.open(folder)
    assert opened.manifest.index["kind"] == "ivfpq"
    assert opened.manifest.index["recall"] > 0.95
    assert isinstance(opened.image_rows, StoredRows)
    found = AugmentedEncoder(tiny, opened, Vanilla(SETTINGS))
    again = found.blend(asked)
    assert (again.ids == blend.ids).mean() > 0.95
    same = (again.ids == blend.ids).all(axis=1)
    np.testing.assert_allclose(again.norm[same], blend.norm[same], atol=1e-5)
    np.testing.assert_allclose(found.apply(asked.embeddings, blend), want.apply(asked.embeddings, blend), atol=1e-6)
    texts = l2_normalise(np.random.default_rng(2).standard_normal((3, tiny.traits.dim)))
    np.testing.assert_allclose(
        found.scores(texts, asked.embeddings, blend), want.scores(texts, asked.embeddings, blend), atol=1e-6
    )
    assert "image_embeddings" not in opened.__dict__
    assert "retrieval_embeddings" not in opened.__dict__


@pytest.mark.usefixtures("large")
def test_the_folder_keeps_index_and_statistics_of_a_large_set(tiny: TinyEncoder, tmp_path: Path) -> None:
    folder = made(tiny)._indexed("auto").save(tmp_path / "set")
    stored = json.loads((folder / "manifest.json").read_text())
    assert (stored["schema"], stored["own_znorm"]) == (2, True)
    opened = ReferenceSet.open(folder)
    assert opened.given_znorm is None
    assert opened.znorm.digest in stored["cohort"]
    assert len(opened.data["image"].chunks) == 5
    kept = {path.name for path in folder.iterdir() if not path.name.endswith(".checked")}
    assert len(kept) == 4, kept  # manifest, rows, index, statistics
    opened.save(folder)
    assert {path.name for path in folder.iterdir() if not path.name.endswith(".checked")} == kept
    few = opened.take(np.arange(100))
    assert (few.manifest.own_znorm, few.manifest.index["kind"], few.manifest.as_dict()["schema"]) == (False, "exact", 1)


@pytest.mark.usefixtures("large")
def test_a_large_set_of_version_1_is_read_with_its_own_index(tiny: TinyEncoder, tmp_path: Path) -> None:
    folder = made(tiny)._indexed("hnsw").save(tmp_path / "set")
    stored = json.loads((folder / "manifest.json").read_text())
    assert stored["schema"] == 1
    del stored["own_znorm"]
    stored["cohort"] = ""
    (folder / "manifest.json").write_text(json.dumps(stored))
    opened = ReferenceSet.open(folder)
    assert opened.index.kind == "hnsw"
    assert (opened.search(questions(tiny, opened).retrieval, 4).ids >= 0).all()


@pytest.mark.usefixtures("large")
def test_a_newer_version_is_refused(tiny: TinyEncoder, tmp_path: Path) -> None:
    folder = made(tiny)._indexed("auto").save(tmp_path / "set")
    stored = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(stored | {"schema": 4}))
    with pytest.raises(ReferenceSetError, match="schema 4, this version reads 1 to 3: update impart"):
        ReferenceSet.open(folder)


def test_images_and_tuning_are_the_same(tiny: TinyEncoder, tmp_path: Path, request) -> None:
    small = made(tiny)
    want = tune(small)
    numbers = small.image_numbers([f"{4:064x}", "unknown", ""])
    assert numbers.tolist() == [4, -1, -1]
    request.getfixturevalue("large")
    opened = ReferenceSet.open(made(tiny)._indexed("exact").save(tmp_path / "set"))
    np.testing.assert_array_equal(opened.images, np.arange(COUNT) // 2)
    assert list(opened.texts) == list(small.texts)
    assert (opened.texts[7], opened.texts[2:4]) == ("text 7", ["text 2", "text 3"])
    found = tune(opened)
    assert (found.settings, found.before, found.after) == (want.settings, want.before, want.after)
    assert opened.copy_bounds == small.copy_bounds
