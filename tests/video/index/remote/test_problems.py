"""What a person reads where object storage cannot be used: bucket and remedy, within seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from helpers.s3_server import S3Server
from helpers.tiny_encoder import TinyEncoder
from impart.cli.main import app
from impart.errors import ConfigError, VideoIndexError
from impart.video.index.index import VideoIndex
from impart.video.index.remote.location import Location
from impart.video.index.remote.mirror import mirror_of
from impart.video.index.remote.problems import problem_of


@pytest.fixture
def denied(server: S3Server) -> Iterator[None]:
    server.deny(True)
    yield
    server.deny(False)


def problem(url: str) -> str:
    began = time.monotonic()
    with pytest.raises(VideoIndexError) as caught:
        VideoIndex.open(url, TinyEncoder())
    assert time.monotonic() - began < 10
    return str(caught.value)


def test_no_server(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    text = problem(url)
    assert f"the index {url}" in text
    assert (
        "the server of the bucket 'films' does not answer (http://127.0.0.1:9): check the network and AWS_END" in text
    )


def test_no_bucket(url: str) -> None:
    assert "there is no bucket 'nowhere'" in problem("s3://nowhere/library.impart")


@pytest.mark.usefixtures("denied")
def test_denied(url: str) -> None:
    text = problem(url)
    assert "access to the bucket 'films' is denied" in text
    assert "check the credentials (AWS_ACCESS_KEY_ID" in text


@pytest.mark.usefixtures("denied")
def test_no_credentials(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "there are no credentials for the bucket 'films': set AWS_ACCESS_KEY_ID" in problem(url)


@pytest.mark.usefixtures("denied")
def test_a_denied_index_while_it_is_open(url: str, server: S3Server, films: Path) -> None:
    server.deny(False)
    index = VideoIndex.open(url, TinyEncoder())
    list(index.add([]))
    index.videos()
    server.deny(True)
    for use in (lambda: index.search(text="red"), lambda: list(index.add([films])), index.stats):
        with pytest.raises(VideoIndexError, match="access to the bucket 'films' is denied"):
            use()
    with pytest.raises(VideoIndexError, match="access to the bucket 'films' is denied"):
        index._reading.read("videos")


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [("storage.example.org", "must be a URL"), ("http://storage.example.org", "is not encrypted: use https")],
)
def test_an_endpoint_that_cannot_be_used(url: str, endpoint: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(ConfigError, match=said):
        VideoIndex.open(url, TinyEncoder())


def test_no_index_at_a_url(url: str) -> None:
    with pytest.raises(VideoIndexError, match=f"there is no video index in {url}: make one with .* --index {url}"):
        VideoIndex.open(url, create=False)


def test_a_prefix_with_other_objects_is_no_place_for_an_index(url: str) -> None:
    index = VideoIndex.open(url, TinyEncoder())
    mirror = mirror_of(index.path)
    assert mirror is not None
    mirror.bucket.write("locks/names/killed.json", b"{}")  # of a run that ended before its first table
    mirror.bucket.write("notes.txt", b"mine")
    with pytest.raises(VideoIndexError, match=f"{url} is no index and contains other files .notes.txt"):
        list(index.add([]))
    mirror.bucket.delete("notes.txt")
    list(index.add([]))
    assert index.exists


@pytest.mark.parametrize("text", ["s3://films", "s4://films/library.impart", "s3://films/a*b|c"])
@pytest.mark.parametrize("command", [("stats",), ("search", "red"), ("names", "list"), ("duplicates",), ("scenes",)])
def test_commands_refuse_a_url_that_is_none(text: str, command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*command, "--index", text])
    assert isinstance(result.exception, ConfigError)
    assert text in str(result.exception)


def test_other_errors_stay_as_they_are() -> None:
    assert problem_of(ValueError("column 'x' is missing"), Location("s3", "films", "x")) is None
