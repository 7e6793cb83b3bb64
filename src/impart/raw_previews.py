"""Previews of raw files: the largest JPEG that a camera stored beside the sensor's values.

Raw formats (DNG, CR2, NEF, ARW, ...) are many, and most of them contain a JPEG of full or reduced size. It is found by
its first bytes, whatever the format. The orientation and the time of the photo are those of the raw file.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

__all__ = ["RAW_SUFFIXES", "jpegs_in", "with_exif_of"]

_NAMES = "3fr arw cr2 cr3 crw dcr dng erf iiq k25 kdc mef mos mrw nef nrw orf pef raf rw2 rwl sr2 srf srw x3f"
RAW_SUFFIXES = frozenset(f".{name}" for name in _NAMES.split())
"""Suffixes of raw files, in lower case."""

_START = re.compile(rb"\xff\xd8\xff[\xc0-\xfe]")
_ORIENTATION, _EXIF_IFD, _TIME, _OFFSET = 0x0112, 0x8769, 0x9003, 0x9011
_ERRORS = (OSError, SyntaxError, ValueError, LookupError, TypeError, ArithmeticError, struct.error)
_TIFF_ALIKE = {b"IIU\0": b"II*\0", b"IIRO": b"II*\0", b"IIRS": b"II*\0", b"MMOR": b"MM\0*"}
"""First bytes of raw formats that are TIFF but for these."""


def jpegs_in(data: bytes) -> Iterator[bytes]:
    """Yield what begins like a JPEG in the content of a raw file, each up to the end of the file."""
    for found in _START.finditer(data):
        yield data[found.start() :]


def with_exif_of(raw: bytes, jpeg: bytes) -> bytes:
    """Put the orientation and the time of a raw file in front of a JPEG that was found in it."""
    exif = _exif_of(raw)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


def _exif_of(data: bytes) -> bytes:
    """Read orientation and time of a raw file, as the EXIF block of a JPEG."""
    from PIL import Image  # the scan of folders needs the suffixes alone

    known, taken = Image.Exif(), Image.Exif()
    try:
        known.load(b"Exif\0\0" + _TIFF_ALIKE.get(data[:4], data[:4]) + data[4:])
        orientation, times = known.get(_ORIENTATION, 1), known.get_ifd(_EXIF_IFD)
    except _ERRORS:
        return taken.tobytes()
    if isinstance(orientation, int):
        taken[_ORIENTATION] = orientation
    taken.get_ifd(_EXIF_IFD).update({tag: times[tag] for tag in (_TIME, _OFFSET) if tag in times})
    return taken.tobytes()
