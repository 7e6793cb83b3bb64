"""Versions of a LanceDB table on disk: which data files each one has, and how to make one without damaged files.

A version is a file: a Protocol Buffers message, its place, and the bytes `LANC`. Of the message only the fragments
(field 2) and the number (field 3) are read; the rest is copied as it is. Everything here is a pure function of bytes.

Source: the table format of Lance, https://lance.org/format/table/ (messages Manifest, DataFragment, DataFile).
"""

from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

__all__ = ["Fragment", "Version", "count_rows", "read_version", "with_files", "without"]

_MAGIC = b"LANC"
_FOOTER = struct.Struct("<QHH")  # place of the message, version of the format
_DATA_FOOTER = struct.Struct("<QQQIIHH")  # places of columns, their offsets and global buffers; counts; version
_FRAGMENTS, _NUMBER, _TRANSACTION = 2, 3, 12
_ID, _FILES, _DELETIONS, _ROWS = 1, 2, 3, 4
_PATH, _SIZE = 1, 6
_ENDINGS = ("arrow", "bin")
_PLAIN = re.compile(r"[0-9A-Za-z_.-]+")  # name of a file of a table


@dataclass(frozen=True, kw_only=True)
class Fragment:
    """A part of a table: the rows of its data files, less those of its deletion file.

    Attributes:
        id: of the fragment.
        files: names in `data/`, with their sizes in bytes; 0 = the version does not state it.
        deletions: name in `_deletions/`; "" = no row is deleted.
        rows: in the data files.
        message: the bytes that describe it.
    """

    id: int
    files: tuple[tuple[str, int], ...]
    deletions: str
    rows: int
    message: bytes

    @cached_property
    def names(self) -> frozenset[str]:
        """Paths of its files below the folder of the table."""
        data = frozenset(f"data/{name}" for name, _ in self.files)
        return data | {f"_deletions/{self.deletions}"} if self.deletions else data


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version of a table.

    Attributes:
        number: from 1.
        fragments: in order.
        transaction: name in `_transactions/`; "" = not stated.
    """

    number: int
    fragments: tuple[Fragment, ...]
    transaction: str


def read_version(content: bytes, known: dict[bytes, Fragment] | None = None) -> Version:
    """Read the file of a version.

    Args:
        known: fragments of other versions of the table, by their messages; new ones are added. Neighbouring versions
            share nearly all, so each is read once.

    Raises:
        ValueError: it is damaged.
    """
    number, transaction, fragments = 0, "", []
    known = {} if known is None else known
    for field, value, _ in _fields(_message(content)[0]):
        if field == _FRAGMENTS:
            message = _bytes(value)
            if message not in known:
                known[message] = _fragment(message)
            fragments.append(known[message])
        elif field == _NUMBER:
            number = _number(value)
        elif field == _TRANSACTION:
            transaction = _text(value)
    if not number:
        raise ValueError("it states no number")
    return Version(number=number, fragments=tuple(fragments), transaction=transaction)


def without(content: bytes, fragments: Collection[int], deletions: Collection[int] = ()) -> bytes:
    """Make the file of a version without some of its fragments.

    Args:
        content: of the file of a version.
        fragments: ids of those that are left out.
        deletions: ids of those whose deletion files are left out: all of their rows are there again.

    Raises:
        ValueError: the file is damaged.
    """
    message, place = _message(content)
    parts = []
    for field, value, (begin, end) in _fields(message):
        part = message[begin:end]
        if field == _FRAGMENTS:
            fragment = _fragment(_bytes(value))
            if fragment.id in fragments:
                continue
            if fragment.id in deletions:
                part = _field(_FRAGMENTS, _without_field(fragment.message, _DELETIONS))
        parts.append(part)
    return _file(content, place, b"".join(parts))


def with_files(content: bytes, files: Sequence[tuple[str, int, int]]) -> bytes:
    """Make the file of a version whose fragments are the given data files.

    Args:
        content: of a version with one fragment of one file, with the same columns.
        files: name, size in bytes and number of rows of each.

    Raises:
        ValueError: the version has not one fragment of one file.
    """
    message, place = _message(content)
    (template,) = read_version(content).fragments
    parts = [message[begin:end] for field, _, (begin, end) in _fields(message) if field != _FRAGMENTS]
    for number, (name, size, rows) in enumerate(files):
        described = b""
        for field, value, (begin, end) in _fields(template.message):
            if field == _FILES:
                described += _field(_FILES, _renamed(_bytes(value), name, size))
            elif field not in (_ID, _ROWS, _DELETIONS):
                described += template.message[begin:end]
        parts.append(_field(_FRAGMENTS, _field(_ID, number) + described + _field(_ROWS, rows)))
    most = _field(11, max(len(files) - 1, 0))  # the largest id; a later field replaces an earlier one
    return _file(content, place, b"".join([*parts, most]))


def count_rows(content: bytes) -> int:
    """Read the number of rows from the bytes of a data file.

    Raises:
        ValueError: it is damaged.
    """
    size = _DATA_FOOTER.size + len(_MAGIC)
    if len(content) < size or not content.endswith(_MAGIC):
        raise ValueError("it does not end as a data file")
    _, _, offsets, count, *_ = _DATA_FOOTER.unpack(content[-size : -len(_MAGIC)])
    if not count or offsets + 16 > len(content):
        raise ValueError("it has no description")
    place, length = struct.unpack("<QQ", content[offsets : offsets + 16])
    for field, value, _ in _fields(content[place : place + length]):
        if field == 2:
            return _number(value)
    return 0


def _fragment(message: bytes) -> Fragment:
    made = Fragment(id=0, files=(), deletions="", rows=0, message=message)
    deletions: dict[int, int] | None = None
    for field, value, _ in _fields(message):
        if field == _ID:
            made = dataclasses.replace(made, id=_number(value))
        elif field == _FILES:
            stated = {name: inner for name, inner, _ in _fields(_bytes(value))}
            file = (_text(stated.get(_PATH, b"")), _number(stated.get(_SIZE, 0)))
            made = dataclasses.replace(made, files=(*made.files, file))
        elif field == _DELETIONS:
            deletions = {name: _number(inner) for name, inner, _ in _fields(_bytes(value)) if isinstance(inner, int)}
        elif field == _ROWS:
            made = dataclasses.replace(made, rows=_number(value))
    if not all(_PLAIN.fullmatch(name) for name, _ in made.files):
        raise ValueError("it has a name that no file of a table has")
    if deletions is None:
        return made
    kind = deletions.get(1, 0)
    if kind >= len(_ENDINGS):
        raise ValueError(f"it has a deletion file of an unknown kind ({kind})")
    return dataclasses.replace(
        made, deletions=f"{made.id}-{deletions.get(2, 0)}-{deletions.get(3, 0)}.{_ENDINGS[kind]}"
    )


def _message(content: bytes) -> tuple[bytes, int]:
    """Return the message of the file of a version, and its place."""
    size = _FOOTER.size + len(_MAGIC)
    if len(content) < size + 4 or not content.endswith(_MAGIC):
        raise ValueError("it does not end as a version of a table")
    place = _FOOTER.unpack(content[-size : -len(_MAGIC)])[0]
    if place + 4 > len(content) - size:
        raise ValueError("it names a place that it does not have")
    (length,) = struct.unpack("<I", content[place : place + 4])
    if place + 4 + length > len(content) - size:
        raise ValueError("it is cut short")
    return content[place + 4 : place + 4 + length], place


def _file(content: bytes, place: int, message: bytes) -> bytes:
    footer = content[-_FOOTER.size - len(_MAGIC) :]
    return content[:place] + struct.pack("<I", len(message)) + message + footer


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes, tuple[int, int]]]:
    """Yield number, value, and first and last place of the fields of a message."""
    place = 0
    while place < len(message):
        begin = place
        key, place = _varint(message, place)
        kind = key & 7
        value: int | bytes
        if kind == 0:
            value, place = _varint(message, place)
        else:
            length = {1: 8, 5: 4}.get(kind, 0)
            if kind == 2:
                length, place = _varint(message, place)
            elif not length:
                raise ValueError("it has a field of an unknown kind")
            value, place = message[place : place + length], place + length
        if place > len(message):
            raise ValueError("a field of it is cut short")
        yield key >> 3, value, (begin, place)


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = 0
    for number in range(10):
        if place + number >= len(message):
            raise ValueError("a number of it is cut short")
        byte = message[place + number]
        value |= (byte & 127) << 7 * number
        if byte < 128:
            return value, place + number + 1
    raise ValueError("a number of it is too long")


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _packed(number << 3) + _packed(value)
    return _packed(number << 3 | 2) + _packed(len(value)) + value


def _packed(value: int) -> bytes:
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    return bytes([*made, value])


def _renamed(message: bytes, name: str, size: int) -> bytes:
    """Describe another data file with the columns of one."""
    kept = b"".join(message[begin:end] for field, _, (begin, end) in _fields(message) if field not in (_PATH, _SIZE))
    return _field(_PATH, name.encode()) + kept + _field(_SIZE, size)


def _without_field(message: bytes, number: int) -> bytes:
    return b"".join(message[begin:end] for field, _, (begin, end) in _fields(message) if field != number)


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a field of it is of another kind")
    return value


def _number(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("a field of it is of another kind")
    return value


def _text(value: int | bytes) -> str:
    try:
        return _bytes(value).decode()
    except UnicodeDecodeError as error:
        raise ValueError("a name in it is no text") from error
