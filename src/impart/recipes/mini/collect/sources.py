"""More training images for `mini`, collected again from the public git repositories that hold them.

    python -m impart.recipes.mini.collect.sources --data ../shared/data --out DIR [--only NAME] [--repositories DIR]

`configs/mini_sources.toml` lists repositories, commits, path patterns, where texts come from, and licences as stated.
Each source becomes a folder `DIR/<name>/` with `images/*.jpg` and `captions.csv` (`file,text,text2,label`). An image
with several captions has several rows. Sources that are there already are skipped, so that a run which was stopped goes
on where it was.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from impart.errors import ConfigError, DataError, ImpartError
from impart.files import move_synced, sha256_hex, sha256_of_file
from impart.recipes.mini.collect.git_images import Item, contents, items_of, repository
from impart.recipes.mini.collect.guard import Guard, Prints, clean, evaluation_images, looks_drawn, prints_of
from impart.recipes.mini.collect.source_list import Recipe, Source, read_recipe

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Collected", "collect", "collect_all", "main"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What became of one source: counts of images.

    Attributes:
        name: of the source.
        kept: images written.
        labels: distinct labels among them.
        broken: not decoded, too small or too long.
        drawn: clip art and diagrams.
        repeated: the same image as one before it or as one that is trained on already.
        guarded: near-duplicates of evaluation images.
    """

    name: str
    kept: int
    labels: int
    broken: int
    drawn: int
    repeated: int
    guarded: int


def collect_all(
    recipe: Recipe, out: Path, *, data: Path, repositories: Path | None = None, only: str | None = None
) -> Iterator[Collected]:
    """Collect every source that is not there yet, and say what became of each.

    Args:
        recipe: the sources.
        out: where folders are written.
        data: the development data that holds the evaluation images to be kept out.
        repositories: where clones are kept, `out/.repositories` by default; one that has the commit is not fetched.
        only: the name of the one source to collect.

    Raises:
        ConfigError: no source is called `only`.
        DataError: an evaluation folder is missing, or a repository cannot be had.
    """
    chosen = [source for source in recipe.sources if only in (None, source.name)]
    if not chosen:
        raise ConfigError(f"no source is called {only!r}; there are {', '.join(s.name for s in recipe.sources)}")
    todo = [source for source in chosen if not (out / source.name / "captions.csv").is_file()]
    if not todo:
        return
    cache = out / ".guard"
    guard = Guard.of_files(evaluation_images(data, recipe.guarded), cache=cache)
    known = Guard.of_files(evaluation_images(data, recipe.known), cache=cache)
    for source in todo:
        git = repository(source, repositories or out / ".repositories")
        yield collect(source, git, out, recipe=recipe, guard=guard, known=known)


def collect(source: Source, git: Path, out: Path, *, recipe: Recipe, guard: Guard, known: Guard) -> Collected:
    """Write the folder of one source from a git directory that has its commit.

    The folder appears when it is whole: it is written beside its place and moved there.

    Raises:
        DataError: the pattern finds no image, a caption file is missing or unfit, or nothing is left.
    """
    items = list(items_of(source, git, seed=recipe.seed))
    if not items:
        raise DataError(
            f"{source.name}: no image at {source.commit[:8]} fits {source.images!r}; "
            f"see `git ls-tree -r --name-only {source.commit[:8]}` in {git}"
        )
    earlier = _written(out, recipe, before=source.name)
    part = out / f".{source.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    (part / "images").mkdir(parents=True)
    lost = dict.fromkeys(("broken", "drawn", "repeated", "guarded"), 0)
    taken: Counter[str] = Counter()
    rows: list[tuple[str, str, str, str]] = []
    for batch in _batches(zip(items, contents(git, [item.blob for item in items]), strict=True)):
        if source.limit and taken.total() >= source.limit:
            break
        cleaned = [
            (at, item, content, image)
            for at, item, content in batch
            if not (source.per_label and taken[item.label] >= source.per_label)
            and (image := _accepted(content, source, recipe, lost)) is not None
        ]
        prints = Prints.join([prints_of(image) for *_, image in cleaned])
        held, seen = guard.copies(prints), known.copies(prints)
        for (at, item, content, image), is_held, is_seen in zip(cleaned, held, seen, strict=True):
            if is_held or guard.is_known_file(content):
                lost["guarded"] += 1
                continue
            if source.per_label and taken[item.label] >= source.per_label:
                continue
            if source.limit and taken.total() >= source.limit:
                break
            stored = io.BytesIO()
            image.save(stored, "JPEG", quality=recipe.quality)
            digest = sha256_hex(stored.getvalue())
            if is_seen or digest in earlier:
                lost["repeated"] += 1
                continue
            earlier.add(digest)
            file = f"{source.name}_{at:05d}_{_slug(item.label)}.jpg"
            (part / "images" / file).write_bytes(stored.getvalue())
            taken[item.label] += 1
            rows += [(file, text, "", item.label) for text in item.texts]
    if not rows:
        raise DataError(f"{source.name}: none of {len(items)} images is left after cleaning: {lost}")
    with (part / "captions.csv").open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(("file", "text", "text2", "label"))
        writer.writerows(rows)
    report = Collected(name=source.name, kept=taken.total(), labels=len(taken), **lost)
    (part / "source.json").write_text(json.dumps({**asdict(source), **asdict(report)}, indent=1, ensure_ascii=False))
    shutil.rmtree(out / source.name, ignore_errors=True)
    move_synced(part, out / source.name)
    return report


def _batches(pairs: Iterator[tuple[Item, bytes]], size: int = 64) -> Iterator[list[tuple[int, Item, bytes]]]:
    numbered = ((at, item, content) for at, (item, content) in enumerate(pairs))
    while batch := list(islice(numbered, size)):
        yield batch


def _accepted(content: bytes, source: Source, recipe: Recipe, lost: dict[str, int]) -> Image.Image | None:
    """The cleaned image, or None after counting why not."""
    image = clean(
        content,
        min_side_px=source.min_side_px or recipe.min_side_px,
        short_side_px=recipe.short_side_px,
        trim=source.trim,
    )
    if image is None:
        lost["broken"] += 1
    elif not source.drawn and looks_drawn(image):
        lost["drawn"] += 1
        return None
    return image


def _written(out: Path, recipe: Recipe, *, before: str) -> set[str]:
    """Digests of the images that sources earlier in the recipe have written."""
    digests: set[str] = set()
    for source in recipe.sources:
        if source.name == before:
            break
        digests |= _digests(out / source.name)
    return digests


@cache
def _digests(folder: Path) -> frozenset[str]:
    return frozenset(sha256_of_file(path) for path in folder.glob("images/*.jpg"))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:40]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of the collection."""
    parser = argparse.ArgumentParser(
        prog="python -m impart.recipes.mini.collect.sources", description="Collect training images."
    )
    parser.add_argument("--data", type=Path, required=True, help="development data, whose evaluation images stay out")
    parser.add_argument("--out", type=Path, required=True, help="folder for the sources' folders")
    parser.add_argument("--only", help="name of one source")
    parser.add_argument("--config", type=Path, help="recipe (TOML); default: the bundled configs/mini_sources.toml")
    parser.add_argument("--repositories", type=Path, help="where clones are kept; default: OUT/.repositories")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("impart").setLevel(logging.INFO)
    try:
        recipe = read_recipe(options.config)
        for report in collect_all(
            recipe, options.out, data=options.data, repositories=options.repositories, only=options.only
        ):
            _log.info("%s", report)
    except ImpartError as error:
        _log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
