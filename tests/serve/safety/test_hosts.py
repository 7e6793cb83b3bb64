"""Host and Origin: other names, and pages of other sites, are refused; this machine's own names are not."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from helpers.served import TOKEN, client_of

JSON = {"Content-Type": "application/json"}
BODY = b'{"text": "red"}'


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    return client_of(tmp_path / "none.impart")


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:8765", "LocalHost:9000", "[::1]:8765", "localhost."])
def test_names_of_this_machine_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/api/v1/videos", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["rebound.example", "rebound.example:8765", "127.0.0.1.rebound.example", "localhost.example", "192.168.1.5:8765",
     "0.0.0.0:8765", "2130706433", "[::ffff:7f00:1]"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/health", "/api/v1/videos", "/static/js/main.js"])
def test_another_host_is_refused(client: TestClient, host: str, path: str) -> None:
    answer = client.get(path, headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (421, "foreign_host")


@pytest.mark.parametrize("host", ["", "127.0.0.1:port", "user@127.0.0.1", "127.0.0.1/x", "[::1"])
def test_a_malformed_host_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/health", headers={"Host": host}).json()["code"] == "bad_host"


def test_a_given_name_is_answered_also_with_the_origin_of_its_proxy(tmp_path: Path) -> None:
    client = client_of(tmp_path / "none.impart", hosts=("Films.example",))
    headers = {"Host": "films.example", "Origin": "https://films.example", **JSON}
    assert client.post("/api/v1/search", headers=headers, content=BODY).status_code == 200
    assert (
        client.post("/api/v1/search", headers=headers | {"Origin": "https://e.example"}, content=BODY).status_code
        == 403
    )


def test_a_server_that_listens_everywhere_is_addressed_by_numbers_and_given_names(tmp_path: Path) -> None:
    client = client_of(tmp_path / "none.impart", host="0.0.0.0", token=TOKEN, hosts=("films.example:8443",))
    for host in (
        "127.0.0.1:8765",
        "localhost",
        "192.168.1.5:8765",
        "[fd00::5]:8765",
        "films.example",
        "films.example:1",
    ):
        assert client.get("/health", headers={"Host": host}).status_code == 200, host
    for host in ("0.0.0.0:8765", "[::]", "rebound.example", "192.168.1.5.rebound.example", "2130706433"):
        assert client.get("/health", headers={"Host": host}).status_code == 421, host


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://e.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Origin": "http://localhost:8765"},
        {"Origin": "http://127.0.0.1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_pages_of_other_origins_are_refused(client: TestClient, headers: dict[str, str]) -> None:
    for method, path in (("POST", "/api/v1/search"), ("GET", "/api/v1/videos"), ("DELETE", "/"), ("GET", "/metrics")):
        answer = client.request(method, path, headers={**headers, **JSON})
        assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin"), (method, path)
        assert not any(name.startswith("access-control") for name in answer.headers)


def test_the_page_itself_is_answered_and_a_link_from_elsewhere_opens_it(client: TestClient) -> None:
    own = {"Origin": "http://127.0.0.1:8765", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/api/v1/search", headers={**own, **JSON}, content=BODY).status_code == 200
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}).status_code == 200


def test_a_preflight_gets_no_permission(client: TestClient) -> None:
    asked = {"Origin": "https://e.example", "Access-Control-Request-Method": "POST"}
    answer = client.options("/api/v1/search", headers=asked)
    assert answer.status_code == 403
    assert not any(name.startswith("access-control") for name in answer.headers)
