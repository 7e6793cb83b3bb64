"""Lists of videos: pages, sorting, filters, folders."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from helpers.tiny_server import API, client_of, code_of, write_library


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def client(library: Path) -> Iterator[TestClient]:
    with client_of(library) as client:
        yield client


def listed(client: TestClient, **asked: Any) -> list[str]:
    """List all names, page by page."""
    names: list[str] = []
    cursor: str | None = None
    while True:
        answer = client.get(f"{API}/videos", params=asked | ({"cursor": cursor} if cursor else {}))
        assert answer.status_code == 200, answer.text
        names += [video["name"] for video in answer.json()["videos"]]
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return names


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_pages_have_all_videos_in_order(client: TestClient, limit: int) -> None:
    assert listed(client, limit=limit) == ["a.mp4", "b.mp4", "c.mp4", "d.png"]
    assert listed(client, limit=limit, sort="length") == ["a.mp4", "b.mp4", "c.mp4", "d.png"]
    assert listed(client, limit=limit, sort="length", order="ascending") == ["d.png", "c.mp4", "b.mp4", "a.mp4"]
    by_date = listed(client, limit=limit, sort="date")
    assert sorted(by_date) == ["a.mp4", "b.mp4", "c.mp4", "d.png"]
    assert listed(client, limit=limit, sort="date", order="ascending") == by_date[::-1]


def test_filters(client: TestClient) -> None:
    films = next(folder["folder"] for folder in client.get(f"{API}/folders").json()["folders"])
    assert listed(client, q="A.M") == ["a.mp4"]
    assert listed(client, kind="photo") == ["d.png"]
    assert listed(client, folder=films) == ["a.mp4", "b.mp4", "c.mp4", "d.png"]
    assert listed(client, folder=f"{films}/trip", limit=1) == ["c.mp4", "d.png"]
    assert client.get(f"{API}/videos", params={"kind": "photo"}).json()["total"] == 1
    for nowhere in (films[:-1], f"{films}/trip/..", "/etc"):
        assert code_of(client.get(f"{API}/videos", params={"folder": nowhere})) == (404, "folder_not_found")


def test_folders_are_counted_from_the_deepest_that_has_all(client: TestClient, library: Path) -> None:
    films = library.parent / "films"
    answer = client.get(f"{API}/folders").json()
    assert answer["total"] == 2
    assert answer["folders"] == [
        {"folder": str(films), "videos": 4},
        {"folder": str(films / "trip"), "videos": 2},
    ]
    assert client.get(f"{API}/folders", params={"q": "TRI"}).json()["folders"][0]["videos"] == 2


def test_a_cursor_fits_its_request_alone(client: TestClient) -> None:
    cursor = client.get(f"{API}/videos", params={"limit": 1}).json()["next_cursor"]
    for asked in ({"q": "a"}, {"sort": "date"}, {"kind": "photo"}):
        assert code_of(client.get(f"{API}/videos", params={"cursor": cursor, **asked})) == (400, "bad_cursor")
    for wrong in ("x", "A" * 40, cursor[:-3], "W10", "é", "bnVsbA"):
        assert code_of(client.get(f"{API}/videos", params={"cursor": wrong})) == (400, "bad_cursor")


def test_pages_stay_whole_while_videos_come_and_go(library: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(library.parent, tmp_path / "copy")) / "library.impart"
    with client_of(place) as client:
        service = client.app.state.service  # type: ignore[attr-defined]
        records = list(service.records().values())
        service._store.videos = lambda: records[1:]
        service._store.state = lambda: "1"
        first = client.get(f"{API}/videos", params={"limit": 1}).json()
        assert first["videos"][0]["name"] == "b.mp4"
        service._store.videos = lambda: records  # one is added in front
        service._store.state = lambda: "2"
        second = client.get(f"{API}/videos", params={"limit": 2, "cursor": first["next_cursor"]}).json()
        assert [video["name"] for video in second["videos"]] == ["c.mp4", "d.png"]
        service._store.videos = lambda: [record for record in records if record.path.name != "b.mp4"]  # and one removed
        service._store.state = lambda: "3"
        second = client.get(f"{API}/videos", params={"limit": 2, "cursor": first["next_cursor"]}).json()
        assert [video["name"] for video in second["videos"]] == ["c.mp4", "d.png"]


def test_file_names_that_are_no_text_are_listed(library: Path) -> None:
    with client_of(library) as client:
        service = client.app.state.service  # type: ignore[attr-defined]
        record = next(iter(service.records().values()))
        odd = dataclasses.replace(record, path=Path(os.fsdecode(b"/films/\xff/b\xfe.mp4")), video_id="0" * 16)
        service._store.videos = lambda: [record, odd]
        service._store.state = lambda: "1"
        assert sorted(listed(client, limit=1)) == ["a.mp4", r"b\xfe.mp4"]
        assert listed(client, folder=r"/films/\xff") == [r"b\xfe.mp4"]


def test_an_empty_index_has_empty_lists(tmp_path: Path) -> None:
    with client_of(tmp_path / "none.impart") as client:
        assert client.get(f"{API}/videos").json() == {"videos": [], "total": 0, "next_cursor": None}
        assert client.get(f"{API}/folders").json() == {"folders": [], "total": 0}
