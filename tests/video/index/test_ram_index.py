"""A video index with a trained RAM in force."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers.caches import is_cached
from helpers.clips import solid, write_clip
from helpers.tiny_encoder import TinyEncoder
from helpers.tiny_ram import onnx_colours
from impart.blending.ram_checkpoint import open_checkpoint, open_ram
from impart.blending.ram_onnx import LearnedRam
from impart.config import IndexSettings, RamSettings, Settings
from impart.encoders.base import ImageEmbeddings, l2_normalise
from impart.errors import EncoderMismatchError, VideoIndexError
from impart.retrieval.prompts import query_embeddings
from impart.video.index.index import VideoIndex
from impart.video.index.store import SEGMENTS, Store
from impart.video.search.state.load import load_snapshot


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    write_clip(folder / "a.mp4", colours=["red"])
    write_clip(folder / "b.mp4", colours=["blue", "orange"])
    return folder


@pytest.fixture
def index(films: Path, checkpoint: Path, tmp_path: Path) -> VideoIndex:
    made = VideoIndex.open(tmp_path / "index", open_checkpoint(checkpoint))
    list(made.add([films]))
    return made


def expected(index: VideoIndex, checkpoint: Path) -> np.ndarray:
    """v' (n, D) of all segments, from their stored vectors, in the order of the snapshot."""
    snapshot, rows = load_snapshot(index._store), index._store.read(SEGMENTS).to_pylist()
    ordered = {(row["video_id"], row["number"]): row for row in rows}
    keys = [(snapshot.video_ids[v], i - snapshot.offsets[v]) for i, v in enumerate(snapshot.video_of)]
    vectors, retrieval = (
        np.array([ordered[key][name] for key in keys], np.float32) for name in ("vector", "retrieval")
    )
    encoder = open_checkpoint(checkpoint)
    return encoder.apply(vectors, encoder.blend(ImageEmbeddings(vectors, retrieval)))


@pytest.mark.parametrize("cached", [True, False])
def test_scores_are_those_of_v_prime(index: VideoIndex, checkpoint: Path, cached: bool) -> None:
    assert is_cached(index)
    if not cached:
        shutil.rmtree(index.path / "cache")
    fresh = VideoIndex.open(index.path, create=False)
    augmented, (text,) = expected(index, checkpoint), query_embeddings(["a blue square"], fresh.encoder.encode_texts)
    snapshot = load_snapshot(index._store)
    frames = fresh.search(text="a blue square", group="frame", why=True)
    assert sorted(hit.score for hit in frames) == pytest.approx(sorted(augmented @ text), abs=1e-3)
    want = [
        l2_normalise(snapshot.weight[first:stop] @ augmented[first:stop]) @ text
        for first, stop in zip(snapshot.offsets[:-1], snapshot.offsets[1:], strict=True)
    ]
    videos = fresh.search(text="a blue square", by="mean")
    assert sorted(hit.score for hit in videos) == pytest.approx(sorted(want), abs=1e-3)
    plain = fresh.search(text="a blue square", by="mean", augment=False)
    assert abs(plain[0].score - videos[0].score) > 0.01
    reasons = frames[0].why
    assert {reason.text for reason in reasons} <= {"red", "green", "blue"}
    assert all(reason.weight_img or reason.weight_txt for reason in reasons)
    assert reasons[0].source == "paint"


def test_what_is_added_is_kept_in_the_index_precision(films: Path, checkpoint: Path, tmp_path: Path) -> None:
    for precision in ("float16", "float32"):
        settings = Settings(index=IndexSettings(precision=precision))
        index = VideoIndex.open(tmp_path / precision, open_checkpoint(checkpoint), settings=settings)
        list(index.add([films]))
        blend = load_snapshot(index._store).blend
        assert blend is not None
        assert blend.added is not None
        assert blend.added.dtype == precision


def test_the_index_does_not_need_the_checkpoint(index: VideoIndex, films: Path, checkpoint: Path) -> None:
    (checkpoint / "ram.onnx").unlink()
    fresh = VideoIndex.open(index.path, create=False)
    assert fresh.search(image=solid("red"))[0].path.name == "a.mp4"
    write_clip(films / "c.mp4", colours=["green"])
    shutil.copy(films / "a.mp4", films / "d.mp4")
    list(fresh.add([films]))
    assert sum(1 + len(hit.also_at) for hit in fresh.search(text="a green square")) == 4  # d.mp4 is a copy of a.mp4
    assert fresh.stats().blending == fresh.encoder.blender.settings
    assert isinstance(fresh.stats().blending, RamSettings)


def test_switching_to_a_ram_equals_indexing_with_it(
    index: VideoIndex, films: Path, checkpoint: Path, tmp_path: Path
) -> None:
    trained = open_checkpoint(checkpoint)
    other = VideoIndex.open(tmp_path / "other", trained.base)
    list(other.add([films]))
    plain = other.search(text="a red square")
    other.use_references(trained.references, ram=open_ram(checkpoint))
    scores: Callable[[VideoIndex], list[float]] = lambda one: [hit.score for hit in one.search(text="a red square")]  # noqa: E731
    assert scores(other) == pytest.approx(scores(index), abs=1e-6)
    assert len(list((other.path / "rams").iterdir())) == 1
    other.use_references(onnx_colours(trained.base, ("green",)), ram=open_ram(checkpoint))  # the RAM, another set
    assert len(list((other.path / "rams").iterdir())) == 1
    assert scores(other) != pytest.approx(scores(index), abs=1e-3)
    other.use_references(trained.references)  # the set, no RAM
    assert not list((other.path / "rams").iterdir())
    other.use_references(None)
    assert scores(other) == [hit.score for hit in plain]
    assert not [name for name in Store(other.path).table_names() if name.startswith("neighbours")]


def test_a_ram_of_another_encoder_is_refused(index: VideoIndex, films: Path, checkpoint: Path, tmp_path: Path) -> None:
    path = checkpoint / "ram.onnx"
    foreign = LearnedRam(path, RamSettings(), encoder_id="tiny", encoder_fingerprint=TinyEncoder().fingerprint)
    with pytest.raises(EncoderMismatchError, match=r"trained with encoder 'tiny'"):
        index.use_references(open_checkpoint(checkpoint).references, ram=foreign)
    plain = VideoIndex.open(tmp_path / "plain", open_checkpoint(checkpoint).base)
    list(plain.add([films]))
    with pytest.raises(EncoderMismatchError, match="impart refset use CHECKPOINT"):
        VideoIndex.open(tmp_path / "plain", open_checkpoint(checkpoint))


def test_a_damaged_copy_of_the_ram_is_named_and_repaired(index: VideoIndex, checkpoint: Path) -> None:
    augmentation = index.manifest.augmentation
    assert augmentation is not None
    graph = index.path / augmentation.graph
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(VideoIndexError, match=rf"{graph} is damaged.*impart refset use SET, or the checkpoint"):
        VideoIndex.open(index.path).search(text="red")
    references = open_checkpoint(checkpoint).references
    VideoIndex.open(index.path).use_references(references, ram=open_ram(checkpoint))
    assert graph.read_bytes() == whole
    assert len(VideoIndex.open(index.path).search(text="red")) == 2


def test_a_lost_neighbours_table_of_a_ram_is_computed_anew(index: VideoIndex, films: Path, checkpoint: Path) -> None:
    augmentation = index.manifest.augmentation
    assert augmentation is not None
    shutil.rmtree(index.path / f"{augmentation.table}.lance")
    shutil.rmtree(index.path / "cache")
    done = list(VideoIndex.open(index.path).add([films]))
    assert done[-1].unchanged == 2
    snapshot = load_snapshot(Store(index.path))
    assert snapshot.blend is not None
    made = index.encoder.apply(snapshot.vectors.astype(np.float32), snapshot.blend)
    np.testing.assert_allclose(made, expected(index, checkpoint), atol=2e-3)
