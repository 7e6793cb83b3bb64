"""List the images of a run with their texts; what cannot be listed is counted and named."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from impart.errors import ReferenceSetError, TrainingError
from impart.files import write_csv_atomic
from impart.readers.webdataset import is_shard
from impart.refset.pairs import Columns, Pair, read_pairs
from impart.train.events import Note
from impart.train.settings import DataSettings, PairsFrom

__all__ = ["Failures", "ListedImage", "Listing", "list_images", "list_run", "resolve"]


@dataclass
class ListedImage:
    """One image, not read yet.

    Attributes:
        pair: its location, with its first text.
        texts: all its texts, at least one, no two equal.
    """

    pair: Pair
    texts: list[str]


@dataclass(frozen=True)
class Listing:
    """Images of a run: those of `data.pairs`, then those of `data.validation`.

    Attributes:
        images: all of them.
        own: number of images of `data.pairs`; the later ones are for validation alone.
    """

    images: list[ListedImage]
    own: int

    @property
    def texts(self) -> list[str]:
        """The texts of all images, one image after the other."""
        return [text for image in self.images for text in image.texts]

    def where(self, kept: npt.NDArray[np.bool_]) -> Listing:
        """Return the listing without the images that are not `kept` (n,)."""
        return Listing(list(compress(self.images, kept)), int(kept[: self.own].sum()))


@dataclass
class Failures:
    """Items that could not be used, with the reasons; kept as failures.csv (path, reason) beside the run.

    Attributes:
        items: (path, reason) of each.
        notes: what the readers left out or merged.
    """

    items: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, path: str, reason: str) -> None:
        """Add one."""
        self.items.append((path, reason))

    def __len__(self) -> int:
        return len(self.items)

    def __str__(self) -> str:
        return f"{len(self)} items failed" + (f", such as {self.items[0]}" if self.items else "")

    def write(self, path: Path) -> None:
        """Replace the file; where nothing failed, remove it."""
        if not self.items:
            path.unlink(missing_ok=True)
            return
        write_csv_atomic(path, ("path", "reason"), self.items)


def list_run(options: DataSettings, data: Path, failures: Failures) -> Generator[Note, None, Listing]:
    """List the images of a run; `failures` receives what cannot be listed.

    Raises:
        TrainingError: there are no sources, a source does not exist, or nothing is left.
    """
    if not options.pairs:
        raise TrainingError("the config names no pairs: add [[data.pairs]] with a path, or give --pairs")
    own = list_images(options.pairs, data, failures)
    listing = Listing(own + list_images(options.validation, data, failures), len(own))
    yield Note(message="; ".join([f"{len(listing.images)} images with {len(listing.texts)} texts", *failures.notes]))
    return listing


def list_images(sources: Sequence[PairsFrom], data: Path, failures: Failures) -> list[ListedImage]:
    """List the images of all sources in a fixed order, the texts of one image together.

    An empty text, or a shard that cannot be read, is added to the failures and left out.

    Raises:
        TrainingError: a source does not exist, or nothing is left.
    """
    images: dict[str, ListedImage] = {}
    for source in sources:
        for path in resolve(source, data):
            for pair in _pairs(source, path, data, failures):
                if pair.problem or not pair.text.strip():
                    failures.add(pair.path or pair.image_key, pair.problem or "the text is empty")
                elif pair.image_key not in images:
                    images[pair.image_key] = ListedImage(pair, [pair.text])
                elif pair.text not in images[pair.image_key].texts:
                    images[pair.image_key].texts.append(pair.text)
    if not images and sources:
        reason = f" ({failures})" if failures else ""
        raise TrainingError(f"no usable pair in {', '.join(source.path for source in sources)} below {data}{reason}")
    return list(images.values())


def resolve(source: PairsFrom, data: Path) -> list[Path]:
    """Return the paths of a source, in order.

    Raises:
        TrainingError: there are none.
    """
    path = data / Path(source.path).expanduser()
    if "*" not in source.path:
        return [path]
    anchor = Path(path.anchor)
    found = sorted(anchor.glob(str(path.relative_to(anchor)) if path.anchor else str(path)))
    tables = (".csv", ".tsv", ".jsonl", ".parquet")
    found = [item for item in found if item.is_dir() or item.suffix in tables or is_shard(item)]
    if not found:
        raise TrainingError(f"nothing matches {path}: --data names the folder that relative paths start from")
    return found


def _pairs(source: PairsFrom, path: Path, data: Path, failures: Failures) -> Iterator[Pair]:
    columns = Columns(image=source.image or None, text=source.text or None, where=source.where)
    try:
        yield from read_pairs(
            path,
            columns=columns,
            class_names=data / Path(source.class_names).expanduser() if source.class_names else None,
            source=source.source,
            on_failure=failures.add,
            on_note=failures.notes.append,
        )
    except ReferenceSetError as error:
        raise TrainingError(f"{error}; relative paths of a config start from --data") from error
