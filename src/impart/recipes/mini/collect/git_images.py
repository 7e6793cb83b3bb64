"""Read images and their texts from bare git directories: no work tree, one process for many files."""

from __future__ import annotations

import csv
import io
import json
import random
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from impart.errors import DataError
from impart.recipes.mini.collect.source_list import Source, SourceTable

__all__ = ["Item", "contents", "items_of", "repository"]

_NO_ARTICLE = re.compile(r"(?<!s)s$|(?:ing|ware|wear|food|water|fruit|ice|sand|snow|rice|bread|meat|fish)$")


@dataclass(frozen=True)
class Item:
    """One image of a repository: path, hash of its content, texts and class."""

    path: str
    blob: str
    texts: tuple[str, ...]
    label: str


def repository(source: Source, folder: Path) -> Path:
    """Return a bare git directory that has the source's commit; fetch it if necessary."""
    owner_name = "+".join(source.repository.removesuffix(".git").rstrip("/").split("/")[-2:])
    git = folder / owner_name
    if not git.is_dir():
        git.mkdir(parents=True)
        _git(git, "init", "--quiet", "--bare")
    if _has(git, source.commit):
        return git
    try:
        _git(git, "fetch", "--quiet", "--depth", "1", source.repository, source.commit)
    except DataError:  # the host does not serve single commits: fetch everything
        _git(git, "fetch", "--quiet", source.repository, "+refs/heads/*:refs/heads/*")
    if not _has(git, source.commit):
        raise DataError(f"{source.name}: {source.repository} has no commit {source.commit}; was its history rewritten?")
    return git


def _has(git: Path, commit: str) -> bool:
    done = subprocess.run(
        ["git", "--git-dir", str(git), "cat-file", "-e", f"{commit}^{{tree}}"], capture_output=True, check=False
    )
    return done.returncode == 0


def _git(git: Path, *arguments: str) -> bytes:
    command = ["git", "--git-dir", str(git), *arguments]
    try:
        return subprocess.run(command, capture_output=True, check=True).stdout
    except FileNotFoundError as error:
        raise DataError("git is not installed: images are collected from git repositories") from error
    except subprocess.CalledProcessError as error:
        raise DataError(f"`{' '.join(command)}` failed: {error.stderr.decode(errors='replace').strip()}") from error


def items_of(source: Source, git: Path, *, seed: int) -> Iterator[Item]:
    """List the images of a source with their texts, in the order in which they are taken."""
    blobs: dict[str, str] = {}
    for line in _git(git, "ls-tree", "-r", "-z", source.commit).split(b"\0"):
        if line.startswith((b"100644 blob", b"100755 blob")):
            head, _, file = line.partition(b"\t")
            blobs[file.decode("utf-8", errors="replace")] = head.split()[2].decode()
    pattern = re.compile(source.images)
    found = [(path, match) for path in sorted(blobs) if (match := pattern.search(path))]
    captions = _captions(source, git, blobs)
    items: list[Item] = []
    seen: set[str] = set()
    for path, match in found:
        groups = {key: value for key, value in match.groupdict().items() if value}
        name = _name(groups.get("text") or groups.get("label") or "", source)
        label = _name(groups.get("label") or groups.get("text") or "", source)
        if captions:
            texts = captions.get(path) or captions.get(path.rsplit("/", 1)[-1]) or ()
            label = label or (texts[0] if source.per_label and texts else "")
        else:
            texts = (_filled(name, source.template),) if name else ()
        if source.skip:
            texts = tuple(text for text in texts if not re.search(source.skip, text))
            if label and re.search(source.skip, label):
                continue
        if texts and blobs[path] not in seen:
            seen.add(blobs[path])
            items.append(Item(path, blobs[path], texts, label))
    random.Random(f"{seed}/{source.name}").shuffle(items)
    if source.per_label:
        yield from _in_turns(items)
    else:
        yield from items


def _in_turns(items: Sequence[Item]) -> Iterator[Item]:
    """Take one image of each label, then the next of each, so that a limit applies equally to all labels."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.label, []).append(item)
    for turn in range(max(map(len, groups.values()), default=0)):
        yield from (group[turn] for group in groups.values() if turn < len(group))


def _captions(source: Source, git: Path, blobs: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Read the texts of images from the caption files, by the images' names there."""
    texts: dict[str, list[str]] = {}
    for table in source.tables:
        if table.path not in blobs:
            raise DataError(f"{source.name}: no caption file {table.path} at {source.commit[:8]}")
        content = _git(git, "cat-file", "blob", blobs[table.path]).decode("utf-8-sig", errors="replace")
        try:
            for row in _rows(content, table):
                entries = [row[column] for column in table.texts]
                flat = [text for entry in entries for text in (entry if isinstance(entry, list) else [entry])]
                clean_texts = [" ".join(str(text).split()) for text in flat if text and str(text).strip()]
                name = str(row[table.file]).strip().replace("\\", "/")
                for key in {name, name.rsplit("/", 1)[-1]}:
                    texts.setdefault(key, []).extend(source.rename.get(text.lower(), text) for text in clean_texts)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{source.name}: {table.path} does not have the layout of the source list: {error!r}"
            ) from error
    return {name: tuple(dict.fromkeys(own)) for name, own in texts.items() if own}


def _rows(content: str, table: SourceTable) -> Iterator[Mapping[str, Any]]:
    if table.path.endswith(".jsonl"):
        yield from (json.loads(line) for line in content.splitlines() if line.strip())
    elif table.path.endswith(".json"):
        rows = json.loads(content)
        for key in filter(None, table.rows.split(".")):
            rows = rows[key]
        if isinstance(rows, dict):  # file name -> text or texts
            rows = [{table.file: name, table.texts[0]: texts} for name, texts in rows.items()]
        yield from rows
    else:
        yield from csv.DictReader(io.StringIO(content), delimiter=table.separator)


def _name(raw: str, source: Source) -> str:
    """Turn a file or folder name into words: no separators, counters and capitals, then the source's own renames.

    >>> _name("Air_Hockey-02", Source(name="", repository="", commit="", licence="", images=""))
    'air hockey'
    """
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", raw)
    words = re.sub(r"[\s_+.\-]+", " ", words)
    words = re.sub(r"(?:\(\d+\)|\b\d+\b|(?<=[a-z])\d+$)", "", words)
    name = " ".join(words.lower().split())
    if source.strip:
        name = " ".join(re.sub(source.strip, "", name).split())
    name = " ".join(_run_together().get(word, word) for word in name.split())
    return source.rename.get(name, name)


@cache
def _run_together() -> dict[str, str]:
    """Read `wateringcan` -> `watering can`, for sources whose file names have no separators."""
    text = (
        resources.files("impart.recipes.mini").joinpath("configs", "mini_sources_words.txt").read_text(encoding="utf-8")
    )
    return {line.replace(" ", ""): line for line in text.splitlines() if line}


def _filled(name: str, template: str) -> str:
    """Put a name into a template.

    >>> _filled("owl", "{a}"), _filled("scissors", "a photo of {a}"), _filled("owl", "{}")
    ('an owl', 'a photo of scissors', 'owl')
    """
    article = (
        ""
        if _NO_ARTICLE.search(name) or name.startswith(("a ", "an ", "the "))
        else "an "
        if name[0] in "aeiou"
        else "a "
    )
    return template.replace("{a}", article + name).replace("{}", name)


def contents(git: Path, blobs: Sequence[str]) -> Iterator[bytes]:
    """Read the contents of blobs, in order, with one `git cat-file` process per 200."""
    for at in range(0, len(blobs), 200):  # in portions, so that the pipes do not block
        asked = "\n".join(blobs[at : at + 200]) + "\n"
        done = subprocess.run(
            ["git", "--git-dir", str(git), "cat-file", "--batch"], input=asked.encode(), capture_output=True, check=True
        ).stdout
        place = 0
        while place < len(done):
            end = done.index(b"\n", place)
            head = done[place:end].split()
            if len(head) < 3:  # `<hash> missing`: the snapshot lacks its largest files
                yield b""
                place = end + 1
                continue
            size = int(head[2])
            yield done[end + 1 : end + 1 + size]
            place = end + 2 + size
