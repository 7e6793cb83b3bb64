"""The recipe of further training images: which repositories, which paths, and where texts come from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

from impart.config import read_toml
from impart.errors import ConfigError

__all__ = ["Recipe", "Source", "SourceTable", "read_recipe"]


@dataclass(frozen=True, kw_only=True)
class SourceTable:
    """A caption file of the repository.

    Attributes:
        path: in the repository.
        file: the column with the image's path or file name; JSON tables may be a list or an object of rows.
        texts: columns with texts; a column may hold a list of texts.
        separator: between columns of a CSV file.
        rows: in JSON, the key under which the rows are, where they are not at the top.
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
        licence: as the repository states it.
        images: a regular expression for the paths of images. Its group `text` names what is seen, its group
            `label` the class; one of them may stand for both.
        about: what the texts look like and what is known to be wrong, for people.
        per_label: at most so many images of each label.
        limit: at most so many images.
        drawn: keep images that look drawn (sources with smooth product shots).
        trim: cut white borders off (things on white pages).
        min_side_px: of this source, where it differs from the recipe's.
        tables: caption files; with one, only images that it names are taken.
        strip: a regular expression; what it matches is taken out of names.
        rename: label or text, in small letters -> what is written instead; a class column of a table
            goes through it too.
        skip: a regular expression; texts and labels that match are left out.
        template: how the text is made of the name, with {} for it and {a} for it with an article.
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
class Recipe:
    """All sources and how images are written.

    Attributes:
        sources: in order; an image that two hold is kept in the first.
        guarded: folders of the development data whose images must not be trained on.
        known: folders whose images are trained on already, not wanted twice.
        seed: for sampling.
        min_side_px: smaller images are dropped.
        short_side_px: larger images are scaled to it.
        quality: of the JPEG files.
    """

    sources: tuple[Source, ...]
    guarded: tuple[str, ...]
    known: tuple[str, ...] = ()
    seed: int = 0
    min_side_px: int = 64
    short_side_px: int = 256
    quality: int = 85


def read_recipe(path: Path | None = None) -> Recipe:
    """The recipe in a TOML file, the bundled one by default.

    Raises:
        ConfigError: the file is not TOML, or has an unknown or missing setting.
    """
    name = str(path or "configs/mini_sources.toml")
    table = read_toml(path or resources.files("impart.recipes.mini") / "configs" / "mini_sources.toml", what="recipe")
    try:
        sources = tuple(_source(entry) for entry in table.pop("source", []))
        guarded, known = tuple(table.pop("guarded")), tuple(table.pop("known", ()))
        recipe = Recipe(sources=sources, guarded=guarded, known=known, **table)
    except (KeyError, TypeError, re.error) as error:
        raise ConfigError(
            f"{name}: {error}; settings are those of Recipe and Source in recipes/mini/collect/sources.py"
        ) from error
    names = [source.name for source in recipe.sources]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{name}: several sources are called {', '.join(doubled)}; names are folders, so each once")
    return recipe


def _source(entry: dict[str, Any]) -> Source:
    for required in (f.name for f in fields(Source) if f.name in ("name", "repository", "commit", "licence", "images")):
        if required not in entry:
            raise TypeError(f"source {entry.get('name', '?')!r} has no {required!r}")
    re.compile(entry["images"])
    tables = tuple(SourceTable(**{**table, "texts": tuple(table["texts"])}) for table in entry.pop("tables", ()))
    return Source(**entry, tables=tables)
