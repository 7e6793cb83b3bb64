"""The page and its assets: current after an upgrade, compressed, small, and nothing outside their folder."""

from __future__ import annotations

import gzip
import os
import re
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from helpers.served import client_of
from impart.serve.problems import Problem
from impart.serve.routes.page import WEB, Assets

MOST_BYTES = 250_000


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    return client_of(tmp_path / "none.impart")


def asked(**headers: str) -> Request:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "headers": named})


def test_every_asset_is_served_compressed_and_known_again(client: TestClient) -> None:
    for file in sorted(path for path in WEB.rglob("*") if path.is_file()):
        path = f"/static/{file.relative_to(WEB).as_posix()}"
        plain = client.get(path, headers={"Accept-Encoding": "identity"})
        assert (plain.status_code, plain.content) == (200, file.read_bytes()), path
        small = client.get(path, headers={"Accept-Encoding": "gzip"})
        assert small.content == plain.content
        assert small.headers["content-encoding"] == "gzip"
        assert small.headers["etag"] != plain.headers["etag"]
        assert small.headers["vary"] == "Accept-Encoding"
        for answer in (plain, small):
            encoding = answer.headers.get("content-encoding", "identity")
            known = {"If-None-Match": f'"other", W/{answer.headers["etag"]}', "Accept-Encoding": encoding}
            again = client.get(path, headers=known)
            assert (again.status_code, again.content) == (304, b"")
        head = client.head(path, headers={"Accept-Encoding": "identity"})
        assert head.headers["content-length"] == str(len(plain.content))
        assert head.content == b""


def test_types_do_not_depend_on_the_machine(client: TestClient) -> None:
    assert client.get("/static/js/main.js").headers["content-type"] == "text/javascript; charset=utf-8"
    assert client.get("/static/css/page.css").headers["content-type"] == "text/css; charset=utf-8"
    assert client.get("/static/icon.svg").headers["content-type"] == "image/svg+xml"


@pytest.mark.parametrize(
    "path",
    ["%2e%2e/app.py", "..%2fapp.py", "js/..%2f..%2fapp.py", "%2fetc%2fpasswd", "js", "", "js/", "js//main.js",
     "js%00/main.js", "JS/MAIN.JS", "..%5capp.py", "%252e%252e/app.py"],
)  # fmt: skip
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    answer = client.get(f"/static/{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "asset_not_found")


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "web" / "link.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(Problem):
        Assets(tmp_path / "web").answer("link.txt", asked())


def test_an_upgrade_shows_at_once(tmp_path: Path) -> None:
    file = tmp_path / "main.js"
    file.write_text("old")
    assets = Assets(tmp_path)
    before = assets.answer("main.js", asked())
    file.write_text("new")
    os.utime(file, ns=(1, 1))
    after = assets.answer("main.js", asked(if_none_match=before.headers["etag"]))
    assert (after.status_code, after.body) == (200, b"new")
    assert after.headers["cache-control"] == "no-cache"


def test_the_page_weighs_little() -> None:
    files = [path.read_bytes() for path in WEB.rglob("*") if path.is_file()]
    assert sum(len(content) for content in files) <= MOST_BYTES
    assert sum(len(gzip.compress(content)) for content in files) <= MOST_BYTES / 2


def test_the_page_names_nothing_elsewhere_and_has_nothing_inline(client: TestClient) -> None:
    text = client.get("/").text
    assert "http" not in text.replace("http-equiv", "")
    assert "//" not in text
    assert "<style" not in text
    assert " style=" not in text
    assert " onclick=" not in text
    assert text.count("<script") == len(re.findall(r'<script[^>]* src="/static/[^"]+"[^>]*></script>', text))
