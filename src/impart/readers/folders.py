"""List image files in folders, and the captions and names that belong to them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from impart.errors import DataError
from impart.readers.captions import lines_of
from impart.readers.class_names import ClassNames
from impart.readers.names import file_text, folder_texts, is_code, merged_names
from impart.readers.sample import IMAGE_SUFFIXES, ImageSample, Listener, count_suffixes
from impart.readers.webdataset import is_shard

__all__ = ["SIDECAR_TABLES", "FolderNames", "ImageFiles", "samples_of_folder"]

SIDECAR_TABLES = ("captions.csv", "metadata.csv", "captions.tsv", "labels.csv", "metadata.tsv", "metadata.jsonl")
"""Usual names of the table of a folder of images, the preferred first."""

_SYSTEM = frozenset({"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN"})
_SILENT = frozenset({".txt", ".csv", ".tsv", ".json", ".md", ".db", ".ini", ".html"})


@dataclass(frozen=True)
class ImageFiles:
    """Image files below a folder.

    Attributes:
        files: images, sorted; hidden files and folders of the system are left out.
        others: number of other files by suffix, without texts and tables.
        tables: tables among them, by their usual names.
    """

    files: list[Path]
    others: Counter[str] = field(default_factory=Counter)
    tables: list[Path] = field(default_factory=list)

    @classmethod
    def below(cls, folder: Path) -> ImageFiles:
        """List the images in a folder and its sub-folders."""
        files: list[Path] = []
        others: Counter[str] = Counter()
        tables: list[Path] = []
        seen: set[str] = set()
        for place, folders, names in os.walk(folder, followlinks=True):
            if (real := os.path.realpath(place)) in seen:  # a link to a folder above it
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SYSTEM)
            for name in names:
                path = Path(place, name)
                if name.startswith("."):
                    continue
                if path.suffix.lower() in IMAGE_SUFFIXES:
                    files.append(path)
                elif name in SIDECAR_TABLES:
                    tables.append(path)
                elif path.suffix.lower() not in _SILENT:
                    others[path.suffix.lower()] += 1
        return cls(sorted(files), others, sorted(tables))

    def notes(self) -> Iterator[str]:
        """Yield notes on files that are no images, and on tables that are not read."""
        if self.others:
            yield f"files that are no images are left out: {count_suffixes(self.others)}"
        if self.tables:
            count = "1 table is" if len(self.tables) == 1 else f"{len(self.tables)} tables are"
            yield f"{count} not read, first {self.tables[0]}: to read one, give it or its folder"


@dataclass(frozen=True)
class FolderNames:
    """Names of class folders.

    Attributes:
        texts: class name by folder.
        codes: folders that are a number or a code alone, and for which nothing gives a name.
    """

    texts: dict[str, str]
    codes: tuple[str, ...] = ()

    @classmethod
    def find(cls, root: Path, folders: Sequence[str], names: ClassNames | None = None) -> FolderNames:
        """Find the names: given ones, those of a table or list beside the folders, or the folder's own as words.

        Args:
            root: folder of the class folders.
            folders: their names.
            names: names that the user gives.

        Raises:
            DataError: `classes.csv`, or the user's file, has names by code and lacks one of the folders.
        """
        given = names or ClassNames.beside(root)
        texts = folder_texts(folders)
        found = {folder: given.find(folder) if given else None for folder in texts}
        missing = [folder for folder, name in found.items() if not name]
        if given is not None and given.codes and missing:
            raise DataError(
                f"{given.file} has no name for the class folder {missing[0]!r}: add a row, or remove the table"
            )
        codes = tuple(folder for folder in missing if is_code(texts[folder]))
        return cls({folder: name or texts[folder] for folder, name in found.items()}, codes)


def samples_of_folder(folder: Path, names: ClassNames | None, note: Listener) -> Iterator[ImageSample]:
    """List the samples of a folder of images.

    The captions of an image are the lines of the `.txt` beside it, if any image has one. Otherwise its label is the
    name of its sub-folder, or its own name where it is in no sub-folder.

    Args:
        folder: images, or folders of images.
        names: class names that the user gives.
        note: receives what is left out or merged.

    Raises:
        DataError: there is no image, or a table of names lacks a folder.
    """
    root = folder.resolve()
    listing = ImageFiles.below(root)
    if not listing.files:
        deeper = sorted({file.parent for kind in ("*.tar", "*.parquet") for file in root.glob(f"*/{kind}")})
        where = f": {deeper[0]} has some, give that folder" if deeper else ""
        packed = next((path for path in sorted(root.iterdir()) if is_shard(path)), None)
        where = f": {packed.name} is compressed, decompress it" if packed else where
        raise DataError(f"no image under {folder} ({', '.join(sorted(IMAGE_SUFFIXES))}), and no table or tar{where}")
    if any(image.with_suffix(".txt").is_file() for image in listing.files):
        samples = _captioned(root, listing.files)
    else:
        samples = _labelled(root, listing.files, names, note)
    yield from samples
    for one in listing.notes():
        note(one)


def _captioned(root: Path, images: list[Path]) -> Iterator[ImageSample]:
    for image in images:
        problem = ""
        captions: tuple[str, ...] = ()
        try:
            captions = lines_of(image.with_suffix(".txt").read_bytes(), name=f"{image.stem}.txt beside it")
        except FileNotFoundError:
            problem = f"there is no {image.stem}.txt beside it, as there is for other images"
        except OSError as error:
            problem = f"{image.stem}.txt beside it cannot be read: {error.strerror}"
        except DataError as error:
            problem = str(error)
        yield ImageSample(
            image=image,
            path=image.relative_to(root).as_posix(),
            location=str(image),
            captions=captions,
            problem=problem,
        )


def _labelled(root: Path, images: list[Path], names: ClassNames | None, note: Listener) -> Iterator[ImageSample]:
    folders = list(dict.fromkeys(image.parent.name for image in images if image.parent != root))
    found = FolderNames.find(root, folders, names) if folders else FolderNames({})
    places = {image.parent.relative_to(root).as_posix(): image.parent.name for image in images if image.parent != root}
    for one in merged_names({place: found.texts[name] for place, name in places.items()}, what="folders"):
        note(one)
    loose = {image.stem: file_text(image.stem) for image in images if image.parent == root}
    for one in merged_names(loose, what="file names"):
        note(one)
    if len(folders) == 1 and not loose and len(images) > 1:
        note(f"all {len(images)} images are in one folder, and have its name as text: {found.texts[folders[0]]!r}")
    if folders and loose:
        note(f"{len(loose)} images beside the folders are named by their file names, first {next(iter(loose))!r}")
    for image in images:
        in_folder = image.parent != root
        text = found.texts[image.parent.name] if in_folder else loose[image.stem]
        yield ImageSample(
            image=image,
            path=image.relative_to(root).as_posix(),
            location=str(image),
            captions=() if in_folder else (text,),
            labels=(text,) if in_folder and text else (),
            named=image.parent.name not in found.codes,
        )
