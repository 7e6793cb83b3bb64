"""Duplicates over HTTP: computed once per state of the index, in the background."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from helpers.clips import write_frames
from helpers.tiny_encoder import TinyEncoder
from helpers.tiny_server import API, client_of, code_of
from impart.errors import VideoIndexError
from impart.serve.routes import duplicates as route
from impart.video.index.index import VideoIndex


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Index two groups of exact copies, and a film of its own."""
    folder = tmp_path_factory.mktemp("library")
    (folder / "films").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        colours = rng.integers(0, 256, (12, 3))
        images = [np.full((48, 64, 3), colour, np.uint8) for colour in colours for _ in range(4)]
        write_frames(folder / "films" / f"{name}.mp4", images, times_s=[i / 8 for i in range(len(images))])
    for name in ("a", "b"):
        (folder / "films" / f"{name} copy.mp4").write_bytes((folder / "films" / f"{name}.mp4").read_bytes())
    for _ in VideoIndex.open(folder / "library.impart", TinyEncoder()).add([folder / "films"]):
        pass
    return folder / "library.impart"


@pytest.fixture
def client(library: Path) -> Iterator[TestClient]:
    with client_of(library) as client:
        yield client


def asked(client: TestClient, **params: Any) -> dict[str, Any]:
    """Ask until they are computed."""
    service = client.app.state.service  # type: ignore[attr-defined]
    client.get(f"{API}/duplicates", params=params)
    assert service.slow.newest("duplicates").finished.wait(30)
    answer = client.get(f"{API}/duplicates", params=params)
    assert answer.status_code == 200
    return dict(answer.json())


def test_groups_are_paged(client: TestClient) -> None:
    whole = asked(client)
    assert (whole["status"], whole["problem"], whole["next_cursor"]) == ("ready", None, None)
    exact = [[video["name"] for video in group["videos"]] for group in whole["groups"] if group["pairs"][0]["exact"]]
    assert exact == [["a copy.mp4", "a.mp4"], ["b copy.mp4", "b.mp4"]]
    pair = whole["groups"][0]["pairs"][0]
    assert {pair["video_id"], pair["other_video_id"]} == {one["video_id"] for one in whole["groups"][0]["videos"]}
    assert pair["spans"][0]["other_end_s"] == pytest.approx(whole["groups"][0]["videos"][0]["duration_s"])
    first = asked(client, limit=1)
    second = asked(client, limit=1, cursor=first["next_cursor"])
    assert first["groups"] + second["groups"] == whole["groups"][:2]
    assert code_of(client.get(f"{API}/duplicates", params={"cursor": "nonsense"})) == (400, "bad_cursor")


def test_progress_is_told_and_the_work_is_done_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "_WAIT_S", 0.05)
    begun, goes_on, calls, find = threading.Event(), threading.Event(), [], VideoIndex.duplicates

    def slowly(index: VideoIndex, **keywords: Any) -> Any:
        calls.append(1)
        keywords["on_progress"](3, 8)
        begun.set()
        goes_on.wait(20)
        return find(index, **keywords)

    monkeypatch.setattr(VideoIndex, "duplicates", slowly)
    client.get(f"{API}/duplicates")
    assert begun.wait(10)
    answer = client.get(f"{API}/duplicates")
    assert answer.status_code == 202
    told = answer.json()
    assert (told["status"], told["done"], told["total_steps"], told["groups"]) == ("computing", 3, 8, [])
    goes_on.set()
    assert asked(client)["status"] == "ready"
    assert asked(client)["total"] >= 2
    assert len(calls) == 1


def test_after_a_change_the_old_groups_stay_until_the_new_ones_are_ready(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = asked(client)
    monkeypatch.setattr(route, "_WAIT_S", 0.0)
    service = client.app.state.service  # type: ignore[attr-defined]
    goes_on = threading.Event()
    monkeypatch.setattr(VideoIndex, "duplicates", lambda *_, **__: goes_on.wait(20) and [])
    monkeypatch.setattr(service._store, "state", lambda: "changed")
    answer = client.get(f"{API}/duplicates")
    assert answer.status_code == 200
    assert answer.json()["status"] == "computing"
    assert answer.json()["groups"] == before["groups"]
    goes_on.set()
    assert asked(client)["groups"] == []


def test_a_failure_is_told(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise VideoIndexError("the disk is gone")

    monkeypatch.setattr(VideoIndex, "duplicates", fail)
    answer = asked(client)
    assert (answer["status"], answer["problem"]) == ("failed", "the disk is gone")


def test_an_empty_index_has_none(tmp_path: Path) -> None:
    with client_of(tmp_path / "none.impart") as client:
        assert asked(client)["groups"] == []
