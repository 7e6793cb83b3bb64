"""A server of object storage, and indexes on it as two machines see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.clips import write_clip
from helpers.s3_server import BUCKET, S3Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    pytest.importorskip("moto")
    with S3Server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def on_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Go on as another machine, which has a cache folder of its own."""

    def change(name: str) -> None:
        monkeypatch.setenv("IMPART_CACHE", str(tmp_path / name))

    return change


@pytest.fixture
def url(
    server: S3Server, monkeypatch: pytest.MonkeyPatch, on_machine: Callable[[str], None], request: pytest.FixtureRequest
) -> str:
    """URL of an index that is not there yet; the test runs on machine `here`."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    on_machine("here")
    return f"s3://{BUCKET}/{request.node.name}/library.impart"


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    for name in ("red", "green", "blue"):
        write_clip(folder / f"{name}.mp4", colours=[name, "white"], seconds_each=0.5)
    return folder
