"""Damage to files, and a small library with every kind of file that an index has.

    library = make_library(folder)                  # videos, a photo, names, crops, a reference set; two runs
    for file in files_of_index(library.index): ...
    damage(file, "bit", seed=0)

The modification time of a damaged file stays, as it does where a disk fails.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from helpers.clips import write_clip
from helpers.colour_references import colour_set
from helpers.photos import write_photo
from helpers.shades import register_tiny
from helpers.tiny_encoder import TinyEncoder
from impart.blending.encoder import AugmentedEncoder
from impart.blending.vanilla import Vanilla
from impart.config import VanillaSettings
from impart.video.faces.store import FaceStore, VideoFaces
from impart.video.index.doctor.versions import read_version
from impart.video.index.index import VideoIndex

Kind: TypeAlias = Literal["deleted", "zeroed", "cut", "bit"]
KINDS: tuple[Kind, ...] = ("deleted", "zeroed", "cut", "bit")
FILMS = ("red", "green", "blue")


@dataclass(frozen=True)
class Library:
    """An index, and the folder of its films."""

    index: Path
    films: Path

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.films.iterdir())


def make_library(folder: Path, *, everything: bool = True) -> Library:
    """Index three clips and two photos with a reference set; then change one of each, so that rows are deleted."""
    register_tiny()
    films = folder / "films"
    films.mkdir(parents=True)
    for colour in FILMS:
        write_clip(films / f"{colour}.mp4", colours=[colour, "white"], seconds_each=0.5)
    for colour in ("magenta", "yellow"):
        write_photo(films / f"{colour}.jpg", colour)
    encoder = AugmentedEncoder(TinyEncoder(), colour_set(), Vanilla(VanillaSettings(k=3)))
    index = VideoIndex.open(folder / "library.impart", encoder)
    for _ in index.add([films]):
        pass
    write_clip(films / "green.mp4", colours=["green", "cyan", "white"], seconds_each=0.5)
    write_photo(films / "yellow.jpg", "orange")
    for _ in index.add([films]):
        pass
    if everything:
        for _ in index.add_crops():
            pass
        index.names.add("sunset", [films / "magenta.jpg"])
        FaceStore(index.path).save_videos(VideoFaces.none())
    for _ in index.add([films], retry_failed=True):
        pass
    return Library(index.path, films)


def files_of_index(index: Path) -> list[str]:
    """List the files of an index that have content, as paths below it."""
    files = (path for path in sorted(index.rglob("*")) if path.is_file() and path.stat().st_size)
    return [path.relative_to(index).as_posix() for path in files if path.name not in (".lock", "checksums.txt")]


def data_in_force(index: Path, table: str) -> Path:
    """Return the data file of the first fragment of a table, in its newest version; names of files are random."""
    (folder,) = index.glob(f"{table}.lance")
    newest = min((folder / "_versions").glob("*.manifest"))
    return folder / "data" / read_version(newest.read_bytes()).fragments[0].files[0][0]


def may_be_deleted(index: Path, file: str) -> bool:
    """Whether nothing tells that a file is missing: versions before the newest are deleted when they are not needed."""
    table = (index / file).parent.parent
    if table.suffix != ".lance" or (index / file).suffix not in (".manifest", ".txn"):
        return False
    versions = sorted((table / "_versions").glob("*.manifest"))  # the newest first
    newest = read_version(versions[0].read_bytes())
    return (index / file).name not in (versions[0].name, newest.transaction)


def damage(file: Path, kind: Kind, *, seed: int = 0) -> None:
    """Damage a file; `bit` changes one bit, chosen by the seed."""
    status, content = file.stat(), bytearray(file.read_bytes())
    if kind == "deleted":
        file.unlink()
        return
    if kind == "zeroed":
        content = bytearray(len(content))
    elif kind == "cut":
        del content[len(content) * 2 // 3 :]
    else:
        rng = random.Random(seed)
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def found_videos(index: VideoIndex) -> list[str]:
    """Name the files that a search finds, each of them once."""
    return sorted({hit.path.name for hit in index.search(text="red", top=100, group="frame", by="frame")})
