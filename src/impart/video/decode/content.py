"""Content: tell by the first bytes of a file whether it is a video, a photo, sound or something else.

A GIF, an animated WebP or PNG with a single frame is a photo (`is_photo`).

Names lie, and many suffixes have several meanings: `.ts` is also TypeScript, `.mod` also music and source code, `.webp`
and `.heic` are photos or animations. FFmpeg's own probe takes much longer and finds a video in most text and image
files. Only the signatures of containers are tested here; whether the video can be decoded shows later.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

from impart.raw_previews import RAW_SUFFIXES

__all__ = ["HEAD_BYTES", "ICON", "ICON_PX", "PHOTO_SUFFIXES", "Content", "content_of", "is_photo"]

Content: TypeAlias = Literal["video", "animated webp", "photo", "heif photo", "sound", "text", "empty", "unknown"]

_PHOTOS = """
    apng avif bmp dds dib heic heics heif heifs hif j2c j2k jfif jp2 jpc jpe jpeg jpf jpg jpx pbm pcx pgm png pnm ppm
    psd qoi sgi tga tif tiff webp
"""
PHOTO_SUFFIXES = RAW_SUFFIXES | {f".{name}" for name in _PHOTOS.split()}
"""Suffixes of still images, in lower case; a few of these files are animations."""

ICON_PX = 32
ICON = f"icon below {ICON_PX} pixels"
"""Reason of an image that is left out; it is no failure."""

HEAD_BYTES = 1 << 13
TS_PACKETS = (188, 192, 204)  # MPEG-TS; with a time code (Blu-ray, AVCHD); with error correction (DVB)
TS_LONGEST_JUNK = 1024  # a recording may start in the middle of a packet
TS_SYNCS = 5
MOSTLY = 0.8

STARTS: tuple[tuple[bytes, Content], ...] = (
    (b"\x1a\x45\xdf\xa3", "video"),  # Matroska, WebM
    (b"FLV\x01", "video"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video"),  # ASF: WMV, DVR-MS
    (b"\xb7\xd8\x00\x20\x37\x49\xda\x11", "video"),  # WTV
    (b"\x00\x00\x01\xba", "video"),  # MPEG programme stream: MPG, VOB, VRO, MOD
    (b"\x00\x00\x01\xb3", "video"),  # MPEG video
    (b"\x06\x0e\x2b\x34\x02\x05\x01\x01", "video"),  # MXF
    (b".RMF", "video"),  # RealMedia
    (b"DKIF", "video"),  # IVF
    (b"YUV4MPEG2 ", "video"),
    (b"nut/multimedia container\x00", "video"),
    (b"NSVf", "video"),
    (b"NSVs", "video"),
    (b"DHAV", "video"),  # Dahua recorders
    (b"IMKH", "video"),  # Hikvision recorders: MPEG programme stream behind 40 bytes
    (b"\x1f\x07\x00", "video"),  # DV
    (b"MLVI", "video"),  # Magic Lantern
    (b"BIKi", "video"),
    (b"KB2", "video"),
    (b"SMK2", "video"),
    (b"SMK4", "video"),
    (b"CI\x2c\x00", "video"),  # Phantom Cine
    (b"GIF87a", "video"),
    (b"GIF89a", "video"),
    (b"\xff\xd8\xff", "photo"),
    (b"II*\x00", "photo"),  # TIFF and most raw formats
    (b"MM\x00*", "photo"),
    (b"8BPS", "photo"),
    (b"\x00\x00\x00\x0cjP  ", "photo"),  # JPEG 2000
    (b"\xff\x4f\xff\x51", "photo"),  # its bare codestream
    (b"qoif", "photo"),
    (b"fLaC", "sound"),
    (b"ID3", "sound"),
)
RIFF: dict[bytes, Content] = {b"AVI ": "video", b"AMV ": "video", b"CDXA": "video", b"WAVE": "sound"}
BMP_HEADERS = frozenset(size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124))
JPEG_VIDEO_SUFFIXES = frozenset({".mjpeg", ".mjpg"})
OLD_QUICKTIME = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"moof", b"styp", b"sidx"})
SOUND_BRANDS = frozenset({b"M4A ", b"M4B ", b"F4A ", b"F4B "})
PHOTO_BRANDS = frozenset({b"jp2 ", b"jpx ", b"crx "})
HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"mif1", b"avif"})
SEQUENCE_BRANDS = frozenset({b"hevc", b"hevx", b"msf1", b"avis"})


def content_of(path: Path) -> Content:
    """Read the first `HEAD_BYTES` of a file and tell what it is.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        if head[4:8] == b"ftyp":
            return _iso(file, head)
    if not head:
        return "empty"
    for start, content in STARTS:
        if head.startswith(start):
            return content
    if head.startswith(b"RIFF"):
        return _webp(head) if head[8:12] == b"WEBP" else RIFF.get(head[8:12], "unknown")
    if head.startswith(b"\x89PNG"):
        return "video" if b"acTL" in head.partition(b"IDAT")[0] else "photo"
    if head.startswith(b"BM") and head[14:18] in BMP_HEADERS:
        return "photo"
    if head.startswith(b"OggS"):
        return "video" if any(mark in head for mark in (b"\x80theora", b"\x01video\x00", b"BBCD\x00")) else "sound"
    if _is_text(head):
        return "text"
    is_video = head[4:8] in OLD_QUICKTIME or _starts_with_nal(head) or _is_transport_stream(head)
    return "video" if is_video else "unknown"


def is_photo(path: Path) -> bool:
    """Tell whether a file is a still image, and not a video, an animation, sound or text.

    Raises:
        OSError: it cannot be read.
    """
    content, suffix = content_of(path), path.suffix.lower()
    if content in ("photo", "heif photo"):
        return suffix not in JPEG_VIDEO_SUFFIXES
    if content == "animated webp" or (content == "video" and _may_be_animation(path)):
        from impart.images import is_animation  # Pillow: rarely needed, and it takes time

        return not is_animation(path)
    return content in ("text", "unknown", "empty") and suffix in PHOTO_SUFFIXES


def _may_be_animation(path: Path) -> bool:
    """Test for a GIF, or a PNG with an animation."""
    with path.open("rb") as file:
        return file.read(8).startswith((b"GIF87a", b"GIF89a", b"\x89PNG"))


def _iso(file: BinaryIO, head: bytes) -> Content:
    """Tell by its brands what an ISO media file is: mp4 and mov, heic and avif, m4a."""
    length = min(int.from_bytes(head[:4], "big"), len(head))
    main = head[8:12]
    brands = {main, *(head[i : i + 4] for i in range(16, length - 3, 4))}
    if main in SOUND_BRANDS:
        return "sound"
    if main in PHOTO_BRANDS:
        return "photo"
    if main not in HEIF_BRANDS | SEQUENCE_BRANDS:
        return "video"
    # An image sequence has a brand of its own and a movie box. A photo has neither, also where it has many tiles.
    return "video" if brands & SEQUENCE_BRANDS and _has_movie(file) else "heif photo"


def _has_movie(file: BinaryIO) -> bool:
    """Look for a `moov` box among the boxes of the highest level."""
    at = 0
    while True:
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            return False
        length, kind = struct.unpack(">I4s", head[:8])
        if kind == b"moov":
            return True
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:], "big")
        if length < 8:
            return False
        at += length


def _webp(head: bytes) -> Content:
    animated = head[12:16] == b"VP8X" and len(head) > 20 and bool(head[20] & 0x02)
    return "animated webp" if animated else "photo"


def _starts_with_nal(head: bytes) -> bool:
    """Test for a raw H.264 or HEVC stream: a start code, then a parameter set or a delimiter."""
    unit = head[4:6] if head.startswith(b"\x00\x00\x00\x01") else head[3:5] if head.startswith(b"\x00\x00\x01") else b""
    if len(unit) < 2 or unit[0] & 0x80:
        return False
    h264 = unit[0] & 0x1F in (7, 9) or unit[0] == 6
    hevc = (unit[0] >> 1) & 0x3F in (32, 33, 34, 35, 39) and unit[1] & 0xF8 == 0
    return h264 or hevc


def _is_transport_stream(head: bytes) -> bool:
    """Test for sync bytes in the distance of packets, at any place near the start."""
    for first in range(min(TS_LONGEST_JUNK, len(head))):
        if head[first] != 0x47:
            continue
        for step in TS_PACKETS:
            syncs = head[first::step][:TS_SYNCS]
            if len(syncs) >= 3 and set(syncs) == {0x47} and (len(syncs) == TS_SYNCS or len(head) < HEAD_BYTES):
                return True
    return False


def _is_text(head: bytes) -> bool:
    """Test for text: the mark of UTF-16 or UTF-8, or no control characters and mostly ASCII or valid UTF-8."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")):
        return True
    if any(byte < 9 or 13 < byte < 27 for byte in head):
        return False
    ascii_share = sum(byte < 128 for byte in head) / len(head)
    return ascii_share > MOSTLY or "\ufffd" not in head[:-4].decode("utf-8", "replace")
