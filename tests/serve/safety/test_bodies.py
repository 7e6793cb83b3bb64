"""Bodies: too large, of the wrong type, too deep, too slow; refused by their length or while they arrive."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from helpers.served import client_of, connect, raw, read_all, read_answer, served
from impart.serve.settings import ServeSettings

SEARCH = b"POST /api/v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    return client_of(tmp_path / "none.impart")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of a server that waits half a second for a body."""
    index = tmp_path_factory.mktemp("bodies") / "none.impart"
    with served(ServeSettings(index=index, port=0, body_s=0.5, request_mb=2)) as port:
        yield port


def answer_of(data: bytes) -> tuple[int, str]:
    """Status and code of a raw answer with a problem."""
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["code"]


def send_slowly(connection: socket.socket) -> None:
    """Send byte by byte, for at most 5 s."""
    began = time.monotonic()
    while time.monotonic() - began < 5:
        connection.sendall(b"X")
        time.sleep(0.05)


def problem_from(connection: socket.socket) -> tuple[int, str]:
    """Read status and code of a problem from an open connection."""
    status, _, body = read_answer(connection)
    return status, json.loads(body)["code"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/json-seq", "", "a/b"])
def test_a_body_of_another_type_is_refused(client: TestClient, kind: str) -> None:
    answer = client.post("/api/v1/search", content=b'{"text": "red"}', headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


def test_json_is_taken_with_parameters_of_its_type(client: TestClient) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert client.post("/api/v1/search", content=b'{"text": "red"}', headers=headers).status_code == 200


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 50_000, b'{"text": "' + b"\\u0000" * 5, b"\xff\xfe", b""])
def test_malformed_json_is_a_problem_of_the_client(client: TestClient, body: bytes) -> None:
    answer = client.post("/api/v1/search", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_names_of_fields_that_are_no_text_are_a_problem_of_the_client(client: TestClient) -> None:
    headers = {"Content-Type": "application/json"}
    answer = client.post("/api/v1/search", content=b'{"\\ud800": 1}', headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_a_large_body_is_refused_by_its_length_before_it_arrives(port: int) -> None:
    began = time.monotonic()
    with connect(port) as connection:
        connection.sendall(SEARCH + b"Content-Length: 1048577\r\nConnection: close\r\n\r\n")
        assert problem_from(connection) == (413, "too_large")
    assert time.monotonic() - began < 0.4


def test_a_client_that_sends_all_of_it_reads_the_problem_and_keeps_its_connection(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(SEARCH + b"Content-Length: 1100000\r\n\r\n" + b" " * 1_100_000)
        assert problem_from(connection) == (413, "too_large")
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert read_answer(connection)[0] == 200


def test_a_large_body_without_a_length_is_refused_while_it_arrives(port: int) -> None:
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    with connect(port) as connection:
        connection.sendall(SEARCH + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(17):
            connection.sendall(chunk)
        assert problem_from(connection) == (413, "too_large")


@pytest.mark.parametrize("length", [b"-1", b"1e3", b"99999999999999999999999", b"0x10"])
def test_a_length_that_is_no_number_is_refused(port: int, length: bytes) -> None:
    assert answer_of(raw(port, SEARCH + b"Connection: close\r\nContent-Length: " + length + b"\r\n\r\n"))[0] in (
        400,
        413,
    )


def test_a_body_that_does_not_arrive_ends_the_request(port: int) -> None:
    began = time.monotonic()
    data = raw(port, SEARCH + b'Content-Length: 100\r\n\r\n{"text":')
    assert answer_of(data) == (408, "slow_request")
    assert 0.4 < time.monotonic() - began < 3


def test_a_body_that_arrives_byte_by_byte_ends_the_request(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(SEARCH + b"Content-Length: 100000\r\n\r\n")
        connection.settimeout(0.05)
        data, began = b"", time.monotonic()
        while not data and time.monotonic() - began < 5:
            connection.sendall(b" ")
            try:
                data = connection.recv(65536)
            except TimeoutError:
                continue
        connection.settimeout(10)
        data += read_all(connection)
    assert answer_of(data) == (408, "slow_request")


def test_headers_that_do_not_arrive_end_the_connection(port: int) -> None:
    assert answer_of(raw(port, b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")) == (408, "slow_request")
    assert raw(port, b"") == b""  # a browser opens connections ahead of need: no answer to what was not asked


def test_headers_that_arrive_byte_by_byte_end_the_connection(port: int) -> None:
    with connect(port) as connection:
        began = time.monotonic()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            send_slowly(connection)
    assert time.monotonic() - began < 3


def test_a_refused_body_that_never_ends_ends_the_connection(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(SEARCH + b"Content-Length: 99999999\r\n\r\n")
        assert problem_from(connection) == (413, "too_large")
        began = time.monotonic()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            send_slowly(connection)
    assert time.monotonic() - began < 3


def test_large_headers_and_long_addresses_are_refused(port: int, client: TestClient) -> None:
    large = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nX-Large: "
    assert answer_of(raw(port, large + b"x" * 60_000 + b"\r\n\r\n"))[0] in (400, 431)
    assert answer_of(raw(port, large + b"x" * 600_000)) == (400, "bad_request")
    answer = client.get("/api/v1/videos", params={"q": "x" * 9000})
    assert (answer.status_code, answer.json()["code"]) == (414, "address_too_long")


@pytest.mark.parametrize(
    "request_", [b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"]
)
def test_what_is_no_http_is_refused(port: int, request_: bytes) -> None:
    data = raw(port, request_ + b"\r\n\r\n")
    assert answer_of(data) == (400, "bad_request")


def test_too_many_connections_are_refused_and_others_keep_theirs(tmp_path: Path) -> None:
    with served(ServeSettings(index=tmp_path / "none.impart", port=0, connections=3)) as port:
        held = [connect(port) for _ in range(3)]
        for connection in held:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert read_answer(connection)[0] == 200
        assert answer_of(raw(port, b"")) == (503, "too_many_connections")
        for connection in held:
            connection.close()
        time.sleep(0.1)
        with connect(port) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            assert read_all(connection).startswith(b"HTTP/1.1 200")
