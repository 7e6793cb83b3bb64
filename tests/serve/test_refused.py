"""Refused cleanly: each attack gets an answer of 4xx with a problem at once, and the server goes on answering others.

The parts have tests of their own, in `safety/`; here each attack is sent to a real server as bytes.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.served import TOKEN, connect, png_bomb, raw, read_all, served, write_library
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
ASSETS = (("GET", "/static/{name}"), ("GET", "/static/js/{name}"))
FINDS_NOTHING = "?start_s=0&end_s=1&t=0&video_id=0000000000000000"


def operations(port: int) -> list[tuple[str, str]]:
    """List the methods and paths of all routes, without HEAD, whose answers have no problem to read."""
    document = json.loads(ask(port, "/api/v1/openapi.json").partition(b"\r\n\r\n")[2])
    found = [(method.upper(), path) for path, item in document["paths"].items() for method in item if method != "head"]
    assert len(found) > 35
    return found


def send(port: int, method: str, path: str, body: Any) -> bytes:
    headers = "Host: 127.0.0.1" + ("" if method in ("GET", "DELETE") else "|Content-Type: application/json")
    return ask(port, path, method=method, headers=headers, body=b"" if method == "GET" else json.dumps(body).encode())


@pytest.mark.timeout(300)
def test_traversal_in_an_id(port: int) -> None:
    for method, route in (*operations(port), *ASSETS):
        if "{" not in route:
            continue
        for attempt in TRAVERSALS:
            path = re.sub(r"\{\w+\}", lambda _, attempt=attempt: attempt, route)  # type: ignore[misc]
            data = send(port, method, path + FINDS_NOTHING, {"name": "Rex"} if method == "PATCH" else {"text": "red"})
            check_refused(port, data, 400, 404, 405, 414, 415, 422)
            assert b"x-injected" not in data.partition(b"\r\n\r\n")[0].lower()


def bodies(given: str) -> list[tuple[str, str, Any]]:
    """List the requests that name something in their body: method, path, body."""
    api, span = "/api/v1", {"start_s": 0, "end_s": 1}
    return [
        ("POST", f"{api}/search", {"similar": {"video_id": given, "at_s": 0}}),
        ("POST", f"{api}/search", {"image_id": given}),
        ("POST", f"{api}/search", {"text": "red", "folder": given}),
        ("POST", f"{api}/search", {"text": "red", "cursor": given}),
        ("POST", f"{api}/search/heat", {"text": "red", "video_ids": [given]}),
        ("POST", f"{api}/names", {"name": "Rex", "moments": [{"video_id": given, "at_s": 0}]}),
        ("POST", f"{api}/exports", {"form": "sheet", "spans": [{"video_id": given, **span}]}),
        ("PUT", f"{api}/references/current", {"id": given}),
        ("POST", f"{api}/jobs/index", {"paths": [given]}),
    ]


def test_a_path_is_no_input(port: int, folder: Path) -> None:
    paths = [folder / "secret.txt", folder / "films" / "secret.mp4", folder / "films" / "a.mp4"]
    for given in ("../secret.txt", "..\\secret.txt", "file:///etc/passwd", "http://127.0.0.1:1/", *map(str, paths)):
        for method, path, body in bodies(given):
            check_refused(port, send(port, method, path, body), 400, 403, 404, 422)


def test_a_job_that_leaves_the_roots(port: int, folder: Path) -> None:
    films, link = folder / "films", folder / "films" / "link"
    if not link.exists():
        link.symlink_to(folder)
    outside = [
        "/", "/etc", str(folder), f"{films}/..", f"{films}/../films/..", f"{films}/link", f"{films}/link/cache",
        str(films).upper(), f"{films}-2", f"{films}/none", "films", ".", "..", "~", "~root", f"file://{films}",
        f"{films}\0/..", f"{films}/%2e%2e", f"{films}/..\\..", f"/proc/self/root{films}", f"/proc/self/cwd/{films}",
    ]  # fmt: skip
    for given in outside:
        for paths in ([given], [str(films), given]):
            data = send(port, "POST", "/api/v1/jobs/index", {"paths": paths})
            assert check_refused(port, data, 403) == "outside_roots", given
    link.unlink()
    assert json.loads(ask(port, "/api/v1/jobs").partition(b"\r\n\r\n")[2]) == {"jobs": []}


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


def test_no_route_is_open_without_the_token(guarded_port: int) -> None:
    right = f"Host: 127.0.0.1|Authorization: Bearer {TOKEN}"
    document = json.loads(ask(guarded_port, "/api/v1/openapi.json", headers=right).partition(b"\r\n\r\n")[2])
    routes = [(method.upper(), path) for path, item in document["paths"].items() for method in item if method != "head"]
    guarded = [*routes, *ASSETS, ("GET", "/api/v1/openapi.json"), ("GET", "/api/v1/none")]
    cookie = f"impart_token_0={'0' * 64}"
    for method, path in guarded:
        if path == "/health":
            continue
        place = re.sub(r"\{\w+\}", "0000000000000000", path) + FINDS_NOTHING
        for header, code in (("X-None: 1", "missing_token"), (f"Cookie: {cookie}", "wrong_token")):
            data = ask(guarded_port, place, method=method, headers=f"Host: 127.0.0.1|{header}")
            assert check_refused(guarded_port, data, 401) == code, (method, path)
        data = ask(guarded_port, f"{place}&token={TOKEN}", method=method)
        assert check_refused(guarded_port, data, 401) == "missing_token", "only the page takes it from its address"


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


def form(field: str, *contents: bytes) -> tuple[str, bytes]:
    """Make the headers and the body of a form with files."""
    parts = [b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nRex\r\n'] if field == "images" else []
    head = f'--x\r\nContent-Disposition: form-data; name="{field}"; filename="a.png"\r\n\r\n'.encode()
    parts += [head + content + b"\r\n" for content in contents]
    return "Host: 127.0.0.1|Content-Type: multipart/form-data; boundary=x", b"".join(parts) + b"--x--\r\n"


@pytest.mark.parametrize(("path", "field"), [("/api/v1/search", "image"), ("/api/v1/names", "images")])
def test_an_image_that_is_a_bomb_or_none(port: int, path: str, field: str) -> None:
    for content in (
        png_bomb(30_000, 30_000),
        png_bomb(2**31 - 1, 2**31 - 1),
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"<svg/>",
        b"",
    ):
        headers, body = form(field, content)
        began = time.monotonic()
        check_refused(port, ask(port, path, method="POST", headers=headers, body=body), 413, 415, 422)
        assert time.monotonic() - began < 5
    headers, body = form(field, png_bomb(10, 10) + b"\0" * (1 << 20))
    check_refused(port, ask(port, path, method="POST", headers=headers, body=body), 413, 422)
    headers, body = form(field, *[png_bomb(10, 10)] * 21)
    check_refused(port, ask(port, path, method="POST", headers=headers, body=body), 400, 413)


def test_range_abuse(port: int, folder: Path) -> None:
    videos = json.loads(ask(port, "/api/v1/videos").partition(b"\r\n\r\n")[2])["videos"]
    path, whole = f"/api/v1/media/{videos[0]['video_id']}", (folder / "films" / "a.mp4").read_bytes()
    ignored = (
        "bytes=" + ",".join(["0-"] * 2000), "bytes=" + ",".join(f"{i}-{i}" for i in range(0, 3000, 2)),
        "bytes=9-1", "bytes=-", "bytes=" + "9" * 4000 + "-", "bytes=0x1-", "bytes=-1-5", "chars=0-1", "bytes=0-1;2-3",
        "bytes=\u00b2-",
    )  # fmt: skip
    for value in ignored:
        began = time.monotonic()
        head, _, body = ask(port, path, headers=f"Host: 127.0.0.1|Range: {value}").partition(b"\r\n\r\n")
        assert (head.split()[1], body) == (b"200", whole), value
        assert time.monotonic() - began < 2
    for value in (f"bytes={len(whole)}-", "bytes=-0", f"bytes={10**17}-{10**17 + 1}"):
        data = ask(port, path, headers=f"Host: 127.0.0.1|Range: {value}")
        assert check_refused(port, data, 416) == "range_not_satisfiable"
        assert f"content-range: bytes */{len(whole)}".encode() in data.lower()
    data = ask(port, path, headers="Host: 127.0.0.1|Range: bytes=0-0,0-0,0-3,-1,0-,1-1")
    assert data.startswith(b"HTTP/1.1 206")
    assert data.endswith(whole), "ranges that overlap are sent once"


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
