"""Whether the server is ready: it loads model and index by itself, and says what is missing. Metrics of requests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from helpers.served import HERE, client_of, within, write_library
from impart.errors import EncoderError
from impart.serve.app import create_app
from impart.serve.settings import ServeSettings
from impart.video.search.searcher import Searcher


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_library(tmp_path_factory.mktemp("system"))


@pytest.fixture
def client(library: Path) -> Iterator[TestClient]:
    with TestClient(create_app(ServeSettings(index=library)), base_url=HERE) as client:
        yield client


def is_ready(client: TestClient) -> bool:
    return client.get("/ready").status_code == 200


def samples(client: TestClient) -> dict[str, float]:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        "|".join((sample.name, *sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_a_server_gets_ready_without_a_search(client: TestClient) -> None:
    assert within(20, lambda: is_ready(client))
    assert client.get("/ready").json() == {"status": "ready"}


def test_until_then_it_says_why(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go, real = threading.Event(), Searcher.encode
    monkeypatch.setattr(Searcher, "encode", lambda *given: go.wait(10) and real(*given))
    client = client_of(library)
    answer = client.get("/ready")
    assert (answer.status_code, answer.json()["code"], answer.headers["Retry-After"]) == (503, "warming_up", "1")
    assert client.get("/health").status_code == 200
    go.set()
    assert within(20, lambda: is_ready(client))


def test_a_model_that_cannot_be_loaded_is_named_and_tried_again(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise EncoderError("the model mini is damaged")

    with monkeypatch.context() as patched:
        patched.setattr(Searcher, "encode", fails)
        client = client_of(library)
        assert within(5, lambda: client.get("/ready").json().get("code") == "not_ready")
        assert "the model mini is damaged" in client.get("/ready").json()["detail"]
    assert within(20, lambda: is_ready(client))


def test_an_index_that_is_made_later_becomes_ready(tmp_path: Path) -> None:
    client = client_of(tmp_path / "library.impart")
    assert client.get("/ready").json()["code"] == "no_index"
    write_library(tmp_path)
    assert within(20, lambda: is_ready(client))


def test_metrics_of_requests_by_route(client: TestClient) -> None:
    video_id = client.get("/api/v1/videos").json()["videos"][0]["video_id"]
    for path in (f"/api/v1/videos/{video_id}", f"/api/v1/videos/{'0' * 16}", "/api/v1/videos/x", "/nothing", "/else"):
        client.get(path)
    client.request("BREW", "/api/v1/videos")
    client.post("/api/v1/search", json={"text": "red"})
    client.post("/api/v1/search", json={"text": ""})
    found = samples(client)
    assert found["impart_http_request_seconds_count|GET|/videos/{video_id}|2xx"] == 1
    assert found["impart_http_request_seconds_count|GET|/videos/{video_id}|4xx"] == 2
    assert found["impart_http_request_seconds_count|GET|other|4xx"] == 2
    assert found["impart_problems_total|video_not_found"] == 1
    assert found["impart_problems_total|invalid_request"] == 1
    assert found["impart_query_seconds_count"] == 2
    assert found["impart_index_videos"] == 2
    assert found["impart_index_hours"] == pytest.approx(4 / 3600, rel=0.1)
    assert not any("BREW" in name or video_id in name for name in found)


def test_an_unknown_route_and_a_wrong_method_say_what_helps(tmp_path: Path) -> None:
    client = client_of(tmp_path / "none.impart")
    unknown, wrong = client.get("/api/v1/nothing"), client.delete("/api/v1/search")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    assert unknown.json()["detail"] == "there is nothing at '/api/v1/nothing': /api/v1/openapi.json lists the routes"
    assert (wrong.status_code, wrong.json()["code"], wrong.headers["allow"]) == (405, "method_not_allowed", "POST")
    assert wrong.json()["detail"] == "'/api/v1/search' takes POST, not DELETE"
