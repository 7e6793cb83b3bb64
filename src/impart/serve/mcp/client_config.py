"""The configuration of clients: JSON with absolute paths, in the form `mcpServers` that most clients read."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from impart.video.index.remote.location import place_of

__all__ = ["http_config", "stdio_config"]


def stdio_config(index: Path, *, options: Sequence[str] = ()) -> dict[str, Any]:
    """Make the configuration of a client that starts the server itself.

    Args:
        index: folder of the index.
        options: further options of `impart mcp`.

    >>> stdio_config(Path("/films/library.impart"), options=["--allow-write"])["mcpServers"]["impart"]["args"]
    ['-m', 'impart', 'mcp', '--index', '/films/library.impart', '--allow-write']
    """
    # Of a virtual environment it is a link, and must stay one: the target does not know the environment.
    python = os.path.abspath(sys.executable)  # noqa: PTH100
    arguments = ["-m", "impart", "mcp", "--index", f"{place_of(index)}", *options]
    return {"mcpServers": {"impart": {"command": python, "args": arguments}}}


def http_config(url: str, *, token: bool) -> dict[str, Any]:
    """Make the configuration of a client that connects to a running server; it never contains the token itself.

    >>> http_config("http://127.0.0.1:8766/mcp", token=False)["mcpServers"]["impart"]["url"]
    'http://127.0.0.1:8766/mcp'
    """
    entry: dict[str, Any] = {"type": "http", "url": url}
    if token:
        entry["headers"] = {"Authorization": "Bearer TOKEN"}
    return {"mcpServers": {"impart": entry}}
