"""The `impart` command: joins the commands, and prints an error as one line with an exit code.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 partly failed (the failures are listed, and recorded in the index).
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from typing import Annotated, Any, NoReturn

import typer

from impart.cli import data, demo, mcp, models, refset, serve, train
from impart.cli.eval import commands, reproduce
from impart.cli.video import copies, doctor, export, index, names, scenes, search, watch
from impart.errors import ImpartError, ImpartWarning

__all__ = ["app", "main"]

app = typer.Typer(
    name="impart",
    help="Search video by text or image down to the second, with a reference set that teaches the model new names.",
    epilog="Start with: impart demo    Then: impart index FOLDER, impart search 'a dog on a skateboard'",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("index")(index.index)
app.command("watch")(watch.watch)
app.command("pause")(watch.pause)
app.command("resume")(watch.resume)
app.command("search")(search.search)
app.command("similar")(search.similar)
app.command("scenes")(scenes.scenes)
app.command("export")(export.export)
app.command("duplicates")(copies.duplicates)
app.command("stats")(index.stats)
app.command("doctor")(doctor.doctor)
app.command("serve")(serve.serve)
app.command("mcp")(mcp.mcp)
app.command("train")(train.train)
app.add_typer(names.app, name="names")
app.add_typer(refset.app, name="refset")
app.add_typer(models.app, name="models")
app.add_typer(commands.app, name="eval")
app.add_typer(reproduce.app, name="reproduce")
app.add_typer(data.app, name="data")


def _print_version(wanted: bool) -> None:
    if wanted:
        from impart import __version__

        print(f"impart {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


_INTERRUPTED = 130
_PYTHONS_OWN = warnings.showwarning


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **keywords: Any) -> None:
    """Print a warning of IMPART as one line, and any other as Python does."""
    if issubclass(category, ImpartWarning):
        print(f"warning: {message}", file=sys.stderr)
    else:
        _PYTHONS_OWN(message, category, *place, **keywords)


def _show_device() -> None:
    """Print to stderr that a model runs on CUDA, as `impart.encoders.device` reports it."""
    log = logging.getLogger("impart.encoders.device")
    shown = logging.StreamHandler(sys.stderr)
    shown.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(shown)
    log.setLevel(logging.INFO)
    log.propagate = False


def main() -> None:
    """Run the command line; the entry point of the console script."""
    _show_device()
    warnings.simplefilter("always", ImpartWarning)
    warnings.showwarning = _show_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that is no text, or that the locale cannot print
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            app()
        finally:
            if sys.stdout is not None:  # it is None where the shell closed it
                sys.stdout.flush()
    except ImpartError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # rich and typer end with exit code 1 then
            _end_quietly()
        if end.code == _INTERRUPTED:  # typer's exit code after Ctrl-C
            print(
                "stopped; finished work is kept, and the same command (train: with --resume) continues from there",
                file=sys.stderr,
            )
        raise
    except BrokenPipeError:
        _end_quietly()
    except OSError as error:  # a closed folder, a full disk: what no command expects
        name = f"{error.filename}: " if error.filename else ""
        print(f"error: {name}{error.strerror or error}. Check the path, its permissions and the disk", file=sys.stderr)
        sys.exit(1)


def _end_quietly() -> NoReturn:
    """End with exit code 0: that the reader of the output has closed it (`impart search ... | head`) is no error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):  # what they hold back would fail at exit
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                os.dup2(nowhere, stream.fileno())
    sys.exit(0)
