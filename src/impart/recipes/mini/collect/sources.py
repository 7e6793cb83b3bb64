"""Collect further training images for `mini` from public git repositories.

    python -m impart.recipes.mini.collect --data ../shared/data --out DIR [--only NAME] [--repositories DIR]

`configs/mini_sources.toml` lists repositories, commits, path patterns, origins of texts, and licences as stated. Each
source becomes a folder `DIR/<name>/` with `images/*.jpg` and `captions.csv` (`file,text,text2,label`). An image with
several captions has several rows. Sources that are there already are skipped, so a stopped run can be continued.
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
from impart.recipes.mini.collect.source_list import Source, SourceList, read_source_list

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Collected", "collect", "collect_all", "main"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Collected:
    """Counts of the images of one source.

    Attributes:
        name: of the source.
        kept: images written.
        labels: distinct labels among them.
        broken: not decoded, too small or too long.
        drawn: clip art and diagrams.
        repeated: equal to an earlier image, or trained on already.
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
    listed: SourceList, out: Path, *, data: Path, repositories: Path | None = None, only: str | None = None
) -> Iterator[Collected]:
    """Collect every source that is not there yet.

    Args:
        listed: the sources.
        out: the sources' folders are written here.
        data: the development data, with the evaluation images that must not be collected.
        repositories: folder of the clones, `out/.repositories` by default; one that has the commit is not fetched.
        only: the name of the one source to collect.

    Yields:
        Counts of each source.

    Raises:
        ConfigError: no source is called `only`.
        DataError: an evaluation folder is missing, or a repository cannot be fetched.
    """
    chosen = [source for source in listed.sources if only in (None, source.name)]
    if not chosen:
        raise ConfigError(f"there is no source {only!r}; there are {', '.join(s.name for s in listed.sources)}")
    todo = [source for source in chosen if not (out / source.name / "captions.csv").is_file()]
    if not todo:
        return
    cache = out / ".guard"
    guard = Guard.of_files(evaluation_images(data, listed.guarded), cache=cache)
    known = Guard.of_files(evaluation_images(data, listed.known), cache=cache)
    for source in todo:
        git = repository(source, repositories or out / ".repositories")
        yield collect(source, git, out, listed=listed, guard=guard, known=known)


def collect(source: Source, git: Path, out: Path, *, listed: SourceList, guard: Guard, known: Guard) -> Collected:
    """Write the folder of one source from a git directory that has its commit.

    The folder is written under a temporary name and renamed when it is complete.

    Raises:
        DataError: the pattern finds no image, a caption file is missing or unfit, or nothing is left.
    """
    items = list(items_of(source, git, seed=listed.seed))
    if not items:
        raise DataError(
            f"{source.name}: no image at {source.commit[:8]} fits {source.images!r}; "
            f"see `git ls-tree -r --name-only {source.commit[:8]}` in {git}"
        )
    earlier = _written(out, listed, before=source.name)
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
            and (image := _accepted(content, source, listed, lost)) is not None
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
            image.save(stored, "JPEG", quality=listed.quality)
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


def _accepted(content: bytes, source: Source, listed: SourceList, lost: dict[str, int]) -> Image.Image | None:
    """Clean an image; count the reason and return None if it is left out."""
    image = clean(
        content,
        min_side_px=source.min_side_px or listed.min_side_px,
        short_side_px=listed.short_side_px,
        trim=source.trim,
    )
    if image is None:
        lost["broken"] += 1
    elif not source.drawn and looks_drawn(image):
        lost["drawn"] += 1
        return None
    return image


def _written(out: Path, listed: SourceList, *, before: str) -> set[str]:
    """Return the digests of the images of earlier sources of the list."""
    digests: set[str] = set()
    for source in listed.sources:
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
    """Collect from the command line, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m impart.recipes.mini.collect", description="Collect training images."
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="development data; its evaluation images are not collected"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the sources' folders")
    parser.add_argument("--only", help="name of one source")
    parser.add_argument("--config", type=Path, help="source list (TOML); default: the bundled mini_sources.toml")
    parser.add_argument("--repositories", type=Path, help="folder of the clones; default: OUT/.repositories")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("impart").setLevel(logging.INFO)
    try:
        listed = read_source_list(options.config)
        for report in collect_all(
            listed, options.out, data=options.data, repositories=options.repositories, only=options.only
        ):
            _log.info("%s", report)
    except ImpartError as error:
        _log.error("%s", error)
        return 1
    return 0
