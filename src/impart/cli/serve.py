"""`impart serve`: the page and the API of one index."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from impart.cli.options import DEFAULT_INDEX, DeviceOption, IndexOption
from impart.config import DEFAULT_HOST, DEFAULT_PORT, REQUESTS_PER_S, EncoderSettings
from impart.errors import ConfigError

if TYPE_CHECKING:
    from impart.serve.settings import ServeSettings

__all__ = ["read_token", "serve", "serve_index"]


def serve(
    index_dir: IndexOption = DEFAULT_INDEX,
    host: Annotated[
        str, typer.Option(help="Listen on this address. Any but this machine's own needs --token-file.")
    ] = DEFAULT_HOST,
    port: Annotated[
        int, typer.Option(help="Listen on this port; 0 = any that is free.", min=0, max=65535)
    ] = DEFAULT_PORT,
    token_file: Annotated[
        Path | None,
        typer.Option(help="Ask every client for the token in this file (one line).", metavar="FILE"),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Also answer requests to this host name, such as that of a proxy; may be repeated."),
    ] = None,
    root: Annotated[
        list[Path] | None,
        typer.Option(
            help="Let the page index this folder; may be repeated. Default: the folders of the indexed videos.",
            metavar="FOLDER",
        ),
    ] = None,
    refset: Annotated[
        list[Path] | None,
        typer.Option(
            help="Let the page put this reference set in force, or those in this folder; may be repeated.",
            metavar="DIR",
        ),
    ] = None,
    rate: Annotated[
        float,
        typer.Option(help="Answer this many requests per client and second; more are refused for a while.", min=0.1),
    ] = REQUESTS_PER_S,
    device: DeviceOption = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Refuse indexing, names and exports.")] = False,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Serve a page and an HTTP API to search, teach names and export, for this index.

    Example: impart index ~/Videos, then: impart serve --open
    """
    from impart.serve.settings import ServeSettings

    settings = ServeSettings(
        index=index_dir,
        host=host,
        port=port,
        token=None if token_file is None else read_token(token_file),
        hosts=tuple(allow_host or ()),
        roots=tuple(root or ()),
        refsets=tuple(refset or ()),
        requests_per_s=rate,
        device=device or EncoderSettings.device,
        read_only=read_only,
    )
    serve_index(settings, open_page=open_page)


def serve_index(settings: ServeSettings, *, open_page: bool, query: str = "") -> None:
    """Serve until Ctrl-C.

    Args:
        open_page: whether to open the page in the browser.
        query: of the page's address, such as `?q=a+cat`.
    """
    from impart.serve.run import check_start, listen, run
    from impart.serve.settings import EVERY_ADDRESS

    check_start(settings)
    opened = listen(settings)
    settings = dataclasses.replace(settings, port=opened.getsockname()[1])
    address = settings.address + query

    def ready() -> None:
        print(f"serving {settings.index} at {address} (stop with Ctrl-C)", file=sys.stderr)
        if settings.token is not None:
            print("the page asks for the token once; programs send: Authorization: Bearer TOKEN", file=sys.stderr)
        if settings.host in EVERY_ADDRESS:
            print("from other machines: this machine's address, or a name given with --allow-host", file=sys.stderr)
        for root in settings.roots:
            if not root.is_dir():
                print(f"note: there is no folder {root}: it can be indexed when it is there", file=sys.stderr)
        if open_page:
            import webbrowser

            webbrowser.open(address)

    run(settings, opened, on_ready=ready)


def read_token(file: Path) -> str:
    """Read the token of a server: one line.

    Raises:
        ConfigError: the file cannot be read, or has none.
    """
    try:
        token = file.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the token file {file}: {error}") from error
    if not token or not all("!" <= letter <= "~" for letter in token):  # other letters cannot be sent in a header
        raise ConfigError(
            f"the token file {file} must have one line of ASCII letters without spaces, such as one made by: "
            "openssl rand -hex 24"
        )
    return token
