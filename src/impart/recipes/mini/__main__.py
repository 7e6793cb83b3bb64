"""Make the bundled model `mini` with one command.

    python -m impart.recipes.mini --collect --data ../shared/data --images images --out mini

`--images` adds the images of a folder. `--collect` first fetches into it what `configs/mini_sources.toml` lists, as
`python -m impart.recipes.mini.collect` does. Further data is a further folder there. `--device cuda` trains the heads
on a GPU.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from impart.errors import ImpartError
from impart.recipes.mini.collect.source_list import read_source_list
from impart.recipes.mini.collect.sources import collect_all
from impart.recipes.mini.config import load_config
from impart.recipes.mini.recipe import LOG_LINE, train_mini

__all__ = ["main"]

_log = logging.getLogger("impart.recipes.mini")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the recipe from the command line, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m impart.recipes.mini", description="Train the bundled model `mini`."
    )
    parser.add_argument("--data", type=Path, required=True, help="development data, the folder with images/ in it")
    parser.add_argument("--images", type=Path, help="more images, one folder per source")
    parser.add_argument(
        "--collect", action="store_true", help="first fetch what --images lacks (needs git and the network)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the model's files")
    parser.add_argument("--config", type=Path, help="recipe (TOML); default: the bundled configs/mini.toml")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path.home() / ".cache" / "impart" / "train",
        help="features and sentence embeddings; default: ~/.cache/impart/train",
    )
    parser.add_argument("--device", default="cpu", help="torch device, such as cuda")
    options = parser.parse_args(arguments)
    if options.collect and options.images is None:
        parser.error("--collect needs --images DIR, the folder to collect into")
    logging.basicConfig(level=logging.WARNING, format=LOG_LINE, stream=sys.stderr)
    logging.getLogger("impart").setLevel(logging.INFO)
    try:
        config = load_config(options.config)
        if options.collect:
            for report in collect_all(read_source_list(), options.images, data=options.data):
                _log.info("%s", report)
        train_mini(options.data, options.out, options.cache, config=config, more=options.images, device=options.device)
    except ImpartError as error:
        _log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
