from __future__ import annotations

from pathlib import Path

import pytest

from impart.errors import QueryError, VideoIndexError
from impart.video.index.manifest import IndexManifest
from impart.video.search.last_search import LastSearch, SavedHit, load_last_search, save_last_search


def hit(number: int, path: str) -> SavedHit:
    return SavedHit(
        number=number,
        path=Path(path),
        start_s=1.5,
        end_s=2.0,
        best_s=1.75,
        score=0.3,
        video_id="a",
        kind="video",
        label="a dog",
    )


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(IndexManifest, "load", lambda folder: None)
    return tmp_path


def test_a_search_is_read_back_also_with_a_name_that_is_no_text(index: Path) -> None:
    search = LastSearch(query="ein Hund – 狗", command="search", hits=(hit(1, "/a/\udcff.mp4"), hit(2, "/b.mp4")))
    save_last_search(index, search)
    assert load_last_search(index) == search
    assert [one.number for one in search.take([2, 1])] == [2, 1]
    assert len(search.take([])) == 2
    with pytest.raises(QueryError, match=r"no hit 3.*1 to 2"):
        search.take([1, 3])


def test_without_a_search_the_remedy_is_named(index: Path) -> None:
    with pytest.raises(QueryError, match="search first"):
        load_last_search(index)
    (index / "last-search.json").write_text("{}")
    with pytest.raises(QueryError, match="search first"):
        load_last_search(index)


def test_without_an_index_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(VideoIndexError):
        load_last_search(tmp_path / "none.impart")
