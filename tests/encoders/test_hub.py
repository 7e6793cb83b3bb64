"""Repositories of a hub on loopback: complete, missing, interrupted, cached; and the message without a network."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from impart.encoders.hub import HubName

pytest.importorskip("onnx", reason="tiny models are written with the onnx package (extra torch)")
from helpers import tiny_onnx

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "org/tiny"


class Hub:
    """A hub with one repository. Transfers of the file `broken` stop half way."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broken: str | None = None
        self.requests: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def log_message(self, *args: object) -> None:
                pass

            def answer(self, *, body: bool) -> None:
                path = self.path.partition("?")[0]
                hub.requests.append(path)
                for prefix in (f"/api/models/{REPO}/tree/", f"/api/models/{REPO}/revision/", f"/api/models/{REPO}"):
                    if path.startswith(prefix):
                        listing = hub.tree() if "/tree/" in path else hub.info()
                        return self.send(json.dumps(listing).encode(), "application/json", {}, body=body)
                name = path.removeprefix(f"/{REPO}/resolve/").partition("/")[2]
                file = hub.folder / name
                if not path.startswith(f"/{REPO}/resolve/") or not file.is_file():
                    code = "EntryNotFound" if path.startswith(f"/{REPO}/") else "RepoNotFound"
                    return self.send(b"", "text/plain", {"X-Error-Code": code}, body=body, status=404)
                content = file.read_bytes()
                etag = hashlib.sha1(content).hexdigest()
                headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
                return self.send(content, "application/octet-stream", headers, body=body, cut=name == hub.broken)

            def send(
                self,
                content: bytes,
                kind: str,
                headers: dict[str, str],
                *,
                body: bool,
                status: int = 200,
                cut: bool = False,
            ) -> None:
                self.send_response(status)
                for key, value in {**headers, "Content-Type": kind, "Content-Length": str(len(content))}.items():
                    self.send_header(key, value)
                self.end_headers()
                if body:
                    self.wfile.write(content[: len(content) // 2] if cut else content)
                if cut:
                    self.close_connection = True

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def names(self) -> list[str]:
        return [path.relative_to(self.folder).as_posix() for path in sorted(self.folder.rglob("*")) if path.is_file()]

    def info(self) -> dict[str, object]:
        return {"id": REPO, "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.names()]}

    def tree(self) -> list[dict[str, object]]:
        return [
            {
                "type": "file",
                "path": name,
                "size": (self.folder / name).stat().st_size,
                "oid": hashlib.sha1((self.folder / name).read_bytes()).hexdigest(),
            }
            for name in self.names()
        ]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = tiny_onnx.write_layout(tmp_path / "repository")
    (folder / "visual" / "fp16").mkdir()
    (folder / "visual" / "fp16" / "model.onnx").write_bytes(b"another format, not wanted")
    hub = Hub(folder)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


def run(code: str, tmp_path: Path, endpoint: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new process, because huggingface_hub reads its environment at import."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")},
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_ETAG_TIMEOUT": "5",
        "HF_HUB_DOWNLOAD_TIMEOUT": "5",
        **environ,
    }
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200)


ENCODE = f"""
from impart.encoders import load_encoder
from impart.errors import EncoderError
try:
    encoder = load_encoder("onnx:{REPO}")
    print(encoder.traits.id, encoder.encode_texts(["a red dog"]).shape)
except EncoderError as error:
    print(type(error).__name__, error)
"""


def test_repository_is_fetched_once_and_then_works_offline(hub: Hub, tmp_path: Path) -> None:
    first = run(ENCODE, tmp_path, hub.url)
    assert first.stdout.strip() == f"onnx:{REPO} (1, {tiny_onnx.DIM})", first.stderr
    assert not any("fp16" in request for request in hub.requests)
    asked = len(hub.requests)
    again = run(ENCODE, tmp_path, hub.url)
    assert again.stdout == first.stdout
    assert len(hub.requests) == asked  # a cached model needs no request


def test_missing_repository(hub: Hub, tmp_path: Path) -> None:
    result = run(ENCODE.replace(REPO, "org/other"), tmp_path, hub.url)
    assert result.stdout.startswith("EncoderNotFoundError"), result.stdout + result.stderr
    assert "'org/other'" in result.stdout


def test_repository_of_another_kind(hub: Hub, tmp_path: Path) -> None:
    (hub.folder / "textual" / "model.onnx").unlink()
    result = run(ENCODE, tmp_path, hub.url)
    assert result.stdout.startswith("EncoderError"), result.stdout + result.stderr
    assert "does not have the files" in result.stdout


@pytest.mark.slow
def test_interrupted_transfer_is_continued(hub: Hub, tmp_path: Path) -> None:
    hub.broken = "visual/model.onnx"
    result = run(ENCODE, tmp_path, hub.url)
    assert result.stdout.startswith("EncoderError"), result.stdout + result.stderr
    assert f"{REPO!r} could not be fetched" in result.stdout
    assert "try again" in result.stdout
    hub.broken = None
    assert run(ENCODE, tmp_path, hub.url).stdout.startswith(f"onnx:{REPO}")


def test_no_network(tmp_path: Path) -> None:
    result = run(ENCODE, tmp_path, "http://127.0.0.1:9")  # the discard port, where no server listens
    assert result.stdout.startswith("EncoderError"), result.stdout + result.stderr
    assert f"{REPO!r} could not be fetched" in result.stdout
    assert "local folder" in result.stdout
    offline = run(ENCODE, tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert f"{REPO!r} could not be fetched" in offline.stdout


def test_get_into_a_folder(hub: Hub, tmp_path: Path) -> None:
    code = f"from impart.cli.models import app; app(['get', 'onnx:{REPO}', {str(tmp_path / 'here')!r}])"
    result = run(code, tmp_path, hub.url)
    assert result.stdout.strip() == f"onnx:{tmp_path / 'here'}", result.stderr
    assert (tmp_path / "here" / "visual" / "model.onnx").is_file()
    assert not (tmp_path / "here" / "visual" / "fp16").exists()


@pytest.mark.parametrize(
    ("name", "repo", "folder", "revision"),
    [
        ("org/name", "org/name", "", None),
        ("org/name/int8", "org/name", "int8", None),
        ("org/name@v1.0", "org/name", "", "v1.0"),
        ("org/na.me_x-1/a/b@refs/pr/3", "org/na.me_x-1", "a/b", "refs/pr/3"),
    ],
)
def test_names(name: str, repo: str, folder: str, revision: str | None) -> None:
    assert HubName.parse(name) == HubName(repo=repo, folder=folder, revision=revision)


@pytest.mark.parametrize(
    "name", ["", "name", "/org/name", "../org/name", "./name", "org/../name", "C:\\models", "a b/c"]
)
def test_invalid_names(name: str) -> None:
    assert HubName.parse(name) is None
