"""An index of generated files, the server on it, and rows of an index without one."""

from __future__ import annotations

from pathlib import Path

from fastapi.testclient import TestClient

from helpers.tiny_encoder import TinyEncoder
from impart.serve.app import create_app
from impart.serve.settings import ServeSettings
from impart.video.decode.container import open_video
from impart.video.decode.streams import choose_stream
from impart.video.index.index import VideoIndex
from impart.video.index.store import VideoRecord, path_id


def client_of(folder: Path, *paths: Path, cache_mb: int = 64) -> tuple[TestClient, dict[str, str]]:
    """Index files into `folder/index`; return a client of its server, and the id of each file by its name."""
    index = VideoIndex.open(folder / "index", TinyEncoder())
    for _ in index.add(list(paths)):
        pass
    settings = ServeSettings(index=folder / "index", cache=folder / "cache", cache_mb=cache_mb)
    client = TestClient(create_app(settings), base_url="http://127.0.0.1:8420")
    return client, {path.name: path_id(path) for path in paths}


def record_of(path: Path, *, kind: str = "video", codec: str = "", duration_s: float | None = None) -> VideoRecord:
    """Make the row that an index would have for a file."""
    container = "image"
    if kind == "video":
        with open_video(path) as opened:
            stream = choose_stream(path, opened).stream
            codec = codec or stream.codec_context.codec.canonical_name
            container = opened.format.name
            duration_s = float(opened.duration or 0) / 1e6 if duration_s is None else duration_s
    status = path.stat()
    return VideoRecord(
        video_id=path_id(path),
        revision="0" * 16,
        path=path,
        size_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
        content_hash="hash",
        duration_s=duration_s or 0.0,
        width=0,
        height=0,
        codec=codec,
        container=container,
        fps=0.0,
        samples=0,
        segments=0,
        scene_starts=(),
        problem=None,
        indexed_at=0.0,
        kind=kind,  # type: ignore[arg-type]
    )
