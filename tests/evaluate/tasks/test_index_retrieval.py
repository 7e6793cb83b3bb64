"""Retrieval in a video index: ranks, names that are missing or not unique, and the reference set in use."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.clips import write_clip
from helpers.tiny_encoder import TinyEncoder
from impart.encoders.base import register
from impart.errors import DataError
from impart.evaluate.tasks.index_retrieval import index_retrieval
from impart.video.index.index import VideoIndex


@pytest.fixture
def index(tmp_path: Path) -> Path:
    register("tiny", lambda rest, **options: TinyEncoder(int(rest or 0)))
    for name, colour in (
        ("a/red.mp4", "red"),
        ("a/blue.mp4", "blue"),
        ("a/same.mp4", "green"),
        ("b/same.mp4", "white"),
    ):
        (tmp_path / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        write_clip(tmp_path / "clips" / name, colours=[colour])
    opened = VideoIndex.open(tmp_path / "library", TinyEncoder())
    list(opened.add([tmp_path / "clips"]))
    return tmp_path / "library"


def test_captions_are_ranked_among_all_videos(index: Path, tmp_path: Path) -> None:
    table = tmp_path / "captions.csv"
    table.write_text(
        "file,caption,split\nred.mp4,red,test\nblue.mp4,red,test\nsame.mp4,green,test\nabsent.mp4,red,test\n"
        "red.mp4,blue,train\n"
    )
    (result,) = index_retrieval(index, table, by="mean", split="test")
    assert (result.task, result.encoder, result.items) == ("text to video", "tiny", ("red.mp4#0", "blue.mp4#0"))
    assert result.per_item["R@1"].tolist() == [1, 0]
    assert result.counts == {"queries": 2, "items": 4, "files not in the index": 1, "read in part": 0}
    assert result.notes == ("left out: 1 file names that several videos of the index have",)
    assert index_retrieval(index, table, by="moment")[0].counts["queries"] == 3
    table.write_text("file,caption\nabsent.mp4,red\n")
    with pytest.raises(DataError, match="under a unique name"):
        index_retrieval(index, table, by="mean")
