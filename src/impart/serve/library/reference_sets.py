"""Reference sets that the person may put in force: those that are known to the server, and none. Never a path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from impart.blending.encoder import settings_in
from impart.config import RamSettings, SolvedSettings, VanillaSettings
from impart.encoders.bundled import bundled
from impart.errors import ReferenceSetError
from impart.refset.manifest import MANIFEST, ReferenceSetManifest
from impart.refset.refset import ReferenceSet
from impart.video.index.manifest import IndexManifest

__all__ = ["NONE", "KnownSet", "KnownSets", "in_words", "known_sets", "pair_file"]

NONE = "none"
"""Id of no reference set."""

Origin: TypeAlias = Literal["index", "bundled", "folder"]


@dataclass(frozen=True, kw_only=True)
class KnownSet:
    """A reference set that the server knows.

    Attributes:
        id: digest of its rows; that of a copy is the same.
        pairs: number of pairs.
        origin: `index`: the set in force that is in no other place; `bundled`: it comes with the model; or `folder`.
        folder: of the set.
        settings: of the blend in which it would be put in force, in words.
    """

    id: str
    name: str
    pairs: int
    origin: Origin
    folder: Path
    settings: str


@dataclass(frozen=True, kw_only=True)
class KnownSets:
    """The reference sets of one server, as of now.

    Attributes:
        current: id of the set in force; `none` without one.
        settings: of the blend in force, in words.
        trained: whether a trained RAM is in force.
        sets: by id, the set in force among them.
        left_out: (folder's name, reason) of folders that cannot be used.
    """

    current: str
    settings: str
    trained: bool
    sets: dict[str, KnownSet]
    left_out: tuple[tuple[str, str], ...]


def known_sets(index: Path, manifest: IndexManifest, folders: Sequence[Path]) -> KnownSets:
    """List the sets of an index, of its model, and of folders.

    Args:
        index: folder of the index.
        manifest: of the index.
        folders: reference sets, and folders of them.
    """
    sets: dict[str, KnownSet] = {}
    left_out: list[tuple[str, str]] = []
    own = bundled(manifest.encoder_id, "references")
    places: list[tuple[Path, Origin]] = [] if own is None else [(own, "bundled")]
    places += [(place, "folder") for folder in folders for place in _sets_in(folder)]
    for place, origin in places:
        try:
            found = _known(place, origin, manifest)
        except ReferenceSetError as error:
            left_out.append((place.name, str(error)))
        else:
            sets.setdefault(found.id, found)
    augmentation = manifest.augmentation
    current = NONE
    if augmentation is not None:
        in_force = _known(index / augmentation.folder, "index", manifest)
        sets.setdefault(in_force.id, in_force)
        current = in_force.id
    return KnownSets(
        current=current,
        settings="" if augmentation is None else in_words(augmentation.settings),
        trained=augmentation is not None and isinstance(augmentation.settings, RamSettings),
        sets=sets,
        left_out=tuple(left_out),
    )


def in_words(settings: VanillaSettings | SolvedSettings | RamSettings) -> str:
    """Describe the settings of a blend.

    >>> in_words(VanillaSettings(k=4, w_img=0.0, w_txt=0.02, floor=4.0))
    '4 neighbours, weight of their images 0, of their texts 0.02, only those with a z-score of at least 4'
    """
    if isinstance(settings, RamSettings):
        return f"blended in by a trained RAM of {settings.layers} layers"
    if isinstance(settings, SolvedSettings):
        gated = f", only those with a z-score of at least {settings.floor:g}" if settings.floor else ""
        return f"solved: all pairs weigh together, {settings.alpha / 100:g} for a sure name{gated}"
    if settings.off:
        return "nothing is blended in: it would not help"
    neighbours = "1 neighbour" if settings.k == 1 else f"{settings.k} neighbours"
    words = f"{neighbours}, weight of their images {settings.w_img:g}, of their texts {settings.w_txt:g}"
    return words + (f", only those with a z-score of at least {settings.floor:g}" if settings.floor else "")


def pair_file(references: ReferenceSet, row: int, known: KnownSet | None) -> Path | None:
    """Locate the image file of a pair; None where there is none.

    The file may have changed since: compare its content with the pair's hash.

    Args:
        references: the set in force.
        known: the same set where its folder lies, since paths of pairs may be relative to what is beside it.
    """
    path = references.table["path"][row].as_py()
    if not path or not references.table["hash"][row].as_py() or "\0" in path:
        return None
    given = Path(path)
    roots = [] if known is None else [known.folder, known.folder.parent]
    candidates = [given] if given.is_absolute() else [root / given for root in roots]
    try:
        return next((file for file in candidates if file.is_file()), None)
    except OSError:  # such as a name that is too long
        return None


def _sets_in(folder: Path) -> Iterator[Path]:
    folder = folder.expanduser()
    if (folder / MANIFEST).is_file():
        yield folder
    elif folder.is_dir():
        yield from sorted(file.parent for file in folder.glob(f"*/{MANIFEST}"))
    else:
        yield folder  # its error tells that there is none


def _known(folder: Path, origin: Origin, manifest: IndexManifest) -> KnownSet:
    """Read what is told about a set.

    Raises:
        ReferenceSetError: there is none, it is damaged, or belongs to another encoder.
    """
    of_set = ReferenceSetManifest.read(folder)
    if of_set.encoder_fingerprint != manifest.encoder_fingerprint:
        raise ReferenceSetError(
            f"it was made with encoder {of_set.encoder_id!r}, the index with {manifest.encoder_id!r}: build it again"
        )
    settings = settings_in(of_set, folder) or VanillaSettings()
    return KnownSet(
        id=of_set.fingerprint[:16],
        name=of_set.name or folder.name,
        pairs=of_set.count,
        origin=origin,
        folder=folder,
        settings=in_words(settings),
    )
