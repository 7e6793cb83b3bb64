"""List of the sources of further training images: repositories, paths of images, origin of texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

from impart.errors import ConfigError
from impart.validation import read_toml

__all__ = ["SourceList", "Source", "SourceTable", "read_source_list"]


@dataclass(frozen=True, kw_only=True)
class SourceTable:
    """A caption file of the repository.

    Attributes:
        path: in the repository.
        file: the column with the image's path or file name; JSON tables may be a list or an object of rows.
        texts: columns with texts; a column may hold a list of texts.
        separator: between columns of a CSV file.
        rows: in JSON, the key of the list of rows, if it is not at the top.
    """

    path: str
    file: str
    texts: tuple[str, ...]
    separator: str = ","
    rows: str = ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One repository at one commit.

    Attributes:
        name: of the folder that is written.
        repository: a URL that git can fetch.
        commit: the full hash.
        licence: as stated in the repository.
        images: a regular expression for the paths of images. Its group `text` is the text, its group `label` the class;
            each is used for a missing other.
        about: a note on the texts, and known faults.
        per_label: at most so many images of each label.
        limit: at most so many images.
        drawn: keep images that look drawn (sources with smooth product shots).
        trim: crop white borders (things on white pages).
        min_side_px: of this source; 0 = that of the list.
        tables: caption files; if there are any, only images listed there are taken.
        strip: a regular expression; matches are removed from names.
        rename: label or text, in small letters -> replacement; applied to the class column of a table too.
        skip: a regular expression; texts and labels that match are left out.
        template: text of a name, with {} for the name and {a} for the name with an article.
    """

    name: str
    repository: str
    commit: str
    licence: str
    images: str
    about: str = ""
    per_label: int = 0
    limit: int = 0
    drawn: bool = False
    trim: bool = False
    min_side_px: int = 0
    tables: tuple[SourceTable, ...] = ()
    strip: str = ""
    rename: Mapping[str, str] = field(default_factory=dict)
    skip: str = ""
    template: str = "{a}"


@dataclass(frozen=True, kw_only=True)
class SourceList:
    """All sources, and the format of the images that are written.

    Attributes:
        sources: in order; an image of two sources is kept in the first.
        guarded: folders of the development data whose images must not be trained on.
        known: folders whose images are trained on already; they are not collected again.
        seed: for sampling.
        min_side_px: smaller images are dropped.
        short_side_px: larger images are scaled to this short side.
        quality: of the JPEG files.
    """

    sources: tuple[Source, ...]
    guarded: tuple[str, ...]
    known: tuple[str, ...] = ()
    seed: int = 0
    min_side_px: int = 64
    short_side_px: int = 256
    quality: int = 85


def read_source_list(path: Path | None = None) -> SourceList:
    """Read a list of sources (TOML); None = the bundled one.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or has an unknown or missing setting.
    """
    name = str(path or "configs/mini_sources.toml")
    folder = resources.files("impart.recipes.mini") / "configs"
    table = read_toml(path or folder / "mini_sources.toml", what="source list")
    try:
        sources = tuple(_source(entry) for entry in table.pop("source", []))
        guarded, known = tuple(table.pop("guarded")), tuple(table.pop("known", ()))
        found = SourceList(sources=sources, guarded=guarded, known=known, **table)
    except (KeyError, TypeError, re.error) as error:
        raise ConfigError(
            f"{name}: {error}; the settings are those of SourceList and Source in recipes/mini/collect/source_list.py"
        ) from error
    names = [source.name for source in found.sources]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"{name}: several sources have the name {', '.join(doubled)}; each name is a folder, so use it once"
        )
    return found


def _source(entry: dict[str, Any]) -> Source:
    for required in (f.name for f in fields(Source) if f.name in ("name", "repository", "commit", "licence", "images")):
        if required not in entry:
            raise TypeError(f"source {entry.get('name', '?')!r} has no {required!r}")
    re.compile(entry["images"])
    tables = tuple(SourceTable(**{**table, "texts": tuple(table["texts"])}) for table in entry.pop("tables", ()))
    return Source(**entry, tables=tables)
