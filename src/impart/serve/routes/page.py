"""The page and its assets, from the package: only files that are in `web/`, compressed where the browser takes it."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response

from impart.files import sha256_hex
from impart.serve.problems import Problem

__all__ = ["WEB", "Assets", "add_assets", "router"]

WEB: Final = Path(__file__).parent.parent / "web"
_TYPES: Final = {  # of files that are sent compressed
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".txt": "text/plain; charset=utf-8",
}
_PLAIN_TYPES: Final = {".png": "image/png", ".webp": "image/webp", ".woff2": "font/woff2", ".ico": "image/x-icon"}

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class _Asset:
    changed_ns: int
    content: bytes
    compressed: bytes | None
    etag: str
    media_type: str


class Assets:
    """The files of a folder, kept in memory; a file that changes is read again.

    Args:
        folder: with all assets; nothing outside it is served, also not through a link.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = {
            file.relative_to(folder).as_posix(): file
            for file in folder.rglob("*")
            if file.is_file() and not file.is_symlink() and file.suffix in _TYPES | _PLAIN_TYPES
        }
        self._kept: dict[str, _Asset] = {}

    def answer(self, name: str, request: Request) -> Response:
        """Answer a request for a file; 304 where the browser has it.

        Args:
            name: with `/` between folders, such as `js/main.js`.

        Raises:
            Problem: 404, there is none of this name.
        """
        if name not in self._files:
            raise Problem(404, "asset_not_found", f"the page has no file {name[:200]!r}")
        asset = self._asset(name)
        compressed = asset.compressed is not None and _takes_gzip(request)
        etag = f'"{asset.etag}{"-gzip" if compressed else ""}"'
        headers = {"ETag": etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
        if known & {etag, "*"}:
            return Response(status_code=304, headers=headers)
        if compressed:
            headers["Content-Encoding"] = "gzip"
        return Response(asset.compressed if compressed else asset.content, media_type=asset.media_type, headers=headers)

    def _asset(self, name: str) -> _Asset:
        file = self._files[name]
        changed_ns = file.stat().st_mtime_ns
        kept = self._kept.get(name)
        if kept is None or kept.changed_ns != changed_ns:
            content = file.read_bytes()
            kept = _Asset(
                changed_ns=changed_ns,
                content=content,
                compressed=gzip.compress(content, mtime=0) if file.suffix in _TYPES else None,
                etag=sha256_hex(content)[:24],
                media_type=(_TYPES | _PLAIN_TYPES)[file.suffix],
            )
            self._kept[name] = kept
        return kept


def add_assets(app: FastAPI) -> None:
    """Serve `web/` below `/static`, and its `index.html` as the page."""
    app.state.assets = Assets(WEB)


@router.api_route("/", methods=["GET", "HEAD"])
async def page(request: Request) -> Response:
    """Return the page."""
    return _assets(request).answer("index.html", request)


@router.api_route("/static/{name:path}", methods=["GET", "HEAD"])
async def static(name: str, request: Request) -> Response:
    """Return a file of the page."""
    return _assets(request).answer(name, request)


def _assets(request: Request) -> Assets:
    assets = request.app.state.assets
    assert isinstance(assets, Assets)
    return assets


def _takes_gzip(request: Request) -> bool:
    """Tell whether the browser takes gzip.

    >>> from starlette.requests import Request
    >>> _takes_gzip(Request({"type": "http", "headers": [(b"accept-encoding", b"br, gzip;q=0")]}))
    False
    """
    for part in request.headers.get("accept-encoding", "").split(","):
        name, _, weight = part.replace(" ", "").partition(";q=")
        if name.lower() in ("gzip", "*"):
            return weight == "" or weight.strip("0.") != ""
    return False
