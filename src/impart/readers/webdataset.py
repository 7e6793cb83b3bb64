"""Read WebDataset shards: tar files whose members with one key are a sample.

The key is the path up to the first dot of the file name, and the rest is the extension: `0001.jpg`, `0001.txt`, also
`0001.image.jpg`, `0001.caption.txt`. Published shards have keys with dots, too (`IMG.0001.jpg`, `IMG.0001.txt`). So a
group of members is divided at the next dot where its parts are samples of their own.
"""

from __future__ import annotations

import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from impart.errors import DataError
from impart.readers.captions import CAPTION_KEYS, captions_of, lines_of, parsed_json
from impart.readers.columns import LABEL_KEYS, LICENCE_KEYS
from impart.readers.sample import IMAGE_SUFFIXES, ImageSample, count_suffixes

__all__ = ["Member", "Shard", "ShardSample", "group_members", "is_shard", "notes_on", "read_shard", "shard_files"]

_TEXTS = frozenset({".txt", ".text", ".caption"})
_NAMED = _TEXTS | {".cls"}
_SHARD = re.compile(r"\.(tar|tar\.(gz|bz2|xz|zst)|tgz)$")
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_READ = _NAMED | {".json"}
_IMAGE_ROLES = ("image", "img", "photo", "rgb", "input")
_TEXT_ROLES = ("caption", "captions", "text", "txt")

_Parts: TypeAlias = "list[tuple[str, tuple[str, ...]]]"


def is_shard(path: Path) -> bool:
    """Test by its name whether a file is a shard, also one that is compressed."""
    return bool(_SHARD.search(path.name.lower()))


def shard_files(folder: Path) -> list[Path]:
    """List the shards of a folder in the order of their names.

    Compressed ones, which are damaged to `read_shard`, are among them; alone they are some archive, and no shards.
    """
    found = sorted((path for path in folder.iterdir() if is_shard(path) and path.is_file()), key=lambda path: path.name)
    return found if any(path.suffix.lower() == ".tar" for path in found) else []


def group_members(names: Sequence[str]) -> dict[str, list[str]]:
    """Group the members of a shard by sample.

    Members without an extension, and hidden ones, are left out.

    >>> group_members(["1.jpg", "1.txt", "2.image.jpg", "2.caption.txt"])
    {'1': ['1.jpg', '1.txt'], '2': ['2.image.jpg', '2.caption.txt']}
    >>> group_members(["IMG.1.jpg", "IMG.1.txt", "IMG.2.jpg", "IMG.2.txt"])
    {'IMG.1': ['IMG.1.jpg', 'IMG.1.txt'], 'IMG.2': ['IMG.2.jpg', 'IMG.2.txt']}
    """
    stems: dict[str, _Parts] = {}
    for name in names:
        folder, slash, base = name.rpartition("/")
        first, *rest = base.split(".")
        if first and rest:
            stems.setdefault(f"{folder}{slash}{first}", []).append((name, tuple(rest)))
    return dict(group for key, members in stems.items() for group in _divided(key, members))


def _divided(key: str, members: _Parts) -> list[tuple[str, list[str]]]:
    """Return the (key, names) of the samples in a group: one, or several if it divides at a later dot."""
    direct: _Parts = []
    deeper: dict[str, _Parts] = {}
    for name, (part, *rest) in members:
        if rest:
            deeper.setdefault(part, []).append((name, tuple(rest)))
        else:
            direct.append((name, (part,)))
    one = [(key, [name for name, _ in members])]
    if len(deeper) == 1 and not direct:
        part, inner = next(iter(deeper.items()))
        further = _divided(f"{key}.{part}", inner)
        return further if len(further) > 1 else one
    if not _are_samples(direct, deeper):
        return one
    groups = [(key, [name for name, _ in direct])] if direct else []
    return groups + [group for part, inner in deeper.items() for group in _divided(f"{key}.{part}", inner)]


def _are_samples(direct: _Parts, deeper: Mapping[str, _Parts]) -> bool:
    """Test whether the parts of a group are samples of their own: several have an image and a text, or have numbers."""
    everything = [*direct, *(member for inner in deeper.values() for member in inner)]
    texts = _NAMED if any(_suffix(name) in _NAMED for name, _ in everything) else _READ

    def complete(group: _Parts) -> bool:
        suffixes = {_suffix(name) for name, _ in group}
        return bool(suffixes & IMAGE_SUFFIXES and suffixes & texts)

    if not deeper or complete(direct):
        return False
    whole = sum(complete(inner) for inner in deeper.values())
    if whole >= 2:
        return True
    one_kind = not complete(everything)
    return (
        (all(part.isdecimal() for part in deeper) and not direct)
        or (all(any(letter.isdigit() for letter in part) for part in deeper) and (whole == 1 or one_kind))
    )  # fmt: skip


def _suffix(name: str) -> str:
    _, dot, extension = name.rpartition("/")[2].rpartition(".")
    return f"{dot}{extension.lower()}" if dot else ""


@dataclass(frozen=True, kw_only=True)
class Member:
    """Place of a file in a shard; calling it reads the file. Small files are read with the list of the shard."""

    shard: Path
    name: str
    offset: int
    size: int
    content: bytes | None = None

    def __call__(self) -> bytes:
        if self.content is not None:
            return self.content
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True, kw_only=True)
class ShardSample(ImageSample):
    """A sample of a shard.

    Attributes:
        key: of the sample in its shard.
        cls: content of its `.cls`; empty = it has none.
    """

    image: Member | None
    key: str
    cls: str = ""


@dataclass(kw_only=True)
class Shard:
    """Content of a shard.

    Attributes:
        samples: in the order of their first images.
        damage: reason why the shard ends early; None = it is whole.
        further: members of samples that are not used, such as second images.
        others: number of members of other kinds by suffix.
    """

    samples: list[ShardSample] = field(default_factory=list)
    damage: Exception | None = None
    further: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


def read_shard(path: Path) -> Shard:
    """List the samples of a shard; texts are read, images are not.

    A compressed shard is damaged: its images have no places of their own, from which they could be read one by one.
    """
    shard = Shard()
    members: dict[str, Member] = {}
    try:
        with path.open("rb") as file:
            start = file.read(6)
        if packed := next((name for magic, name in _PACKED.items() if start.startswith(magic)), ""):
            raise tarfile.ReadError(f"it is compressed by {packed}, and shards are read in place: decompress it")
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                _add(tar, member, members, shard, path=path)
            # tarfile treats a header that it cannot read as the end of the archive.
            if any(Member(shard=path, name="", offset=tar.offset, size=tarfile.BLOCKSIZE)()):
                raise tarfile.ReadError(f"damaged from byte {tar.offset}")
    except (OSError, EOFError, tarfile.TarError) as error:
        shard.damage = error
    groups = group_members(list(members))
    grouped = {name for names in groups.values() for name in names}
    shard.others.update(_suffix(name) for name in members if name not in grouped and not _is_hidden(name))
    real = path.resolve()
    samples = [_sample(path, real, key, [members[name] for name in names], shard) for key, names in groups.items()]
    places = {name: place for place, name in enumerate(members)}
    shard.samples = sorted(samples, key=lambda one: places[one.image.name] if one.image else len(places))
    return shard


def notes_on(shards: Sequence[Shard]) -> Iterator[str]:
    """Yield notes on the members of shards that are left out."""
    further = [name for shard in shards for name in shard.further]
    if further:
        yield f"{len(further)} further images or texts of samples are left out, first {further[0]}"
    others = sum((shard.others for shard in shards), Counter())
    if others:
        yield f"members of shards that are neither image nor text are left out: {count_suffixes(others)}"


def _is_hidden(name: str) -> bool:
    return name.rpartition("/")[2].startswith(".")


def _add(
    tar: tarfile.TarFile, member: tarfile.TarInfo, members: dict[str, Member], shard: Shard, *, path: Path
) -> None:
    name = member.name
    if name in members:
        shard.further.append(f"{path.name}::{name}")
    elif member.islnk() and member.linkname in members:  # tar writes a second hard link to a file as a link
        members[name] = replace(members[member.linkname], name=name)
    elif member.isfile():
        opened = tar.extractfile(member) if _suffix(name) in _READ else None
        content = opened.read() if opened is not None else None
        members[name] = Member(shard=path, name=name, offset=member.offset_data, size=member.size, content=content)
    elif not member.isdir():
        shard.others["links"] += 1


def _sample(path: Path, real: Path, key: str, members: Sequence[Member], shard: Shard) -> ShardSample:
    images = [one for one in members if _suffix(one.name) in IMAGE_SUFFIXES]
    texts = [one for one in members if _suffix(one.name) in _TEXTS]
    image = _preferred(images, key, _IMAGE_ROLES, beside=[one for one in members if _suffix(one.name) in _NAMED])
    chosen = _chosen_texts(texts, key)
    shard.further += [f"{path.name}::{one.name}" for one in (*images, *texts) if one is not image and one not in chosen]
    shard.others.update(_suffix(one.name) for one in members if _suffix(one.name) not in _READ | IMAGE_SUFFIXES)
    problem = ""
    captions: tuple[str, ...] = ()
    content: dict[str, Any] = {}
    classes = [one for one in members if _suffix(one.name) == ".cls"]
    cls = classes[0]().decode("utf-8", errors="replace").strip() if classes else ""
    try:
        captions = tuple(line for one in chosen for line in lines_of(one(), name=f"{path.name}::{one.name}"))
        content = _content(path, [one for one in members if _suffix(one.name) == ".json"])
    except DataError as error:
        problem = str(error)
    captions = captions or _first(content, CAPTION_KEYS)
    labels = (cls,) if cls else _first(content, LABEL_KEYS)
    return ShardSample(
        key=key,
        cls=cls,
        image=image,
        path=f"{path.name}::{image.name if image else key}",
        location=f"{real}::{image.name if image else key}",
        captions=captions,
        labels=labels,
        source=_word(content, ("source",)),
        licence=_word(content, LICENCE_KEYS),
        problem="" if captions or labels else problem,
    )


def _preferred(images: Sequence[Member], key: str, roles: Sequence[str], *, beside: Sequence[Member]) -> Member | None:
    """Choose the image of a sample: `KEY.jpg`, else the one beside a text, else `KEY.image.jpg`, else the first."""
    stems = {one.name.rpartition(".")[0] for one in beside}

    def rank(image: Member) -> tuple[bool, bool, int]:
        stem = image.name.rpartition(".")[0]
        role = stem.removeprefix(key).strip(".").lower()
        place = roles.index(role) if role in roles else len(roles)
        return stem != key, stem not in stems, place

    return min(images, key=rank, default=None)


def _chosen_texts(texts: Sequence[Member], key: str) -> list[Member]:
    """Choose the texts of a sample: `KEY.txt`, else `KEY.caption.txt`, else all."""
    stems = [key, *(f"{key}.{role}" for role in _TEXT_ROLES)]
    for stem in stems:
        found = [one for one in texts if one.name.rpartition(".")[0].lower() == stem.lower()]
        if found:
            return found
    return list(texts)


def _content(shard: Path, members: Sequence[Member]) -> dict[str, Any]:
    """Read the json of a sample."""
    content: dict[str, Any] = {}
    for member in members:
        found = parsed_json(member(), name=f"{shard.name}::{member.name}")
        content |= found if isinstance(found, dict) else {"captions": found} if isinstance(found, list) else {}
    return content


def _first(content: Mapping[str, Any], keys: Sequence[str]) -> tuple[str, ...]:
    return next(filter(None, (captions_of(content.get(key)) for key in keys)), ())


def _word(content: Mapping[str, Any], keys: Sequence[str]) -> str:
    return " ".join(next((str(content[key]) for key in keys if content.get(key)), "").split())
