"""Searching sentences with taught names."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.clips import write_clip
from helpers.tiny_encoder import COLOURS, TinyEncoder
from impart.video.index.index import VideoIndex
from impart.video.search.hits import Hit
from impart.video.search.query import Query


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Index three films; Rex is red or magenta."""
    folder = tmp_path_factory.mktemp("films")
    write_clip(folder / "a.mp4", colours=["red", "green", "blue", "grey"], seconds_each=2)
    write_clip(folder / "b.mp4", colours=["grey", "yellow", "cyan", "white"], seconds_each=2)
    write_clip(folder / "c.mp4", colours=["white", "green", "yellow", "magenta"], seconds_each=2)
    made = VideoIndex.open(folder / "index", TinyEncoder())
    for _ in made.add([folder / f"{name}.mp4" for name in "abc"]):
        pass
    images = [Image.fromarray(np.full((40, 60, 3), COLOURS[colour], np.uint8)) for colour in ("red", "magenta")]
    made.names.add("Rex", images)
    return folder


@pytest.fixture
def index(indexed: Path) -> VideoIndex:
    return VideoIndex.open(indexed / "index", TinyEncoder())


def found(hits: Sequence[Hit]) -> tuple[str, int, int]:
    return hits[0].path.stem, round(hits[0].start_s), round(hits[0].end_s)


@pytest.mark.parametrize("group", ["video", "moment", "scene"])
@pytest.mark.parametrize("by", ["moment", "mean", "frame"])
def test_the_context_chooses_among_the_spans_of_a_name(index: VideoIndex, group: str, by: str) -> None:
    for text, video in (("Rex, red", "a"), ("rex's magenta", "c")):
        hits = index.search(text=text, group=group, by=by)  # type: ignore[arg-type]
        assert hits[0].path.stem == video
        assert hits[0].names == ("Rex",)
        assert 0 < hits[0].score <= 1


def test_the_span_is_where_the_name_is_present(index: VideoIndex) -> None:
    assert found(index.search(text="Rex, red")) == ("a", 0, 2)
    assert found(index.search(text="Rex, magenta")) == ("c", 6, 8)


def test_a_name_alone_ranks_by_presence_and_marks_only_what_it_raised(index: VideoIndex) -> None:
    hits = index.search(text="a photo of Rex")
    assert {hit.path.stem for hit in hits[:2]} == {"a", "c"}
    assert [hit.names for hit in hits] == [("Rex",), ("Rex",), ()]
    assert [hit.strong for hit in hits] == [True, True, False]
    assert hits[1].score > 0.5 > 2 * hits[2].score


def test_the_name_is_not_given_up_for_the_context(index: VideoIndex) -> None:
    assert found(index.search(text="yellow")) == ("b", 2, 4)
    assert found(index.search(text="Rex, yellow")) == ("a", 0, 2)  # red resembles yellow more than magenta does


def test_sentences_without_a_name_do_not_change(index: VideoIndex, indexed: Path, tmp_path: Path) -> None:
    shutil.copytree(indexed / "index", tmp_path / "index")
    without = VideoIndex.open(tmp_path / "index", TinyEncoder())
    without.names.remove("Rex")
    texts = ["red", "a green wall", "Rexford, blue", "T-Rex in yellow"]
    for by in ("moment", "mean", "frame"):
        expected = without.search_many([Query(text=text) for text in texts], by=by)  # type: ignore[arg-type]
        assert index.search_many([Query(text=text) for text in texts], by=by) == expected  # type: ignore[arg-type]


def test_a_name_in_a_batch_changes_no_other_query(index: VideoIndex) -> None:
    texts = ["red", "Rex, magenta", "green", "Rex"]
    together = index.search_many([Query(text=text) for text in texts])
    assert together == [index.search(text=text) for text in texts]


def test_names_can_be_taken_as_words(index: VideoIndex) -> None:
    hits = index.search_many([Query(text="Rex, yellow")], names=False)[0]
    assert (hits[0].path.stem, hits[0].names) == ("b", ())


def test_a_step_of_a_sequence_may_be_a_name(index: VideoIndex) -> None:
    hits = index.search_many([Query(text="Rex", then=Query(text="green"), within_s=5)])[0]
    assert (hits[0].path.stem, hits[0].names) == ("a", ("Rex",))
    assert [round(step.start_s) for step in hits[0].steps] == [0, 2]
