"""The MCP server of an index: which tools it lists, and how it runs on standard input and output.

server = make_server(Library(VideoIndex.open("library.impart", create=False)))
server.run("stdio")
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.types import ToolAnnotations

import impart
from impart.serve.mcp.library import Library
from impart.serve.mcp.read_tools import ReadTools
from impart.serve.mcp.write_tools import WriteTools

__all__ = ["make_server"]

_INSTRUCTIONS = """\
Searches a library of videos and photos by what is seen in them, down to the second.
Begin with `library`, then `search_moments`. Videos are named by video_id; times are seconds from their start.
State moments to people as file name and timecode. Check doubtful results with `get_frame`."""


def make_server(library: Library) -> MCPServer[Any]:
    """Make the server. Tools that write are listed only where the library may be written."""

    @asynccontextmanager
    async def warm(_: MCPServer[Any]) -> AsyncIterator[None]:
        library.warm_up()  # not earlier: from here on, what a model prints does not reach standard output
        yield

    server: MCPServer[Any] = MCPServer(
        "impart",
        title="IMPART video search",
        instructions=_INSTRUCTIONS,
        version=impart.__version__,
        log_level="WARNING",
        lifespan=warm,
    )
    read = ReadTools(library)
    _add(server, read.library, "Contents of the library")
    _add(server, read.search_moments, "Search moments by words")
    _add(server, read.similar, "Find similar moments")
    _add(server, read.find_name, "Find a taught name")
    _add(server, read.names, "Taught names")
    _add(server, read.videos, "List videos")
    _add(server, read.scenes, "Scenes of a video")
    _add(server, read.get_frame, "Show a frame")
    _add(server, read.export_timeline, "Timeline as text")
    if library.may_write:
        write = WriteTools(library)
        _add(server, write.teach_name, "Teach a name", writes=True)
        _add(server, write.rename_name, "Rename a name", writes=True, destructive=True)
        _add(server, write.remove_name, "Remove a name", writes=True, destructive=True)
        if library.exports is not None:
            _add(server, write.save_timeline, "Save a timeline", writes=True)
    return server


def _add(
    server: MCPServer[Any],
    tool: Callable[..., Any],
    title: str,
    *,
    writes: bool = False,
    destructive: bool = False,
) -> None:
    """Add a tool with what a client may know about it; none of them leaves this machine."""
    annotations = ToolAnnotations(
        title=title,
        read_only_hint=not writes,
        destructive_hint=destructive,
        idempotent_hint=not writes,
        open_world_hint=False,
    )
    server.add_tool(tool, title=title, description=inspect.getdoc(tool), annotations=annotations)
