"""The server as a process: it tells its address, stops at a signal with 0, and needs no reader of its messages."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.served import TOKEN, client_of, raw, read_answer, served, write_library
from impart.cli.serve import read_token
from impart.errors import ConfigError, VideoIndexError
from impart.serve.app import create_app
from impart.serve.run import check_start, listen, server_of
from impart.serve.settings import ServeSettings

HEALTH = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
TESTS = Path(__file__).resolve().parent.parent
SERVE = "from helpers.served import register_tiny; register_tiny(); from impart.cli.main import main; main()"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_library(tmp_path_factory.mktemp("run"))


@contextmanager
def running(*arguments: str, **options: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `impart serve`; yield the process and the line with its address."""
    command = [sys.executable, "-c", SERVE, "serve", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, **options)  # type: ignore[call-overload]
    try:
        yield process, process.stderr.readline()
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def port_of(line: str) -> int:
    found = re.search(r"at http://\S+:(\d+)/", line)
    assert found, line
    return int(found[1])


def test_ctrl_c_stops_it_with_exit_code_0(library: Path) -> None:
    with running("--index", str(library), "--port", "0", stdout=subprocess.PIPE) as (process, line):
        assert raw(port_of(line), HEALTH).startswith(b"HTTP/1.1 200")
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 0
        assert process.stdout.read() == ""
        assert "Traceback" not in process.stderr.read()
        with pytest.raises(OSError):
            raw(port_of(line), HEALTH)


def test_a_second_signal_ends_it_at_once(library: Path) -> None:
    with running("--index", str(library), "--port", "0") as (process, line):
        connection = socket.create_connection(("127.0.0.1", port_of(line)))
        connection.sendall(b"POST /api/v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n")
        connection.sendall(b"Content-Length: 9\r\n\r\n{")  # a request that is never whole keeps it waiting
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 128 + signal.SIGTERM
        connection.close()


@pytest.mark.skipif(os.name != "posix", reason="closes standard output")
def test_it_needs_no_standard_output(library: Path) -> None:
    arguments = ["--index", str(library), "--port", "0"]
    with running(*arguments, preexec_fn=lambda: os.close(1)) as (process, line):
        assert raw(port_of(line), HEALTH).startswith(b"HTTP/1.1 200")
        process.stderr.close()  # nor a reader of its messages
        raw(port_of(line), b"nonsense\r\n\r\n")
        assert raw(port_of(line), HEALTH).startswith(b"HTTP/1.1 200")
        process.terminate()
        assert process.wait(15) == 0


def test_the_token_is_asked_for_and_not_printed(library: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    options = ["--index", str(library), "--port", "0", "--host", "0.0.0.0", "--token-file", str(tmp_path / "token")]
    with running(*options) as (process, line):
        second = process.stderr.readline()
        assert TOKEN not in line + second
        assert "asks for the token once" in second
        port = port_of(line)
        assert raw(port, HEALTH.replace(b"/health", b"/ready")).startswith(b"HTTP/1.1 401")
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(
                f"GET /api/v1/videos HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
            )
            assert read_answer(connection)[0] == 200


def test_another_host_needs_a_token(library: Path) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "films.example"):
        with pytest.raises(ConfigError, match="--token-file"):
            ServeSettings(index=library, host=host)
        ServeSettings(index=library, host=host, token=TOKEN)
    with pytest.raises(ConfigError, match="at least 16"):
        ServeSettings(index=library, token="short")


def test_a_missing_index_names_the_next_command(tmp_path: Path) -> None:
    settings = ServeSettings(index=tmp_path / "none.impart")
    with pytest.raises(VideoIndexError, match=r"impart index FOLDER.*impart serve --root FOLDER"):
        check_start(settings)
    with pytest.raises(VideoIndexError, match=r"impart index FOLDER$"):
        check_start(ServeSettings(index=tmp_path / "none.impart", roots=(tmp_path,), read_only=True))
    check_start(ServeSettings(index=tmp_path / "none.impart", roots=(tmp_path,)))


def test_options_that_cannot_work_are_told_at_once(library: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--refset takes a reference set"):
        check_start(ServeSettings(index=library, refsets=(tmp_path / "missing.refset",)))
    for name in ("http://films.example/", "films.example/page", "::1", ""):
        with pytest.raises(ConfigError, match="give the name alone"):
            check_start(ServeSettings(index=library, hosts=(name,)))
    check_start(
        ServeSettings(index=library, hosts=("films.example", "films.example:8080", "[::1]"), refsets=(tmp_path,))
    )


@pytest.mark.parametrize("content", ["", "two words of a token", "aaaaaaaaaaaaaaaa\nbbbb", "ä" * 20, "\x7f" * 20])
def test_a_token_that_no_header_can_carry_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "token"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match="one line of ASCII letters"):
        read_token(file)
    file.write_text(f"{TOKEN}\n", encoding="utf-8")
    assert read_token(file) == TOKEN


def test_a_root_that_is_missing_is_named(library: Path, tmp_path: Path) -> None:
    with running("--index", str(library), "--port", "0", "--root", str(tmp_path / "disk")) as (process, _):
        assert f"there is no folder {tmp_path / 'disk'}" in process.stderr.readline()


def test_it_is_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ServeSettings(index=tmp_path / "none.impart", roots=(tmp_path,))
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    assert server_of(create_app(settings), settings).config.workers == 1
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match="one process: unset it"):
        check_start(settings)


def test_a_root_starts_a_server_without_an_index(tmp_path: Path) -> None:
    client = client_of(tmp_path / "none.impart", roots=(tmp_path,))
    assert client.get("/").status_code == 200
    assert client.get("/api/v1/videos").json()["videos"] == []
    assert client.get("/ready").json()["code"] == "no_index"
    assert not (tmp_path / "none.impart").exists()


def test_a_port_in_use_is_told_with_the_remedy(tmp_path: Path) -> None:
    with listen(ServeSettings(index=tmp_path, port=0)) as opened, pytest.raises(ConfigError, match="--port"):
        listen(ServeSettings(index=tmp_path, port=opened.getsockname()[1]))
    with pytest.raises(ConfigError, match="no-such-host"):
        listen(ServeSettings(index=tmp_path, host="no-such-host.invalid", token=TOKEN))
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1.*--host"):
        listen(ServeSettings(index=tmp_path, host="192.0.2.1", token=TOKEN))


def test_small_answers_do_not_wait_for_an_acknowledgement(tmp_path: Path) -> None:
    with served(ServeSettings(index=tmp_path / "none.impart", port=0)) as port:
        connection, taken_s = http.client.HTTPConnection("127.0.0.1", port, timeout=10), []
        for _ in range(20):
            began = time.perf_counter()
            connection.request("GET", "/health")
            assert connection.getresponse().read() == b'{"status":"ok"}'
            taken_s.append(time.perf_counter() - began)
        connection.close()
    assert min(taken_s[1:]) < 0.02  # 0.04 each where the second packet waits


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_ipv6(tmp_path: Path) -> None:
    settings = ServeSettings(index=tmp_path / "none.impart", host="::1", port=0)
    try:
        listen(settings).close()
    except ConfigError as error:
        pytest.skip(str(error))
    assert settings.address == "http://[::1]:0/"
    with served(settings) as port, socket.create_connection(("::1", port), timeout=10) as connection:
        connection.sendall(HEALTH.replace(b"127.0.0.1", f"[::1]:{port}".encode()))
        assert read_answer(connection)[0] == 200
