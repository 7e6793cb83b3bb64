"""A video index with a solved reference set in force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.clips import solid, write_clip
from helpers.tiny_encoder import TinyEncoder
from impart.blending.encoder import AugmentedEncoder, augment
from impart.blending.solved.blender import with_solved_weights
from impart.config import SolvedSettings
from impart.encoders.base import ImageEmbeddings
from impart.errors import ImpartWarning
from impart.refset.refset import ReferenceSet
from impart.retrieval.prompts import query_embeddings
from impart.video.index.doctor.check import check_index
from impart.video.index.index import VideoIndex
from impart.video.index.store import SEGMENTS, Store
from impart.video.search.state.load import load_snapshot

SETTINGS = SolvedSettings(k=3, power=0, beta=4, alpha=60)
OTHER = SolvedSettings(k=2, power=0, beta=1, alpha=20)
COLOURS = ("red", "green", "blue", "orange")


@pytest.fixture
def references() -> ReferenceSet:
    pairs = [(solid(colour), f"a {colour} wall") for colour in COLOURS]
    return ReferenceSet.build(pairs, TinyEncoder(), source="paint")


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    write_clip(folder / "a.mp4", colours=["red"])
    write_clip(folder / "b.mp4", colours=["blue", "orange"])
    return folder


@pytest.fixture
def index(films: Path, references: ReferenceSet, tmp_path: Path) -> VideoIndex:
    made = VideoIndex.open(tmp_path / "index", TinyEncoder())
    list(made.add([films]))
    made.use_references(with_solved_weights(references, SETTINGS))
    return made


def scores(index: VideoIndex, augmented: AugmentedEncoder, text: str) -> list[float]:
    """Cosines of all segments, encoded with the augmented encoder from their stored vectors."""
    rows = Store(index.path).read(SEGMENTS).to_pylist()
    vectors, retrieval = (np.array([row[name] for row in rows], np.float32) for name in ("vector", "retrieval"))
    blend = augmented.blend(ImageEmbeddings(vectors, retrieval))
    query = query_embeddings([text], augmented.encode_texts)[0]
    return sorted((augmented.apply(vectors, blend) @ query).tolist())


def test_scores_equal_those_of_the_augmented_encoder(index: VideoIndex, references: ReferenceSet) -> None:
    augmented = augment(TinyEncoder(), with_solved_weights(references, SETTINGS))
    fresh = VideoIndex.open(index.path, TinyEncoder(), create=False)
    found = fresh.search(text="a blue wall", group="frame", why=True, top=50)
    assert sorted(hit.score for hit in found) == pytest.approx(scores(index, augmented, "a blue wall"), abs=1e-3)
    assert fresh.stats().blending == SETTINGS
    assert 2 <= len(found[0].why) <= 3
    assert found[0].why[0].text == "a blue wall"
    assert found[0].why[0].source == "paint"
    assert found[0].why[0].weight_txt > 0
    assert min(reason.weight_txt for hit in found for reason in hit.why) < 0
    assert all(reason.weight_img == 0 for hit in found for reason in hit.why)


def test_a_set_that_is_tuned_again_replaces_its_copy(index: VideoIndex, references: ReferenceSet) -> None:
    solved = with_solved_weights(references, OTHER)
    index.use_references(solved)
    fresh = VideoIndex.open(index.path, TinyEncoder(), create=False)
    found = fresh.search(text="a blue wall", group="frame", top=50)
    expected = scores(index, augment(TinyEncoder(), solved), "a blue wall")
    assert sorted(hit.score for hit in found) == pytest.approx(expected, abs=1e-3)
    copy = next((index.path / "references").iterdir())
    assert ReferenceSet.open(copy).manifest.solved == solved.manifest.solved
    index.use_references(None)
    assert fresh.search(text="a blue wall", group="frame", why=True)[0].why == ()


def test_new_videos_are_blended_from_the_copy(index: VideoIndex, films: Path, references: ReferenceSet) -> None:
    write_clip(films / "c.mp4", colours=["green"])
    fresh = VideoIndex.open(index.path, TinyEncoder(), create=False)
    list(fresh.add([films]))
    found = fresh.search(text="a green wall", group="frame", top=50)
    augmented = augment(TinyEncoder(), with_solved_weights(references, SETTINGS))
    assert sorted(hit.score for hit in found) == pytest.approx(scores(index, augmented, "a green wall"), abs=1e-3)


def test_a_damaged_copy_costs_a_warning_and_no_result(index: VideoIndex) -> None:
    (weights,) = (index.path / "references").glob("*/solved-*.npy")
    whole = [hit.score for hit in index.search(image=solid("red"), group="frame")]
    weights.write_bytes(b"no array")
    fresh = VideoIndex.open(index.path, TinyEncoder(), create=False)
    assert fresh.search(text="a red wall")[0].path.name == "a.mp4"
    with pytest.warns(ImpartWarning, match="solved again from the rows"):
        assert [hit.score for hit in fresh.search(image=solid("red"), group="frame")] == whole
    (damage,) = check_index(index.path).damage
    assert damage.file == weights
    index.use_references(fresh_set(index, weights.parent))
    assert not check_index(index.path).damage


def fresh_set(index: VideoIndex, folder: Path) -> ReferenceSet:
    """The set of the copy with whole weights."""
    augmentation = index.manifest.augmentation
    assert augmentation is not None
    assert isinstance(augmentation.settings, SolvedSettings)
    return with_solved_weights(ReferenceSet.open(folder), augmentation.settings)


def test_the_snapshot_keeps_what_is_added(index: VideoIndex) -> None:
    blend = load_snapshot(Store(index.path)).blend
    assert blend is not None
    assert blend.added is not None
    assert blend.added.shape == (len(blend), TinyEncoder().traits.dim)
