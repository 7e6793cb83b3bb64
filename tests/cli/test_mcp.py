"""`impart mcp` as a process: standard input and output, the printed configuration, and clear refusals."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import httpx2
import pytest
from mcp import Client, StdioServerParameters
from typer.testing import CliRunner

from helpers.clips import write_clip
from impart.cli.main import app

RUN = CliRunner()
PROGRAM = str(Path(__file__).resolve().parents[1] / "helpers" / "tiny_impart.py")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mcp")
    (folder / "films").mkdir()
    write_clip(folder / "films" / "a.mp4", colours=["red", "blue"], seconds_each=2)
    index = [sys.executable, PROGRAM, "index", "films", "-i", "library.impart", "-e", "tiny"]
    subprocess.run(index, cwd=folder, check=True, capture_output=True, timeout=60)
    return folder


def test_the_official_client_starts_it_and_finds_the_span(place: Path) -> None:
    parameters = StdioServerParameters(
        command=sys.executable, args=[PROGRAM, "mcp", "-i", str(place / "library.impart")]
    )

    async def run() -> None:
        async with Client(parameters, read_timeout_seconds=60) as client:
            tools = {tool.name for tool in (await client.list_tools()).tools}
            assert "search_moments" in tools
            assert "teach_name" not in tools
            found = (await client.call_tool("search_moments", {"text": "blue"})).structured_content
            best = found["moments"][0]
            assert (best["name"], best["start_s"], best["end_s"]) == ("a.mp4", 2.0, 4.0)
            frame = await client.call_tool("get_frame", {"video_id": best["video_id"], "at_s": best["best_s"]})
            assert [one.type for one in frame.content] == ["text", "image"]

    anyio.run(run)


def test_standard_output_has_the_protocol_alone(place: Path) -> None:
    start = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    }
    call = {"name": "search_moments", "arguments": {"text": "red"}}
    messages = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": start},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call},
    ]
    command = [sys.executable, PROGRAM, "mcp", "-i", "library.impart"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=place, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for message in messages:
            process.stdin.write(json.dumps(message) + "\n")
        process.stdin.flush()
        lines = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.stdin.close()
        rest = process.stdout.read()
        errors = process.stderr.read() if process.stderr else ""
        assert process.wait(30) == 0
    assert rest == ""
    assert [line["id"] for line in lines] == [1, 2]
    assert lines[1]["result"]["structuredContent"]["moments"][0]["end_s"] == 2.0
    assert "a line of the model" in errors


def test_a_call_that_is_cancelled_ends_at_once_over_the_pipe(place: Path) -> None:
    parameters = StdioServerParameters(
        command=sys.executable,
        args=[PROGRAM, "mcp", "-i", str(place / "library.impart")],
        env=os.environ | {"TINY_SLEEP_S": "4"},
    )

    async def run() -> None:
        async with Client(parameters, read_timeout_seconds=60) as client:
            await client.call_tool("names", {})
            began = anyio.current_time()
            with anyio.move_on_after(0.5) as scope:
                await client.call_tool("search_moments", {"text": "blue"})
            assert scope.cancelled_caught
            assert (await client.call_tool("names", {})).structured_content == {"names": []}
            assert anyio.current_time() - began < 3.5

    anyio.run(run)


@pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_over_http_it_names_its_address_and_ends_without_a_traceback(place: Path, number: signal.Signals) -> None:
    token = place / "secret"
    token.write_text("a-token-of-a-test-0123456789", encoding="utf-8")
    command = [
        sys.executable,
        PROGRAM,
        "mcp",
        "-i",
        "library.impart",
        "--http",
        "--port",
        "0",
        "--token-file",
        "secret",
    ]
    with subprocess.Popen(command, cwd=place, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        url = re.search(r"http://127\.0\.0\.1:\d+/mcp", line)
        assert url, line
        answers = []
        while not answers:
            with contextlib.suppress(httpx2.ConnectError):
                answers.append(httpx2.post(url[0], json={}).status_code)
        process.send_signal(number)
        rest = process.stderr.read()
        code = process.wait(30)
    assert answers == [401]
    assert (code, rest) == (0, "")


def test_the_missing_extra_is_named(place: Path) -> None:
    """In a process of its own: modules that are imported anew here would not be those that other tests change."""
    without = "import sys; sys.modules['mcp'] = None; from impart.cli.main import main; main()"
    command = [sys.executable, "-c", without, "mcp", "-i", "library.impart"]
    done = subprocess.run(
        command, cwd=place, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install 'impart-clip[mcp]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_printed_configuration_starts_the_server(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    done = RUN.invoke(app, ["mcp", "--config", "-i", "library.impart", "--allow-write", "--exports", "cuts"])
    entry = json.loads(done.stdout)["mcpServers"]["impart"]
    assert entry["command"] == sys.executable
    assert entry["args"] == [
        *("-m", "impart", "mcp", "--index", str(place / "library.impart")),
        *("--allow-write", "--exports", str(place / "cuts")),
    ]
    assert "claude_desktop_config.json" in done.stderr
    (place / "token").write_text("a" * 20, encoding="utf-8")
    done = RUN.invoke(app, ["mcp", "--config", "--http", "--port", "9000", "--token-file", "token"])
    entry = json.loads(done.stdout)["mcpServers"]["impart"]
    assert entry["url"] == "http://127.0.0.1:9000/mcp"
    assert entry["headers"] == {"Authorization": "Bearer TOKEN"}
    assert "a" * 20 not in done.output


def test_the_configuration_of_a_server_on_every_address_has_one_that_can_be_reached(place: Path) -> None:
    (place / "token").write_text("a" * 20, encoding="utf-8")
    listen = ["--http", "--host", "0.0.0.0", "--token-file", str(place / "token")]
    done = RUN.invoke(app, ["mcp", "--config", "-i", str(place / "library.impart"), *listen])
    assert json.loads(done.stdout)["mcpServers"]["impart"]["url"] == "http://127.0.0.1:8766/mcp"
    assert "On other machines" in done.stderr
    assert "without --config" in done.stderr


def test_a_missing_index_names_the_next_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "impart", "mcp", "-i", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (1, "")
    assert "impart index PATH..." in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--http", "--host", "0.0.0.0"], "--token-file"),
        (["--token-file", "x"], "needs --http"),
        (["--exports", "x"], "needs --allow-write"),
        (["--http", "--token-file", "no such file"], "cannot read the token file"),
        (["--http", "--config", "--token-file", "no such file"], "cannot read the token file"),
        (["--http", "--config", "--host", "0.0.0.0"], "--token-file"),
        (["--http", "--config", "--port", "0"], "--port"),
        (["--http", "--allow-host", "http://films.example/"], "is no host name"),
        (["--allow-host", "films.example"], "need --http"),
        (["--port", "9000"], "need --http"),
    ],
)
def test_options_that_cannot_work_are_refused(place: Path, arguments: list[str], message: str) -> None:
    done = RUN.invoke(app, ["mcp", "-i", str(place / "library.impart"), *arguments])
    assert done.exit_code != 0
    assert message in " ".join(f"{done.output} {done.exception}".replace("│", " ").split())
