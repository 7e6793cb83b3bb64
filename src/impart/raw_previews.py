"""Previews of raw files: the largest JPEG that a camera stored beside the sensor's values.

Raw formats (DNG, CR2, NEF, ARW, ...) are many, and most of them contain a JPEG of full or reduced size. It is found by
its first bytes, whatever the format. The orientation and the time of the photo are those of the raw file.
"""

from __future__ import annotations

import io
import re
import struct

from impart.errors import DataError

__all__ = ["RAW_SUFFIXES", "with_preview"]

_NAMES = "3fr arw cr2 cr3 crw dcr dng erf iiq k25 kdc mef mos mrw nef nrw orf pef raf rw2 rwl sr2 srf srw x3f"
RAW_SUFFIXES = frozenset(f".{name}" for name in _NAMES.split())
"""Suffixes of raw files, in lower case."""

_START = re.compile(rb"\xff\xd8\xff[\xc0-\xfe]")
_LEAST_PX = 256  # of the long side: a smaller preview is a thumbnail
_ORIENTATION, _EXIF_IFD, _TIME, _OFFSET = 0x0112, 0x8769, 0x9003, 0x9011
_ERRORS = (OSError, SyntaxError, ValueError, LookupError, TypeError, ArithmeticError, struct.error)
_TIFF_ALIKE = {b"IIU\0": b"II*\0", b"IIRO": b"II*\0", b"IIRS": b"II*\0", b"MMOR": b"MM\0*"}
"""First bytes of raw formats that are TIFF but for these."""


def with_preview(data: bytes) -> bytes:
    """Find the largest JPEG in the content of a raw file.

    Returns:
        The JPEG, with the orientation and the time of the raw file in front.

    Raises:
        DataError: there is none of at least 256 pixels.
    """
    from PIL import Image  # the scan of folders needs the suffixes alone

    best, most_px = b"", 0
    for found in _START.finditer(data):
        part = data[found.start() :]
        try:
            with Image.open(io.BytesIO(part), formats=["JPEG"]) as image:
                if max(image.size) < _LEAST_PX or image.width * image.height <= most_px:
                    continue
                image.draft("RGB", (32, 32))
                image.load()  # raw values are a JPEG of a kind that cannot be decoded
                size = image.size
        except _ERRORS:
            continue
        best, most_px = part, size[0] * size[1]
    if not best:
        raise DataError("a raw file without a preview that can be read: export it as JPEG or TIFF")
    exif = _exif_of(data)
    return best[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + best[2:]


def _exif_of(data: bytes) -> bytes:
    """Read orientation and time of a raw file, as the EXIF block of a JPEG."""
    from PIL import Image

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
