"""Scenes that show the same are found as clusters, which can be named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.clips import write_clip
from helpers.tiny_encoder import TinyEncoder
from impart.encoders.base import l2_normalise
from impart.errors import QueryError
from impart.video.index.index import VideoIndex
from impart.video.names import discover as module
from impart.video.names.cluster_page import load_clusters
from impart.video.names.discover import cluster_scenes


def near(centre: np.ndarray, count: int, *, width: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((count, len(centre)))
    return l2_normalise((centre + width * l2_normalise(noise.astype(np.float32))).astype(np.float32))


def test_near_identical_vectors_are_one_cluster_and_strangers_are_none() -> None:
    strangers = l2_normalise(np.random.default_rng(0).standard_normal((200, 128)).astype(np.float32))
    same = near(strangers[0], 40, width=0.05, seed=1)
    other = near(strangers[1], 3, width=0.5, seed=2)
    found = cluster_scenes(np.concatenate([strangers, same, other]))
    assert [members.tolist() for members in found] == [[0, *range(200, 240)], [1, *range(240, 243)]]


def test_clusters_of_components_are_those_of_all_rows() -> None:
    from scipy.cluster.hierarchy import fcluster, linkage

    rng = np.random.default_rng(3)
    centres = rng.standard_normal((30, 24)).astype(np.float32)
    rows = np.concatenate([near(centre, 5, width=3.0, seed=i) for i, centre in enumerate(centres)])
    label = fcluster(linkage(rows, method="average", metric="cosine"), 0.5, criterion="distance")
    expected = sorted(np.flatnonzero(label == one).tolist() for one in set(label) if (label == one).sum() > 1)
    assert len(expected) > 5
    assert sorted(members.tolist() for members in cluster_scenes(rows)) == expected


def test_a_large_component_is_split_and_loses_no_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LARGEST", 20)
    centres = np.eye(16, dtype=np.float32)[:2] + 0.9  # a bridge between both: one component at 0.5
    rows = np.concatenate([near(centre, 15, width=0.1, seed=i) for i, centre in enumerate(centres)])
    found = cluster_scenes(rows)
    assert sorted(np.concatenate(found).tolist()) == list(range(30))
    assert [len(members) for members in cluster_scenes(np.ones((50, 4), np.float32) / 2)] == [50]


def test_no_vectors_have_no_clusters() -> None:
    assert cluster_scenes(np.zeros((0, 8), np.float32)) == []
    assert cluster_scenes(np.eye(8, dtype=np.float32)) == []


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    write_clip(folder / "a.mp4", colours=["red", "green", "red", "cyan"], seconds_each=2)
    write_clip(folder / "b.mp4", colours=["blue", "red", "magenta", "white", "grey", "yellow"], seconds_each=2)
    made = VideoIndex.open(folder / "index", TinyEncoder())
    for _ in made.add([folder / "a.mp4", folder / "b.mp4"]):
        pass
    return folder


def test_a_cluster_is_shown_on_a_page_and_given_a_name(films: Path, tmp_path: Path) -> None:
    index = VideoIndex.open(films / "index", TinyEncoder())
    with pytest.raises(QueryError, match="impart names discover"):
        index.names.add_cluster("Rex", 1)
    found = index.names.discover(tmp_path / "page.html", top=1).found
    first = found.clusters[0]
    assert (first.number, len(first), first.videos, first.names) == (1, 3, 2, ())
    assert (found.scenes, found.left_out) == (10, 0)
    page = (tmp_path / "page.html").read_text("utf-8")
    assert page.count("data:image/jpeg;base64,") == 3
    assert "impart names add --from-cluster 1 NAME" in page
    assert {(frame.path.name, frame.at_s) for frame in load_clusters(index.path, 1)} == {
        ("a.mp4", 0.0),
        ("a.mp4", 4.0),
        ("b.mp4", 2.0),
    }
    with pytest.raises(QueryError, match="no cluster 2"):
        index.names.add_cluster("Rex", 2)
    index.names.add_cluster("Rex", 1)
    spans = {(hit.path.stem, round(hit.start_s)) for hit in index.find("Rex")}
    assert spans == {("a", 0), ("a", 4), ("b", 2)}
    again = index.names.discover(tmp_path / "page.html")
    assert again.found.clusters[0].names == ("Rex",)
    assert again.failed == ()


def test_a_file_that_is_gone_is_named_and_its_frames_left_out(films: Path, tmp_path: Path) -> None:
    index = VideoIndex.open(films / "index", TinyEncoder())
    moved = (films / "b.mp4").rename(films / "b.moved")
    try:
        done = index.names.discover(tmp_path / "page.html", top=1)
    finally:
        moved.rename(films / "b.mp4")
    assert [path.name for path, _ in done.failed] == ["b.mp4"]
    assert (tmp_path / "page.html").read_text("utf-8").count("data:image/jpeg;base64,") == 2


def test_photos_that_show_the_same_are_a_cluster(tmp_path: Path) -> None:
    for name, colour in (("a", "red"), ("b", "red"), ("c", "blue"), ("d", "green")):
        Image.new("RGB", (64, 48), colour).save(tmp_path / f"{name}.png")
        noisy = np.asarray(Image.open(tmp_path / f"{name}.png")).copy()
        noisy[:4] = np.random.default_rng(ord(name)).integers(0, 60, noisy[:4].shape)
        Image.fromarray(noisy).save(tmp_path / f"{name}.png")
    index = VideoIndex.open(tmp_path / "index", TinyEncoder())
    for _ in index.add([tmp_path / f"{name}.png" for name in "abcd"]):
        pass
    found = index.names.discover(tmp_path / "page.html")
    assert [len(cluster) for cluster in found.found.clusters] == [2]
    assert found.failed == ()
