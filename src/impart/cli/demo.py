"""`impart demo`: makes, indexes and searches a small real library, in about a minute."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from impart.cli.output import Answer, Format, print_answers
from impart.config import DEFAULT_PORT

__all__ = ["demo"]

_DEFAULT_FOLDER = Path("impart-demo")


def demo(
    folder: Annotated[
        Path, typer.Option("--dir", help="Write the demo's videos and index to this folder.", metavar="DIR")
    ] = _DEFAULT_FOLDER,
    open_page: Annotated[
        bool, typer.Option("--open", help="Then serve the library, and open its page in the browser.")
    ] = False,
    port: Annotated[int, typer.Option(help="With --open, listen on this port; 0 = any that is free.")] = DEFAULT_PORT,
) -> None:
    """Make a small real library, index it, and search it by three sentences and one image. Nothing is downloaded."""
    from impart.cli.video.index import show_run
    from impart.data.demo import DEMO_IMAGE, DEMO_SENTENCES, make_demo_library
    from impart.video.index.index import VideoIndex

    started = time.monotonic()
    library, index_dir = folder / "library", folder / "library.impart"
    print(f"making a small library in {library}", file=sys.stderr)
    count = sum(1 for _ in make_demo_library(library))
    print(f"{count} videos in {library}")
    index = VideoIndex.open(index_dir)
    failed = show_run(index.add([library]), index_dir)
    image = folder / DEMO_IMAGE
    for sentence in DEMO_SENTENCES:
        print()
        answer = Answer(query=f'"{sentence}"', hits=index.search(text=sentence, top=3), extra={})
        print_answers([answer], Format.table, why=False)
    print()
    answer = Answer(query=f"the image {image}", hits=index.search(image=image, top=3), extra={})
    print_answers([answer], Format.table, why=False)
    print()
    scene = DEMO_SENTENCES[0]
    answer = Answer(query=f'"{scene}", scene by scene', hits=index.search(text=scene, group="scene", top=3), extra={})
    print_answers([answer], Format.table, why=False)
    print(f"\ndone in {time.monotonic() - started:.0f} s. Try next:")
    print(f"  impart search 'a cat' --index {index_dir} --why")
    print(f"  impart search --image {image} --group scene --index {index_dir}")
    print(f"  impart serve --open --index {index_dir}")
    print("  impart index YOUR_FOLDER && impart search 'a dog on a beach'")
    if failed and not open_page:
        raise typer.Exit(3)
    if open_page:
        from urllib.parse import urlencode

        from impart.cli.serve import serve_index
        from impart.serve.settings import ServeSettings

        query = f"?{urlencode({'q': DEMO_SENTENCES[0]})}"
        serve_index(ServeSettings(index=index_dir, port=port, roots=(folder,)), open_page=True, query=query)
