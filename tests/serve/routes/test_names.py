"""Names over HTTP: teach, list, rename, remove, find."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from helpers.tiny_encoder import COLOURS
from helpers.tiny_server import API, client_of, code_of, write_library
from impart.video.index.durable.lock import write_lock
from impart.video.names import store

ODD_NAMES = ["Rex", "a/b?c#d", "Zoë 🐕", "..", "%2e%2e%2f", "<script>", "名前", "x" * 100]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_library(tmp_path_factory.mktemp("library"))


@pytest.fixture
def index(library: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(library, tmp_path / "library.impart"))


@pytest.fixture
def client(index: Path) -> Iterator[TestClient]:
    with client_of(index) as client:
        yield client


def png(colour: str = "red", *, seed: int = 0, size: tuple[int, int] = (80, 60)) -> bytes:
    """Return a noisy image of a colour as PNG."""
    noise = np.random.default_rng(seed).integers(-20, 21, (size[1], size[0], 3))
    stream = io.BytesIO()
    Image.fromarray(np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def upload(client: TestClient, name: str, *images: tuple[str, bytes]) -> Any:
    return client.post(
        f"{API}/names",
        data={"name": name},
        files=[("images", (file, content, "image/png")) for file, content in images],
    )


def ids(client: TestClient) -> dict[str, str]:
    """Return the ids of the videos by name."""
    return {video["name"]: video["video_id"] for video in client.get(f"{API}/videos").json()["videos"]}


def spans_of(client: TestClient, name_id: str, **asked: Any) -> list[tuple[str, int, int]]:
    hits: list[dict[str, Any]] = []
    cursor = None
    while True:
        answer = client.get(f"{API}/names/{name_id}/spans", params=asked | ({"cursor": cursor} if cursor else {}))
        assert answer.status_code == 200, answer.text
        hits += answer.json()["hits"]
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            break
    assert [hit["rank"] for hit in hits] == list(range(1, len(hits) + 1))
    return [(hit["name"], round(hit["start_s"]), round(hit["end_s"])) for hit in hits]


RED = [("a.mp4", 0, 2), ("a.mp4", 6, 8), ("c.mp4", 2, 4)]


def test_a_name_taught_by_uploads_is_in_force_at_once(client: TestClient) -> None:
    before = client.post(f"{API}/search", json={"text": "rex"}).json()
    answer = upload(client, "Rex", ("rex.png", png()), ("again.png", png(seed=1)))
    assert answer.status_code == 200, answer.text
    added = answer.json()
    assert added["name"] == "Rex"
    assert added["added"] + len(added["known"]) == 2
    assert added["failed"] == []
    assert spans_of(client, added["name_id"], order="time") == RED
    after = client.post(f"{API}/search", json={"text": "rex"}).json()
    assert before["hits"][0]["names"] == []
    assert after["hits"][0]["names"] == ["Rex"]
    (listed,) = client.get(f"{API}/names").json()["names"]
    assert listed["name_id"] == added["name_id"]
    assert listed["images"][0]["source"] == "upload: rex.png"
    assert listed["report"] is None
    (checked,) = client.get(f"{API}/names", params={"check": True}).json()["names"]
    assert [(one["in_force"], one["found"]) for one in checked["report"]["images"]] == [(True, True)] * 2


def test_a_name_is_taught_by_moments_and_by_spans(client: TestClient) -> None:
    videos = ids(client)
    moments = [{"video_id": videos["a.mp4"], "at_s": 0.5}, {"video_id": videos["c.mp4"], "start_s": 2, "end_s": 4}]
    added = client.post(f"{API}/names", json={"name": "Rex", "moments": moments}).json()
    assert added["added"] >= 1
    assert spans_of(client, added["name_id"], order="time") == RED
    image = client.get(f"{API}/names/{added['name_id']}").json()["images"][0]
    assert (image["video_id"], image["at_s"]) == (videos["a.mp4"], 0.0)  # start of the segment
    photo = client.post(
        f"{API}/names", json={"name": "Pink", "moments": [{"video_id": videos["d.png"], "at_s": 0}]}
    ).json()
    assert photo["added"] == 1
    assert client.get(f"{API}/names/{photo['name_id']}").json()["images"][0]["video_id"] == videos["d.png"]


def test_the_answer_tells_what_was_known_what_failed_and_what_is_unlike(client: TestClient) -> None:
    upload(client, "Rex", ("1.png", png()))
    answer = upload(client, "REX", ("same.png", png()), ("broken.png", b"no image"), ("blue.png", png("blue"))).json()
    assert answer["name"] == "Rex"
    assert answer["known"] == ["upload: same.png"]
    assert [one["source"] for one in answer["failed"]] == ["upload: broken.png"]
    assert answer["failed"][0]["reason"]
    assert answer["added"] == 1
    assert [one["source"] for one in answer["reports"][0]["images"]] == ["upload: 1.png", "upload: blue.png"]
    assert answer["reports"][0]["remarks"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_of_any_letters_have_an_id_that_fits_into_an_address(client: TestClient, name: str) -> None:
    name_id = upload(client, name, ("r.png", png())).json()["name_id"]
    assert client.get(f"{API}/names/{name_id}").json()["name"] == name
    assert len(spans_of(client, name_id)) == 3
    assert client.delete(f"{API}/names/{name_id}").json() == {"removed": 1}
    assert client.get(f"{API}/names").json() == {"names": []}


def test_images_are_shown_and_removed_one_by_one(client: TestClient) -> None:
    name_id = upload(client, "Rex", ("x.png", png()), ("x.png", png("blue")), ("x.png", png("green"))).json()["name_id"]
    images = client.get(f"{API}/names/{name_id}").json()["images"]
    assert len(images) == 3
    shown = client.get(f"{API}/names/{name_id}/images/{images[1]['image_id']}.webp")
    assert shown.headers["content-type"] == "image/webp"
    red, _, blue = Image.open(io.BytesIO(shown.content)).convert("RGB").resize((1, 1)).getpixel((0, 0))
    assert blue > 200 > 60 > red
    again = client.get(shown.url, headers={"If-None-Match": shown.headers["etag"]})
    assert again.status_code == 304
    place = f"{API}/names/{name_id}/images/{images[1]['image_id']}"
    assert client.delete(place).json() == {"removed": 1}
    assert code_of(client.delete(place)) == (404, "image_not_found")
    assert code_of(client.get(shown.url)) == (404, "image_not_found")
    left = client.get(f"{API}/names/{name_id}").json()["images"]
    assert [one["image_id"] for one in left] == [images[0]["image_id"], images[2]["image_id"]]


def test_renaming_gives_another_id_and_refuses_another_name(client: TestClient) -> None:
    rex = upload(client, "Rex", ("r.png", png())).json()["name_id"]
    sea = upload(client, "Sea", ("s.png", png("blue"))).json()["name_id"]
    assert code_of(client.patch(f"{API}/names/{rex}", json={"name": "SEA"})) == (409, "name_taken")
    same = client.patch(f"{API}/names/{sea}", json={"name": "SEA"}).json()
    assert (same["name_id"], same["name"]) == (sea, "SEA")
    new = client.patch(f"{API}/names/{rex}", json={"name": "Max"}).json()
    assert new["name_id"] != rex
    assert code_of(client.get(f"{API}/names/{rex}")) == (404, "name_not_found")
    assert len(spans_of(client, new["name_id"])) == 3
    assert code_of(client.patch(f"{API}/names/{sea}", json={"name": "  \n "})) == (400, "bad_value")


@pytest.mark.parametrize("order", ["score", "time"])
@pytest.mark.parametrize("limit", [1, 2, 100])
def test_spans_are_paged(client: TestClient, order: str, limit: int) -> None:
    name_id = upload(client, "Rex", ("r.png", png())).json()["name_id"]
    assert sorted(spans_of(client, name_id, order=order, limit=limit)) == RED
    videos = ids(client)
    assert spans_of(client, name_id, video_id=videos["c.mp4"]) == RED[2:]
    assert spans_of(client, name_id, video_id=videos["b.mp4"]) == []
    cursor = client.get(f"{API}/names/{name_id}/spans", params={"limit": 1}).json()["next_cursor"]
    wrong = client.get(f"{API}/names/{name_id}/spans", params={"cursor": cursor, "order": "time"})
    assert code_of(wrong) == (400, "bad_cursor")


def test_presence_lights_up_where_the_name_is(client: TestClient) -> None:
    name_id = upload(client, "Rex", ("r.png", png())).json()["name_id"]
    video = ids(client)["a.mp4"]
    strip = client.get(f"{API}/names/{name_id}/presence", params={"video_id": video, "bins": 8}).json()
    assert strip["start_s"] == 0
    assert strip["step_s"] == pytest.approx(1.0, abs=0.05)
    assert [value >= 0.5 for value in strip["bins"]] == [True, True, False, False, False, False, True, True]
    fine = client.get(f"{API}/names/{name_id}/presence", params={"video_id": video, "bins": 1000}).json()
    assert min(fine["bins"][:200]) >= 0.5  # segments longer than a bin fill all of theirs


def test_bad_requests_are_told(client: TestClient) -> None:
    videos = ids(client)

    def moments(*given: dict[str, Any]) -> Any:
        return client.post(f"{API}/names", json={"name": "Rex", "moments": list(given)})

    assert code_of(moments()) == (422, "invalid_request")
    assert moments().json()["errors"][0]["at"] == ["body", "moments"]
    assert code_of(moments({"video_id": "../../../etc/pa"})) == (422, "invalid_request")
    assert code_of(moments({"video_id": "0" * 16, "at_s": 1})) == (404, "video_not_found")
    assert code_of(moments({"video_id": videos["a.mp4"]})) == (422, "invalid_request")
    assert code_of(moments({"video_id": videos["a.mp4"], "start_s": 2, "end_s": 1})) == (422, "invalid_request")
    assert code_of(moments({"video_id": videos["a.mp4"], "at_s": 60})) == (422, "time_outside")
    assert code_of(client.post(f"{API}/names", content=b"{", headers={"content-type": "application/json"})) == (
        422,
        "invalid_request",
    )
    assert code_of(client.post(f"{API}/names", data={"name": "Rex"}, files={"other": b"x"})) == (422, "invalid_request")
    assert code_of(upload(client, "Rex", ("r.png", b"nothing"))) == (422, "bad_data")
    assert code_of(upload(client, " ", ("r.png", png()))) == (400, "bad_value")
    assert code_of(client.get(f"{API}/names/{'0' * 16}")) == (404, "name_not_found")
    assert code_of(client.get(f"{API}/names/..%2f..%2fetc"))[0] in (404, 422)
    assert client.get(f"{API}/names").json() == {"names": []}


def test_uploads_over_the_limits_fail_with_a_reason(index: Path) -> None:
    with client_of(index, upload_megapixels=0.001, upload_mb=1) as client:
        answer = upload(client, "Rex", ("big.png", png()), ("small.png", png(size=(20, 20))))
        assert answer.json()["added"] == 1
        assert "megapixels" in answer.json()["failed"][0]["reason"]
        answer = upload(client, "Rex", ("huge.png", b"\x89PNG" + b"0" * (1 << 20)))
        assert code_of(answer) == (422, "bad_data")
        assert "over the limit of 1 MiB" in answer.json()["detail"]


def test_more_images_than_are_taken_at_once_are_refused(index: Path) -> None:
    with client_of(index, upload_images=2) as client:
        several = [(f"{seed}.png", png(seed=seed)) for seed in range(3)]
        assert upload(client, "Rex", *several[:2]).json()["added"] == 2
        assert code_of(upload(client, "Max", *several)) == (400, "bad_request")


def test_names_are_taught_while_an_indexing_job_holds_the_index(client: TestClient, index: Path) -> None:
    with write_lock(index):
        name_id = upload(client, "Rex", ("r.png", png())).json()["name_id"]
        assert len(spans_of(client, name_id)) == 3
        assert client.delete(f"{API}/names/{name_id}").status_code == 200


def test_another_process_that_teaches_is_waited_for_and_then_told(
    client: TestClient, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_WAIT_S", 0.05)
    with store.names_lock(index):
        answer = upload(client, "Rex", ("r.png", png()))
    assert code_of(answer) == (409, "index_locked")
    assert answer.headers["retry-after"]


def test_a_read_only_server_lists_names_and_changes_none(index: Path) -> None:
    with client_of(index) as client:
        name_id = upload(client, "Rex", ("r.png", png())).json()["name_id"]
    with client_of(index, read_only=True) as client:
        assert len(spans_of(client, name_id)) == 3
        assert code_of(upload(client, "Max", ("r.png", png()))) == (403, "read_only")
        assert code_of(client.delete(f"{API}/names/{name_id}")) == (403, "read_only")
        assert code_of(client.patch(f"{API}/names/{name_id}", json={"name": "Max"})) == (403, "read_only")
        assert [one["name"] for one in client.get(f"{API}/names").json()["names"]] == ["Rex"]
