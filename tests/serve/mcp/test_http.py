"""The MCP server over HTTP, on a free port of this machine: token, Host and Origin."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import httpx2
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from impart.serve.mcp.http import make_http_app
from impart.serve.mcp.library import Library
from impart.serve.mcp.server import make_server
from impart.serve.run import listen
from impart.serve.settings import ServeSettings
from impart.video.index.index import VideoIndex

TOKEN = "a-token-of-a-test-0123456789"
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
ACCEPT = {"accept": "application/json, text/event-stream"}


@contextmanager
def running(index: VideoIndex, *, token: str | None) -> Iterator[str]:
    settings = ServeSettings(index=index.path, port=0, token=token, hosts=("films.example",))
    app = make_http_app(make_server(Library(index)), settings)
    listening = listen(settings)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
    finally:
        server.should_exit = True
        thread.join(10)


def post(url: str, **headers: str) -> int:
    return httpx2.post(url, json=PING, headers=ACCEPT | headers).status_code


def test_the_official_client_searches_with_the_token(index: VideoIndex) -> None:
    async def run(url: str) -> dict[str, object]:
        async with (
            httpx2.AsyncClient(headers={"authorization": f"Bearer {TOKEN}"}) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            assert "search_moments" in {tool.name for tool in (await client.list_tools()).tools}
            result = await client.call_tool("search_moments", {"text": "blue"})
            return result.structured_content["moments"][0]

    with running(index, token=TOKEN) as url:
        best = anyio.run(run, url)
    assert (best["name"], best["start_s"], best["end_s"]) == ("a.mp4", 4.0, 6.0)


def test_a_wrong_or_missing_token_is_refused(index: VideoIndex) -> None:
    with running(index, token=TOKEN) as url:
        assert post(url) == 401
        assert post(url, authorization=f"Bearer {TOKEN}x") == 401
        assert post(url, authorization=TOKEN) == 401
        answer = httpx2.get(url)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "--token-file" in answer.json()["error_description"]
        assert post(url, authorization=f"Bearer {TOKEN}") != 401


def test_a_foreign_host_and_origin_are_refused(index: VideoIndex) -> None:
    with running(index, token=None) as url:
        assert post(url, host="attacker.example") == 421
        assert post(url, host="127.0.0.1.attacker.example:80") == 421
        assert post(url, origin="http://attacker.example") == 403
        assert post(url, origin="null") == 403
        port = url.rsplit(":", 1)[1].split("/")[0]
        assert post(url, origin=f"http://localhost:{port}", host=f"localhost:{port}") not in (401, 403, 421)
        assert post(url, origin="https://films.example", host="films.example") not in (401, 403, 421)
