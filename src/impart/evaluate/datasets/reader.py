"""Describe data sets and their readers: name, splits, the files needed and where they are published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from impart.errors import DataError
from impart.evaluate.datasets.types import BoxSet, CaptionSet, ClassSet, MomentSet, VideoSet

__all__ = ["OWN_FILES", "DataSet", "DataSetInfo", "Kind", "Reader", "requirements"]

DataSet: TypeAlias = ClassSet | CaptionSet | VideoSet | MomentSet | BoxSet
Kind: TypeAlias = Literal["classes", "captions", "videos", "moments", "boxes"]

OWN_FILES = "not published: your own files"
"""`home` of a format, in place of an address."""


def requirements(files: Sequence[str], home: str) -> str:
    """Describe the files needed and where they are published, as the end of an error message.

    >>> requirements(("clips.csv", "the videos"), "https://example.org")
    'needs clips.csv, the videos; published at https://example.org'
    """
    return f"needs {', '.join(files)}; {home if home == OWN_FILES else f'published at {home}'}"


@dataclass(frozen=True, kw_only=True)
class DataSetInfo:
    """Description of a published data set, or of a format.

    Attributes:
        name: the name for `--data NAME:PATH`.
        title: the usual name, for messages.
        splits: the splits; the first is the default. Empty = the splits that the files define.
        files: the files needed, for messages.
        home: where they are published, or `OWN_FILES`.
    """

    name: str
    title: str
    splits: tuple[str, ...]
    files: tuple[str, ...]
    home: str

    def split(self, asked: str | None) -> str:
        """Return the given split, or the default split for None.

        Raises:
            DataError: the data set has no such split.
        """
        if asked is None:
            return self.splits[0]
        if asked not in self.splits:
            raise DataError(f"{self.title} has no split {asked!r}: choose one of {', '.join(self.splits)}")
        return asked

    def missing(self, problem: str) -> DataError:
        """Make an error from a problem, the files needed and where they are published."""
        return DataError(f"{problem}. {self.title} {requirements(self.files, self.home)}")

    def reader(self, kind: Kind, opener: Callable[[Path, str | None], DataSet]) -> Reader:
        """Make the reader of this data set."""
        return Reader(name=self.name, kind=kind, splits=self.splits, files=self.files, home=self.home, open=opener)


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Reader of one format, or of one published data set.

    Attributes:
        name: the name for `--data NAME:PATH`.
        kind: the kind of data set that it returns.
        splits: the splits; the first is the default. Empty = the splits that the files define.
        files: the files needed, for messages and help.
        home: where they are published, or `OWN_FILES`.
        open: (path, split or None) -> data set. Raises DataError if files are missing or damaged.
    """

    name: str
    kind: Kind
    splits: tuple[str, ...]
    files: tuple[str, ...]
    home: str
    open: Callable[[Path, str | None], DataSet]
