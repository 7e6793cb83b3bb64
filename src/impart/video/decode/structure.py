"""Structure of a file, read without FFmpeg: whether bytes are missing at its end, and whether it is encrypted.

FFmpeg reads a file that was cut short to its last byte and reports no error. A frame that is shown until the end of a
recording looks the same to it. The sizes that a container declares distinguish the two.

Sources: ISO/IEC 14496-12 (boxes) and 23001-7 (`encv`), RFC 9559 (Matroska), the AVI and ASF file formats, ISO/IEC
13818-1 (transport packets, scrambling control), RFC 3533 (Ogg pages), Adobe's FLV 10.1, GIF89a.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

__all__ = [
    "HAS_READER",
    "IN_FRAGMENT",
    "has_second_film",
    "is_encrypted_iso",
    "is_scrambled",
    "lacks_index",
    "missing_at_end",
]

IN_FRAGMENT = "the file ends in the middle of a fragment"
Boxes = Iterator[tuple[bytes, int, int]]
"""(kind, start of the content, end) of ISO boxes; the end may lie behind the end of the file."""

ISO, MATROSKA, AVI, ASF, FLV, OGG, TS = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "asf", "flv", "ogg", "mpegts"
GIF = "gif"
ENCRYPTED_ENTRIES = frozenset({b"encv", b"drmi"})  # Common Encryption, FairPlay
ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
SEGMENT, CLUSTER = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"  # elements of Matroska
CLUSTER_CHILDREN = frozenset({0xE7, 0xEC, 0xBF})  # its first: time, padding or a checksum
CLUSTER_BYTES = (1 << 20, 1 << 26)  # where the last cluster begins, from the end: usually, at most
HEAD_BYTES = 1 << 16
SCRAMBLED_BYTES = 4 << 20
PACKET_BYTES = (188, 192, 204)


def lacks_index(path: Path) -> bool:
    """Test whether an ISO media file (mp4, mov) has no complete `moov` box."""
    with path.open("rb") as file:
        size = path.stat().st_size
        first = True
        for kind, _, end in _boxes(file, 0, size):
            if first and kind not in (b"ftyp", b"wide", b"mdat", b"free", b"skip", b"moov"):
                return False
            first = False
            if kind == b"moov":
                return end > size
    return not first


def is_encrypted_iso(path: Path) -> bool:
    """Test whether all video tracks of an ISO media file are encrypted."""
    found = []
    with path.open("rb") as file:
        size = path.stat().st_size
        for track in _inside(file, (b"moov", b"trak"), 0, size):
            handlers = [file.read(4) for at, _ in _inside(file, (b"mdia", b"hdlr"), *track) if file.seek(at + 8)]
            if b"vide" in handlers:
                for at, end in _inside(file, (b"mdia", b"minf", b"stbl", b"stsd"), *track):
                    found.append({kind for kind, _, _ in _boxes(file, at + 8, min(end, size))})
    return bool(found) and all(kinds and kinds <= ENCRYPTED_ENTRIES for kinds in found)


def is_scrambled(path: Path, *, pid: int) -> bool:
    """Test whether most packets of one stream of an MPEG transport stream are scrambled, in its first 4 MiB."""
    with path.open("rb") as file:
        data = file.read(SCRAMBLED_BYTES)
    for step in PACKET_BYTES:
        first = next((at for at in range(step) if data[at : at + 5 * step : step] == b"\x47" * 5), None)
        if first is None:
            continue
        flags = [
            bool(data[at + 3] & 0xC0)
            for at in range(first, len(data) - 3, step)
            if int.from_bytes(data[at + 1 : at + 3], "big") & 0x1FFF == pid and data[at + 3] & 0x10
        ]
        return sum(flags) * 2 > len(flags)
    return False


def has_second_film(path: Path, format_name: str) -> bool:
    """Test whether a file consists of two that were joined byte by byte: FFmpeg reads the first.

    An ISO media file has two `moov` boxes then. An FLV has a second header at its declared size.

    Args:
        format_name: FFmpeg's name of the container; False for all but these two.
    """
    if format_name not in (ISO, FLV):
        return False
    films = 0
    with path.open("rb") as file:
        if format_name == FLV:
            _, found, value = file.read(HEAD_BYTES).partition(b"\x00\x08filesize\x00")
            size = struct.unpack(">d", value[:8])[0] if found and len(value) >= 8 else 0
            file.seek(int(size) if 0 < size < path.stat().st_size else 0)
            return file.tell() > 0 and file.read(4) == b"FLV\x01"
        for kind, _, _ in _boxes(file, 0, path.stat().st_size):
            if kind == b"moof":
                return False
            films += kind == b"moov"
            if films == 2:
                return True
    return False


def missing_at_end(path: Path, format_name: str) -> str | None:
    """Find whether the file ends before its own structure does.

    Args:
        format_name: FFmpeg's name of the container.

    Returns:
        What is missing, in words; None where nothing is, or where the container does not declare it.
    """
    reader = _READERS.get(format_name)
    if reader is None:
        return None
    size = path.stat().st_size
    with path.open("rb") as file:
        return reader(file, size)


def _of_bytes(size: int, wanted: int) -> str | None:
    return f"the file ends there, at {size} of {wanted} bytes" if wanted > size else None


def _iso(file: IO[bytes], size: int) -> str | None:
    fragments = False  # their durations are summed: those that are missing are not declared
    for kind, _, end in _boxes(file, 0, size):
        fragments = fragments or kind == b"moof"
        if kind in (b"mdat", b"moof", b"moov"):
            if end > size:
                return IN_FRAGMENT if fragments else _of_bytes(size, end)
        elif not kind.isalnum():
            return None  # something else behind the last box
    return None


def _matroska(file: IO[bytes], size: int) -> str | None:
    head = file.read(HEAD_BYTES)
    at = 0
    while at + 12 <= len(head):
        kind, at = head[at : at + 4], at + 4
        length, at = _ebml_size(head, at)
        if kind == SEGMENT:
            return _of_bytes(size, at + length) if length is not None else _last_cluster(file, size)
        if length is None:
            return None
        at += length
    return None


def _last_cluster(file: IO[bytes], size: int) -> str | None:
    """Read the last cluster of a Matroska segment of unknown size: a live recording, or one that was interrupted."""
    for count in CLUSTER_BYTES:
        tail = _tail(file, size, count)
        at = tail.rfind(CLUSTER)
        while at >= 0:
            body = _ebml_size(tail, at + 4)[1] if at + 12 <= len(tail) else len(tail)
            if body >= len(tail) or tail[body] in CLUSTER_CHILDREN:
                return None if _whole_elements(tail, at) else "the file ends in the middle of a cluster"
            at = tail.rfind(CLUSTER, 0, at)
    return None


def _whole_elements(data: bytes, at: int) -> bool:
    """Test whether the last Matroska element ends within the data; elements of unknown size are entered."""
    while at < len(data):
        at += max(1, 9 - data[at].bit_length())
        if at >= len(data):
            return False
        length, body = _ebml_size(data, at)
        at = body + (length or 0)
    return at == len(data)


def _ebml_size(data: bytes, at: int) -> tuple[int | None, int]:
    """Read an EBML size; None = unknown (a live recording)."""
    width = 9 - data[at].bit_length()
    if width > 8:
        return None, at + 1
    value = int.from_bytes(data[at : at + width], "big") - (1 << (7 * width))
    return (None if value == (1 << (7 * width)) - 1 else value), at + width


def _avi(file: IO[bytes], size: int) -> str | None:
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(8)
        length = int.from_bytes(head[4:], "little")
        if head[:4] != b"RIFF" or length in (0, 0xFFFFFFFF):
            return None
        if at + 8 + length > size:
            return _of_bytes(size, at + 8 + length)
        at += 8 + length + length % 2
    return None


def _asf(file: IO[bytes], size: int) -> str | None:
    head = file.read(HEAD_BYTES)
    at = head.find(ASF_FILE_PROPERTIES)
    if at < 0 or at + 92 > len(head) or head[at + 88] & 1:  # bit 0: broadcast, the sizes are not valid
        return None
    return _of_bytes(size, int.from_bytes(head[at + 40 : at + 48], "little"))


def _flv(file: IO[bytes], size: int) -> str | None:
    tail = _tail(file, size, 4)
    length = int.from_bytes(tail, "big")
    if 11 <= length <= size - 4:
        file.seek(size - 4 - length)
        head = file.read(4)
        if head[0] & 0x1F in (8, 9, 18) and int.from_bytes(head[1:], "big") + 11 == length:
            return None
    return "the file ends in the middle of a tag"


def _ogg(file: IO[bytes], size: int) -> str | None:
    tail = _tail(file, size, 2 * HEAD_BYTES)
    at = tail.rfind(b"OggS")
    if at < 0 or at + 27 > len(tail):
        return "the file ends in the middle of a page" if at >= 0 else None
    table = tail[at + 27 : at + 27 + tail[at + 26]]
    complete = len(table) == tail[at + 26] and at + 27 + len(table) + sum(table) <= len(tail)
    return None if complete else "the file ends in the middle of a page"


def _ts(file: IO[bytes], size: int) -> str | None:
    tail = _tail(file, size, 2048)
    for step in PACKET_BYTES:
        whole = 204 if step == 204 else 188
        if len(tail) >= 3 * step and all(tail[-whole - n * step] == 0x47 for n in range(3)):
            return None
    for step in PACKET_BYTES:
        for rest in range(1, step):
            if len(tail) >= rest + 3 * step and all(tail[-rest - n * step] == 0x47 for n in range(4)):
                return "the file ends in the middle of a packet"
    return None


def _gif(file: IO[bytes], size: int) -> str | None:
    head = file.read(13)
    if len(head) < 13:
        return "the file ends in its header"
    file.seek(_gif_colours(head[10]), os.SEEK_CUR)
    while (at := file.tell()) < size:
        kind = file.read(1)
        if kind == b"\x3b":  # the end; anything may follow
            return None
        if kind == b"\x2c":
            image = file.read(9)
            file.seek(_gif_colours(image[8] if len(image) == 9 else 0) + 1, os.SEEK_CUR)
        elif kind == b"\x21":
            file.seek(1, os.SEEK_CUR)
        elif kind != b"\x00":
            return f"the file is damaged before byte {at}"
        while kind != b"\x00" and (count := file.read(1)) != b"\x00":
            if not count:
                return "the file ends in the middle of a frame"
            file.seek(count[0], os.SEEK_CUR)
    return None if at == size else "the file ends in the middle of a frame"


def _gif_colours(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _tail(file: IO[bytes], size: int, count: int) -> bytes:
    file.seek(max(0, size - count), os.SEEK_SET)
    return file.read(count)


def _inside(file: IO[bytes], kinds: tuple[bytes, ...], start: int, end: int) -> Iterator[tuple[int, int]]:
    """Find nested boxes: (start of the content, end) of each box of kind `kinds[-1]` below boxes of the other kinds."""
    for kind, at, stop in _boxes(file, start, end):
        if kind == kinds[0]:
            if len(kinds) == 1:
                yield at, min(stop, end)
            else:
                yield from _inside(file, kinds[1:], at, min(stop, end))


def _boxes(file: IO[bytes], at: int, end: int) -> Boxes:
    while at + 8 <= end:
        file.seek(at)
        head = file.read(16)
        length, kind, body = int.from_bytes(head[:4], "big"), head[4:8], at + 8
        if length == 1 and len(head) == 16:
            length, body = int.from_bytes(head[8:], "big"), at + 16
        elif length == 0:  # to the end
            length = end - at
        if length < 8:
            return
        yield kind, body, at + length
        at += length


_READERS: dict[str, Callable[[IO[bytes], int], str | None]] = {
    ISO: _iso,
    MATROSKA: _matroska,
    AVI: _avi,
    ASF: _asf,
    FLV: _flv,
    GIF: _gif,
    OGG: _ogg,
    TS: _ts,
}
HAS_READER = frozenset(_READERS)
"""Containers of which `missing_at_end` reads the structure."""
