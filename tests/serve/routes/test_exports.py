"""Routes of exports: requests, the file with its name, and what is refused."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from helpers.clips import write_clip
from helpers.tiny_encoder import TinyEncoder
from impart.serve.app import API, create_app
from impart.serve.jobs.settings import JobSettings
from impart.serve.settings import ServeSettings
from impart.video.index.index import VideoIndex

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    films = tmp_path / "films"
    films.mkdir()
    write_clip(films / "a.mp4", colours=["red", "blue"])
    write_clip(films / "b.mp4", colours=["green"])
    list(VideoIndex.open(tmp_path / "index", TinyEncoder()).add([films]))
    settings = ServeSettings(
        index=tmp_path / "index", cache=tmp_path / "cache", jobs=JobSettings(export_hours=0.01, export_spans=50, nice=0)
    )
    with TestClient(create_app(settings), base_url=f"http://127.0.0.1{API}/") as client:
        yield client


def spans(client: TestClient) -> list[dict[str, Any]]:
    videos = client.get("videos").json()["videos"]
    return [{"video_id": video["video_id"], "start_s": 0.2, "end_s": 0.8, "label": video["name"]} for video in videos]


def export(client: TestClient, form: str, **fields: Any) -> dict[str, Any]:
    answer = client.post("exports", json={"form": form, "spans": spans(client)} | fields)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    deadline = time.monotonic() + 45
    while job["ended_at"] is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        job = client.get(f"jobs/{job['id']}").json()
    return job


def test_a_file_is_saved_under_its_title(client: TestClient, tmp_path: Path) -> None:
    job = export(client, "csv", title='Été "1"\r\n/x', handles="0.1s")
    assert (job["status"], job["export"]["file"]["name"]) == ("done", "Été _1_x.csv")
    answer = client.get(f"exports/{job['id']}/file")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/csv")
    told = "attachment; filename=\"_t_ _1_x.csv\"; filename*=UTF-8''%C3%89t%C3%A9%20_1_x.csv"
    assert answer.headers["content-disposition"] == told
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["label"] for row in rows] == ["a.mp4", "b.mp4"]
    assert int(answer.headers["content-length"]) == job["export"]["file"]["size_bytes"]
    part = client.get(f"exports/{job['id']}/file", headers={"Range": "bytes=0-5"})
    assert (part.status_code, part.text) == (206, "number")
    for file in (tmp_path / "cache" / "exports").rglob("*.csv"):
        file.unlink()
    gone = client.get(f"exports/{job['id']}/file")
    assert (gone.status_code, gone.json()["code"]) == (410, "file_deleted")


def test_a_video_that_is_gone_is_named_and_the_rest_is_exported(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "films" / "a.mp4").unlink()
    job = export(client, "clips")
    assert job["status"] == "partly_failed"
    (skipped,) = job["skipped"]
    assert (skipped["number"], job["skipped_count"]) == (1, 1)
    assert "is gone" in skipped["reason"]
    answer = client.get(f"exports/{job['id']}/file")
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.content[4:8] == b"ftyp"
    assert client.post(f"jobs/{job['id']}/retry").status_code == 202


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"form": "exe"}, "form"),
        ({"spans": []}, "spans"),
        ({"handles": "many"}, "12f"),
        ({"handles": "9999s"}, "at most 60 seconds"),
        ({"title": "x" * 121}, "title"),
        ({"path": "/etc/passwd"}, "path"),
        ({"spans": [{"video_id": "../../etc", "start_s": 0, "end_s": 1}]}, "video_id"),
        ({"spans": [{"path": "/etc/passwd", "start_s": 0, "end_s": 1}]}, "path"),
        ({"spans": [{"video_id": "0" * 16, "start_s": 2, "end_s": 1}]}, "before the start"),
        ({"spans": [{"video_id": "0" * 16, "start_s": False, "end_s": 1}]}, "start_s"),
        ({"spans": [{"video_id": "0" * 16, "start_s": -1, "end_s": 1}]}, "start_s"),
        ({"spans": [{"video_id": "0" * 16, "start_s": 0, "end_s": 1e300}]}, "end_s"),
    ],
)
def test_requests_that_make_no_sense_are_refused(client: TestClient, change: dict[str, Any], part: str) -> None:
    answer = client.post("exports", json={"form": "csv", "spans": spans(client)} | change)
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_request"
    assert part in answer.json()["detail"]


def test_limits_are_named(client: TestClient) -> None:
    (one, _) = spans(client)
    long = client.post("exports", json={"form": "reel", "spans": [one | {"end_s": 40.0}]})
    assert (long.status_code, long.json()["code"]) == (422, "too_long")
    many = client.post("exports", json={"form": "csv", "spans": [one] * 51})
    assert (many.status_code, many.json()["code"]) == (422, "too_many_spans")


def test_text_that_is_no_unicode_is_refused_and_not_a_crash(client: TestClient) -> None:
    (one, _) = spans(client)
    body = '{"form": "csv", "title": "\\ud800", "spans": [{"video_id": "%s", "start_s": 0, "end_s": 1}]}'
    answer = client.post("exports", content=body % one["video_id"], headers={"Content-Type": "application/json"})
    assert answer.status_code == 422


def test_there_is_no_file_of_a_job_that_failed_or_that_there_is_not(client: TestClient) -> None:
    job = export(client, "edl", spans=[{"video_id": "0" * 16, "start_s": 0, "end_s": 1}])
    assert job["status"] == "failed"
    assert "search again" in job["error"]["detail"]
    answer = client.get(f"exports/{job['id']}/file")
    assert (answer.status_code, answer.json()["code"]) == (409, "no_file")
    assert client.get(f"exports/{'0' * 16}/file").json()["code"] == "job_not_found"
    assert client.get("exports/..%2f..%2fetc/file").status_code in (404, 422)
