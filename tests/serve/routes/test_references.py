"""Reference sets over HTTP: list, switch, and the pairs blended into a moment."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from helpers.clips import solid
from helpers.tiny_encoder import COLOURS, TinyEncoder
from helpers.tiny_server import API, client_of, code_of, write_library
from impart.refset.refset import ReferenceSet
from impart.serve.routes import references as route
from impart.video.index.durable.lock import write_lock
from impart.video.index.index import VideoIndex


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Index films, and write two reference sets: of colours with image files, and of another encoder."""
    folder = tmp_path_factory.mktemp("library")
    write_library(folder)
    lines = ["file,text"]
    (folder / "sets" / "images").mkdir(parents=True)
    for colour in COLOURS:
        Image.fromarray(solid(colour)).save(folder / "sets" / "images" / f"{colour}.png")
        lines.append(f"images/{colour}.png,{colour}")
    (folder / "sets" / "colours.csv").write_text("\n".join(lines) + "\n")
    ReferenceSet.build(folder / "sets" / "colours.csv", TinyEncoder(), path=folder / "sets" / "colours")
    ReferenceSet.build(folder / "sets" / "colours.csv", TinyEncoder(1), path=folder / "sets" / "foreign")
    return folder


@pytest.fixture
def place(library: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(library / "library.impart", tmp_path / "library.impart"))


def sets_of(client: TestClient) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in client.get(f"{API}/references").json()["sets"]}


def switch(client: TestClient, set_id: str, **more: Any) -> Any:
    return client.put(f"{API}/references/current", json={"id": set_id, **more})


def first_video(client: TestClient) -> str:
    return str(client.get(f"{API}/videos").json()["videos"][0]["video_id"])


def test_a_set_of_a_folder_is_put_in_force_and_away(library: Path, place: Path) -> None:
    with client_of(place, refsets=(library / "sets",)) as client:
        listed = client.get(f"{API}/references").json()
        assert [one["name"] for one in listed["sets"]] == ["colours", "no reference set"]
        assert listed["current"] == "none"
        assert listed["left_out"][0]["name"] == "foreign"
        assert "tiny:1" in listed["left_out"][0]["reason"]
        colours = sets_of(client)["colours"]
        assert (colours["pairs"], colours["origin"], colours["current"]) == (10, "folder", False)
        assert str(library) not in str(listed["sets"])
        done = switch(client, colours["id"])
        assert done.status_code == 200, done.text
        assert done.json()["current"] == colours["id"]
        assert VideoIndex.open(place, create=False).manifest.augmentation is not None
        hit = client.post(f"{API}/search", json={"text": "red", "why": True}).json()["hits"][0]
        assert hit["why"][0]["text"]
        assert switch(client, "none").json()["current"] == "none"
        hit = client.post(f"{API}/search", json={"text": "red", "why": True}).json()["hits"][0]
        assert hit["why"] == []


def test_why_names_pairs_with_their_images(library: Path, place: Path) -> None:
    with client_of(place, refsets=(library / "sets" / "colours",)) as client:
        video = first_video(client)
        assert client.get(f"{API}/videos/{video}/why", params={"t": 0.5}).json()["pairs"] == []
        switch(client, sets_of(client)["colours"]["id"])
        why = client.get(f"{API}/videos/{video}/why", params={"t": 0.5}).json()
        assert (why["references"], why["blending"]) == ("colours", "vanilla")
        best = max(why["pairs"], key=lambda pair: pair["similarity"])
        assert (best["text"], best["image"]) == ("red", True)
        hits = client.post(f"{API}/search", json={"text": "red", "why": True, "group": "frame"}).json()["hits"]
        hit = next(hit for hit in hits if hit["video_id"] == video and hit["best_s"] == 0)
        assert [{key: pair[key] for key in hit["why"][0]} for pair in why["pairs"]] == hit["why"]
        shown = client.get(f"{API}/references/pairs/{best['row']}.webp")
        assert shown.headers["content-type"] == "image/webp"
        assert shown.content[8:12] == b"WEBP"
        assert client.get(shown.url, headers={"If-None-Match": shown.headers["etag"]}).status_code == 304
        assert code_of(client.get(f"{API}/references/pairs/10.webp")) == (404, "pair_not_found")
        assert code_of(client.get(f"{API}/videos/{video}/why", params={"t": 100})) == (400, "bad_query")
        assert code_of(client.get(f"{API}/videos/{'0' * 16}/why", params={"t": 1})) == (404, "video_not_found")
        switch(client, "none")
        why = client.get(f"{API}/videos/{video}/why", params={"t": 0.5}).json()
        assert (why["references"], why["blending"], why["pairs"]) == (None, None, [])


def test_an_image_that_changed_or_is_gone_is_not_shown(library: Path, place: Path, tmp_path: Path) -> None:
    sets = Path(shutil.copytree(library / "sets", tmp_path / "sets"))
    with client_of(place, refsets=(sets / "colours",)) as client:
        switch(client, sets_of(client)["colours"]["id"])
        assert client.get(f"{API}/references/pairs/0.webp").status_code == 200
        shutil.copy(sets / "images" / "blue.png", sets / "images" / "red.png")
        assert code_of(client.get(f"{API}/references/pairs/0.webp")) == (404, "no_image")
        (sets / "images" / "red.png").unlink()
        assert code_of(client.get(f"{API}/references/pairs/0.webp")) == (404, "no_image")
        video = first_video(client)
        pairs = client.get(f"{API}/videos/{video}/why", params={"t": 0.5}).json()["pairs"]
        assert {pair["text"]: pair["image"] for pair in pairs}["red"] is False


def test_a_set_that_only_the_index_has_is_not_lost_unasked(library: Path, place: Path) -> None:
    VideoIndex.open(place, TinyEncoder()).use_references(ReferenceSet.open(library / "sets" / "colours"))
    with client_of(place) as client:
        own = sets_of(client)["colours"]
        assert (own["origin"], own["current"]) == ("index", True)
        assert code_of(switch(client, "none")) == (409, "set_would_be_lost")
        assert switch(client, own["id"]).status_code == 200
        assert switch(client, "none", discard=True).json()["current"] == "none"


def test_bad_switches_are_told(library: Path, place: Path) -> None:
    with client_of(place, refsets=(library / "sets", library / "missing")) as client:
        assert {one["name"] for one in client.get(f"{API}/references").json()["left_out"]} == {"foreign", "missing"}
        for wrong in ("0" * 16, str(library / "sets" / "colours"), "../colours"):
            assert code_of(switch(client, wrong)) == (404, "reference_set_not_found")
        with write_lock(place):
            assert code_of(switch(client, sets_of(client)["colours"]["id"])) == (409, "index_locked")
        assert client.get(f"{API}/references").json()["problem"]
    with client_of(place, refsets=(library / "sets",), read_only=True) as client:
        assert code_of(switch(client, sets_of(client)["colours"]["id"])) == (403, "read_only")


def test_a_long_switch_goes_on_behind_its_answer(library: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "_WAIT_S", 0.05)
    goes_on, use = threading.Event(), VideoIndex.use_references

    def slowly(*given: Any, **keywords: Any) -> None:
        goes_on.wait(10)
        use(*given, **keywords)

    monkeypatch.setattr(VideoIndex, "use_references", slowly)
    with client_of(place, refsets=(library / "sets",)) as client:
        colours = sets_of(client)["colours"]["id"]
        begun = switch(client, colours)
        assert begun.status_code == 202
        assert (begun.json()["current"], begun.json()["switching_to"]) == ("none", colours)
        assert code_of(switch(client, "none")) == (409, "switching")
        goes_on.set()
        service = client.app.state.service  # type: ignore[attr-defined]
        assert service.slow.newest("references").finished.wait(10)
        after = client.get(f"{API}/references").json()
        assert (after["current"], after["switching_to"]) == (colours, None)
