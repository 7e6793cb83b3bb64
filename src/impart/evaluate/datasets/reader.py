"""What a reader of data sets is, and what it says when files are missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from impart.errors import DataError
from impart.evaluate.datasets.types import BoxSet, CaptionSet, ClassSet, MomentSet, VideoSet

__all__ = ["DataSet", "Kind", "Published", "Reader"]

DataSet: TypeAlias = ClassSet | CaptionSet | VideoSet | MomentSet | BoxSet
Kind: TypeAlias = Literal["classes", "captions", "videos", "moments", "boxes"]


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a set consists of, and where it is to be had.

    Attributes:
        name: the name for `--data NAME:PATH`.
        title: what people call it.
        splits: the splits; the first is taken where none is asked for. Empty = whatever the files know.
        files: the files wanted, for messages.
        home: where they are published.
    """

    name: str
    title: str
    splits: tuple[str, ...]
    files: tuple[str, ...]
    home: str

    @property
    def wants(self) -> str:
        """The end of a message about something missing."""
        return f"{self.title} wants {', '.join(self.files)}; published at {self.home}"

    def split(self, asked: str | None) -> str:
        """The split asked for, or the first.

        Raises:
            DataError: there is no such split.
        """
        if asked is None:
            return self.splits[0]
        if asked not in self.splits:
            raise DataError(f"{self.title} has no split {asked!r}: choose one of {', '.join(self.splits)}")
        return asked

    def missing(self, what: str) -> DataError:
        """An error that says what is missing, what the set wants and where it is published."""
        return DataError(f"{what}. {self.wants}")

    def within(self, path: Path, *names: str) -> Path:
        """The folder that holds all the named files: `path`, or one of its sub-folders (as archives unpack).

        Raises:
            DataError: there is none.
        """
        if not path.is_dir():
            raise self.missing(f"{path} is not a folder")
        for folder in (path, *sorted(one for one in path.iterdir() if one.is_dir())):
            if all((folder / name).exists() for name in names):
                return folder
        lacking = [name for name in names if not (path / name).exists()]
        raise self.missing(f"{path} lacks {lacking[0]}")

    def reader(self, kind: Kind, opener: Callable[[Path, str | None], DataSet]) -> Reader:
        """The reader of this set."""
        return Reader(name=self.name, kind=kind, splits=self.splits, files=self.files, home=self.home, open=opener)


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One format, or one published data set.

    Attributes:
        name: the name for `--data NAME:PATH`.
        kind: what it opens.
        splits: the splits; the first is taken where none is asked for. Empty = whatever the files know.
        files: the files wanted, for messages and help.
        home: where they are published.
        open: (path, split or None) -> the set. Raises DataError where files are missing or damaged.
    """

    name: str
    kind: Kind
    splits: tuple[str, ...]
    files: tuple[str, ...]
    home: str
    open: Callable[[Path, str | None], DataSet]
