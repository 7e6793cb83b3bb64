"""`impart mcp`: offer an index as tools to an assistant, over standard input and output or HTTP."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from impart.cli.options import DEFAULT_INDEX, IndexOption, ThreadsOption
from impart.cli.serve import read_token
from impart.config import DEFAULT_HOST, DEFAULT_PORT
from impart.errors import MissingExtraError

if TYPE_CHECKING:
    from impart.serve.settings import ServeSettings
    from impart.video.index.index import VideoIndex

__all__ = ["mcp"]

PORT = DEFAULT_PORT + 1  # beside `impart serve`


def mcp(
    index_dir: IndexOption = DEFAULT_INDEX,
    http: Annotated[
        bool, typer.Option("--http", help="Answer over HTTP; without it, over standard input and output.")
    ] = False,
    host: Annotated[
        str, typer.Option(help="With --http, listen on this address; any but this machine's own needs --token-file.")
    ] = DEFAULT_HOST,
    port: Annotated[
        int, typer.Option(help="With --http, listen on this port; 0 = a free one.", min=0, max=65535)
    ] = PORT,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --http, answer only requests that have the token in this file."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="With --http, also answer requests to this host name; may be repeated."),
    ] = None,
    allow_write: Annotated[
        bool, typer.Option("--allow-write", help="Also offer the tools that teach, rename and remove names.")
    ] = False,
    exports: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="With --allow-write, also offer a tool that saves timelines in this folder."),
    ] = None,
    config: Annotated[
        bool, typer.Option("--config", help="Only print the JSON configuration for clients, with these options.")
    ] = False,
    threads: ThreadsOption = 0,
) -> None:
    """Offer an index as tools to an assistant, by the Model Context Protocol (MCP). It only reads, by default.

    Tools: search by words, similar moments, scenes, taught names, frames as images, timelines for editors. Videos are
    named by ids; no tool takes a path.

    impart mcp --config prints what a client such as Claude Desktop, Claude Code or Cursor needs to start it.
    """
    if exports is not None and not allow_write:
        raise typer.BadParameter("--exports needs --allow-write: saving a timeline writes a file")
    if not http and token_file is not None:
        raise typer.BadParameter("--token-file needs --http: standard input and output belong to one client alone")
    if not http and (host != DEFAULT_HOST or port != PORT or allow_host):
        raise typer.BadParameter("--host, --port and --allow-host need --http")
    if config and http and port == 0:
        raise typer.BadParameter("--config needs a --port that stays the same: not 0")
    opened = _open(index_dir, threads)
    settings = _settings(index_dir, host=host, port=port, token_file=token_file, names=allow_host or [])
    if config:
        options = _options(allow_write=allow_write, exports=exports, threads=threads)
        _print_config(settings, http=http, token_file=token_file, options=options)
        return
    try:
        from impart.serve.mcp.server import make_server
    except ModuleNotFoundError as error:
        raise MissingExtraError("mcp", extra="mcp", purpose="impart mcp") from error
    from impart.serve.mcp.library import Library

    library = Library(opened, may_write=allow_write, exports=exports.expanduser().absolute() if exports else None)
    server = make_server(library)
    if not http:
        if sys.stdin is not None and sys.stdin.isatty():
            print("waiting for a client; 'impart mcp --config' prints what it needs (Ctrl-C stops)", file=sys.stderr)
        server.run("stdio")
        return
    from impart.serve.mcp.http import make_http_app, serve_http
    from impart.serve.run import listen

    opened_socket = listen(settings)
    print(f"MCP server of {index_dir}: {_url(host, opened_socket.getsockname()[1])} (Ctrl-C stops it)", file=sys.stderr)
    serve_http(make_http_app(server, settings), opened_socket)


def _open(index_dir: Path, threads: int) -> VideoIndex:
    from impart.cli.options import settings_for
    from impart.video.index.index import VideoIndex
    from impart.video.index.manifest import IndexManifest

    settings = settings_for(IndexManifest.load(index_dir), None, {"encoder.threads": threads or None})
    return VideoIndex.open(index_dir, create=False, settings=settings)


def _settings(index_dir: Path, *, host: str, port: int, token_file: Path | None, names: list[str]) -> ServeSettings:
    from impart.serve.safety.hosts import check_names
    from impart.serve.settings import ServeSettings

    check_names(names)
    token = None if token_file is None else read_token(token_file)
    return ServeSettings(index=index_dir, host=host, port=port, token=token, hosts=tuple(names))


def _options(*, allow_write: bool, exports: Path | None, threads: int) -> list[str]:
    """List the options of a configured server."""
    options = ["--allow-write"] if allow_write else []
    options += ["--exports", str(exports.expanduser().absolute())] if exports else []
    return [*options, *(["--threads", str(threads)] if threads else [])]


def _print_config(settings: ServeSettings, *, http: bool, token_file: Path | None, options: list[str]) -> None:
    from impart.serve.mcp.client_config import http_config, stdio_config
    from impart.serve.settings import EVERY_ADDRESS

    if http:
        host = EVERY_ADDRESS.get(settings.host, settings.host)
        values = http_config(_url(host, settings.port), token=token_file is not None)
    else:
        values = stdio_config(settings.index, options=options)
    print(json.dumps(values, indent=2))
    print(
        "Put it into claude_desktop_config.json (Claude Desktop), .mcp.json (Claude Code), .cursor/mcp.json (Cursor) "
        "or the like; where that file has mcpServers already, add the entry impart to it. In "
        ".vscode/mcp.json (VS Code) the key is servers.",
        file=sys.stderr,
    )
    if token_file is not None:
        print(f"Replace TOKEN with the content of {token_file}.", file=sys.stderr)
    if http:
        if settings.host in EVERY_ADDRESS:
            print("On other machines, replace the host by this machine's address or name.", file=sys.stderr)
        print("The server must run: the same command without --config starts it.", file=sys.stderr)


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/mcp"
