"""Refused cleanly: each attack gets an answer of 4xx with a problem at once, and the server goes on answering others.

The parts have tests of their own, in `safety/`; here each attack is sent to a real server as bytes.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.served import TOKEN, connect, raw, read_all, served, write_library
from impart.serve.settings import ServeSettings

SECRET = "the content of a file that nobody indexed"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("refused")
    write_library(made)
    (made / "secret.txt").write_text(SECRET)
    (made / "films" / "secret.mp4").write_text(SECRET)  # below a root, and not in the index
    return made


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    settings = ServeSettings(
        index=folder / "library.impart",
        port=0,
        roots=(folder / "films",),
        cache=folder / "cache",
        body_s=0.5,
        upload_mb=1,
    )
    with served(settings) as port:
        yield port


@pytest.fixture(scope="module")
def guarded_port(folder: Path) -> Iterator[int]:
    with served(ServeSettings(index=folder / "library.impart", port=0, token=TOKEN)) as port:
        yield port


def ask(port: int, path: str, *, method: str = "GET", headers: str = "Host: 127.0.0.1", body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *headers.split("|"), "Connection: close"]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return raw(port, "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)


def check_refused(port: int, data: bytes, *statuses: int) -> str:
    """Check that the first answer is a problem with one of the statuses, and that the server lives; return its code."""
    head, _, body = data.partition(b"\r\n\r\n")
    found = re.search(rb"content-length: (\d+)", head.lower())
    assert found, data[:500]
    body = body[: int(found[1])]
    assert int(head.split()[1]) in statuses, data[:500]
    assert b"content-type: application/problem+json" in head.lower()
    assert SECRET.encode() not in body
    problem = json.loads(body)
    assert problem["status"] == int(head.split()[1])
    assert ask(port, "/health").startswith(b"HTTP/1.1 200")
    return str(problem["code"])


TRAVERSALS = (
    "../secret.txt", "..%2fsecret.txt", "%2e%2e%2fsecret.txt", "%252e%252e%252fsecret.txt", "..%c0%afsecret.txt",
    "....//secret.txt", "..\\secret.txt", "..%5csecret.txt", "%2fetc%2fpasswd", "/etc/passwd", "secret.mp4",
    "films%2fsecret.mp4", "file:%2f%2f%2fetc%2fpasswd", "http:%2f%2f127.0.0.1:1%2f", "%00", "0%00", "%ff%fe", "*", "~",
    "0000000000000000%00", "0000000000000000%2f..%2f..%2fsecret.txt", "0000000000000000.webp%2f..%2fsecret.txt",
    "C:%5cWindows%5cwin.ini", "0000000000000000%0d%0aX-Injected:%20yes", "ＦＦＦＦ".encode().hex(), "0" * 4000,
)  # fmt: skip
ROUTES = (
    "/api/v1/videos/{}", "/api/v1/videos/{}/scenes", "/api/v1/media/{}", "/api/v1/previews/{}?start_s=0&end_s=1",
    "/api/v1/frames/{}.webp?t=0", "/api/v1/images/{}.webp", "/api/v1/jobs/{}", "/api/v1/exports/{}/file",
    "/api/v1/names/{}/images/0.webp", "/api/v1/references/pairs/{}.webp", "/static/{}", "/static/js/{}",
)  # fmt: skip


@pytest.mark.parametrize("route", ROUTES)
def test_traversal_in_an_id(port: int, route: str) -> None:
    for attempt in TRAVERSALS:
        data = ask(port, route.format(attempt))
        check_refused(port, data, 400, 404, 405, 414, 422)
        assert b"x-injected" not in data.lower()


def test_a_path_is_no_input(port: int, folder: Path) -> None:
    for path in (folder / "secret.txt", folder / "films" / "secret.mp4", folder / "films" / "a.mp4"):
        body = json.dumps({"similar": {"video_id": str(path), "at_s": 0}}).encode()
        data = ask(
            port, "/api/v1/search", method="POST", headers="Host: 127.0.0.1|Content-Type: application/json", body=body
        )
        check_refused(port, data, 404, 422)


@pytest.mark.parametrize(
    "header", ["", "Basic {}", "Bearer", "Bearer wrong-token-of-letters", "Token {}", "Bearer {}x"]
)
def test_a_wrong_or_missing_token(guarded_port: int, header: str) -> None:
    sent = f"Host: 127.0.0.1|Authorization: {header.format(TOKEN)}" if header else "Host: 127.0.0.1"
    code = check_refused(guarded_port, ask(guarded_port, "/api/v1/videos", headers=sent), 401)
    assert code in ("wrong_token", "missing_token")
    assert check_refused(guarded_port, ask(guarded_port, "/metrics"), 401) == "missing_token"
    right = f"Host: 127.0.0.1|Authorization: Bearer {TOKEN}"
    assert ask(guarded_port, "/api/v1/videos", headers=right).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("host", ["rebound.example", "rebound.example:80", "192.0.2.1", "127.0.0.1.example"])
def test_a_foreign_host(port: int, host: str) -> None:
    for path in ("/", "/api/v1/videos", "/static/js/main.js"):
        assert check_refused(port, ask(port, path, headers=f"Host: {host}"), 421) == "foreign_host"
    check_refused(port, ask(port, "/", headers=f"Host: 127.0.0.1|Host: {host}"), 400)
    check_refused(port, raw(port, b"GET / HTTP/1.0\r\n\r\n"), 400)


@pytest.mark.parametrize(
    "origin", ["https://e.example", "null", "http://127.0.0.1:3000", "file://", "http://127.0.0.1@e.example"]
)
def test_a_foreign_origin(port: int, origin: str) -> None:
    headers = f"Host: 127.0.0.1|Origin: {origin}|Content-Type: application/json"
    sent = {"GET": b"", "POST": b'{"text": "red"}', "OPTIONS": b"", "DELETE": b""}
    for method, body in sent.items():
        data = ask(port, "/api/v1/search", method=method, headers=headers, body=body)
        assert check_refused(port, data, 403) == "foreign_origin"
        assert b"access-control" not in data.lower()


def test_a_form_of_another_site_without_an_origin(port: int) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        headers = f"Host: 127.0.0.1|Content-Type: {kind}"
        data = ask(port, "/api/v1/search", method="POST", headers=headers, body=b'{"text": "red"}')
        assert check_refused(port, data, 415) == "unsupported_media_type"


def test_an_upload_over_the_limit(port: int) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    headers = "Host: 127.0.0.1|Content-Type: multipart/form-data; boundary=x"
    with connect(port) as connection:
        head = "\r\n".join(["POST /api/v1/search HTTP/1.1", *headers.split("|"), "Content-Length: 999999999"])
        connection.sendall(head.encode() + b"\r\n\r\n" + part)
        assert check_refused(port, read_all(connection), 413) == "too_large"


def test_a_slow_client_does_not_hold_up_others(port: int) -> None:
    slow = [connect(port) for _ in range(30)]
    try:
        for i, connection in enumerate(slow):
            request = b"POST /api/v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            connection.sendall(request if i % 2 else request + b"Content-Length: 50\r\n\r\n{")
        began = time.monotonic()
        assert ask(port, "/api/v1/videos").startswith(b"HTTP/1.1 200")
        assert time.monotonic() - began < 2
        for connection in slow:
            assert check_refused(port, read_all(connection), 408) == "slow_request"
    finally:
        for connection in slow:
            connection.close()


def test_too_many_requests(folder: Path) -> None:
    with served(ServeSettings(index=folder / "library.impart", port=0, requests_per_s=0.5)) as port:
        data = b""
        for _ in range(8):
            data = ask(port, "/api/v1/videos")
        head, _, body = data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 429")
        assert b"retry-after: " in head
        assert json.loads(body)["code"] == "too_many_requests"


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x",
        b"GET /api/v1/videos HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"GET /api/v1/videos HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /api/v1/videos HTTP/1.1\nHost : 127.0.0.1\n\n",
        b"CONNECT e.example:443 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
        b"GET http://e.example/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_requests_that_two_servers_would_read_differently(port: int, request_: bytes) -> None:
    check_refused(port, raw(port, request_), 400, 404, 405, 408, 415, 501, 505)


def test_a_websocket_is_no_way_around(port: int) -> None:
    headers = "Host: 127.0.0.1|Origin: https://e.example|Upgrade: websocket|Sec-WebSocket-Version: 13"
    data = ask(port, "/api/v1/videos", headers=headers.replace("Connection: close", "Connection: upgrade"))
    assert check_refused(port, data, 403) == "foreign_origin"
