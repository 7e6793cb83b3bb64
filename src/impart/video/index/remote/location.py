"""Location of an index: a folder, or a URL of object storage such as `s3://bucket/library.impart`.

An index at a URL has a folder of this machine, its mirror, below the cache folder of the user. The mirror contains a
copy of the small files of the index (manifest, reference set, names), and what concerns this machine alone (cache of
the snapshot, last search, lock). All code works with the mirror as the folder of the index. In messages, a path in a
mirror is written as its URL.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from impart.errors import ConfigError, VideoIndexError
from impart.files import cache_folder, sha256_hex, write_json_atomic

if sys.platform == "win32":
    from pathlib import WindowsPath as _OwnPath
else:
    from pathlib import PosixPath as _OwnPath

__all__ = ["Location", "MirrorPath", "location_of", "place_of"]

MARKER = "location.json"
"""File of a mirror that names its URL."""

_SCHEMES = ("s3", "gs", "az")
_URL = re.compile(r"([a-z][a-z0-9+.-]+)://(.*)", re.IGNORECASE | re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_PREFIX = re.compile(r"[A-Za-z0-9!_.*'()/ -]+")
_KNOWN: dict[str, Location] = {}
"""Location of each mirror that this process uses, by the path of its folder."""


@dataclass(frozen=True)
class Location:
    """Place of an index on object storage.

    Attributes:
        scheme: `s3`, `gs` or `az`.
        bucket: of S3 and Google, or container of Azure.
        prefix: of all keys of the index, without slashes at its ends.

    Example:
        >>> Location.parse("s3://films/archive/library.impart/").key("manifest.json")
        'films/archive/library.impart/manifest.json'
    """

    scheme: str
    bucket: str
    prefix: str

    @classmethod
    def parse(cls, text: str) -> Location:
        """Read a URL.

        Raises:
            ConfigError: it is none of object storage, or lacks the bucket or the prefix.
        """
        found = _URL.fullmatch(text.strip())
        if found is None or found[1].lower() not in _SCHEMES:
            raise ConfigError(
                f"{text}: an index is a folder, or a URL such as s3://bucket/library.impart (gs://, az://)"
            )
        bucket, _, prefix = found[2].partition("/")
        prefix = "/".join(part for part in prefix.split("/") if part)
        if not _BUCKET.fullmatch(bucket) or not _PREFIX.fullmatch(prefix) or ".." in prefix.split("/"):
            raise ConfigError(
                f"{text}: give a bucket and a prefix of letters, digits, spaces and -_.!*'(), such as "
                f"{found[1].lower()}://bucket/library.impart"
            )
        return cls(found[1].lower(), bucket, prefix)

    @property
    def url(self) -> str:
        """URL of the index."""
        return f"{self.scheme}://{self.bucket}/{self.prefix}"

    def key(self, name: str) -> str:
        """Return bucket and key of a file of the index, as `pyarrow.fs` takes them."""
        return "/".join(part for part in (self.bucket, self.prefix, name) if part)

    def mirror(self) -> Path:
        """Return the folder of this machine that belongs to the URL."""
        name = re.sub(r"[^A-Za-z0-9._-]", "-", self.prefix.rpartition("/")[2])
        return cache_folder() / "indexes" / f"{name}-{sha256_hex(self.url)[:16]}"


class MirrorPath(_OwnPath):
    """A path in a mirror. An f-string shows its URL; `str` and `os.fspath` return the path of this machine."""

    def __format__(self, spec: str) -> str:
        for folder in (self, *self.parents):
            location = _KNOWN.get(os.fspath(folder))
            if location is not None:
                below = "/".join(self.parts[len(folder.parts) :])
                return format(f"{location.url}/{below}" if below else location.url, spec)
        return format(os.fspath(self), spec)


def place_of(path: str | os.PathLike[str]) -> Path:
    """Return the folder of an index: of a URL its mirror, which is made; else the absolute path.

    Raises:
        ConfigError: a URL is not valid.
        VideoIndexError: the mirror cannot be made.

    Example:
        >>> place_of("/films/library.impart").name
        'library.impart'
    """
    text = os.fspath(path)
    if not _URL.fullmatch(text):
        folder = Path(os.path.abspath(os.path.expanduser(text)))  # noqa: PTH100, PTH111
        return folder if location_of(folder) is None else MirrorPath(folder)
    location = Location.parse(text)
    folder = location.mirror()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / MARKER).exists():
            write_json_atomic(folder / MARKER, {"url": location.url})
    except OSError as error:
        raise VideoIndexError(
            f"cannot write {folder}, the local folder of {location.url}: {error.strerror or error}. Name another one "
            "with the variable IMPART_CACHE"
        ) from error
    _KNOWN[str(folder)] = location
    return MirrorPath(folder)


def location_of(folder: Path) -> Location | None:
    """Return the URL of an index whose mirror is given; None for an index in a folder."""
    known = _KNOWN.get(os.fspath(folder))
    if known is None:
        try:
            url = json.loads((folder / MARKER).read_text(encoding="utf-8"))["url"]
        except (OSError, ValueError, LookupError, TypeError):
            return None
        known = _KNOWN[os.fspath(folder)] = Location.parse(str(url))
    return known
