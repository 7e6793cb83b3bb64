"""Files that browsers are expected to play themselves, and why the others need a preview.

The list is of what Chromium, Firefox and Safari all play, so it is shorter than that of one of them. A page still
listens for errors, and for a video without width: a browser may play the sound of a codec that it cannot show.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import av.error

from impart.errors import DecodeError
from impart.files import file_state
from impart.raw_previews import RAW_SUFFIXES
from impart.video.decode.container import open_video
from impart.video.decode.streams import choose_stream
from impart.video.decode.structure import ISO
from impart.video.index.store import VideoRecord

__all__ = ["Playable", "media_type_of", "playable"]

WEBM = "matroska,webm"
_ISO_CODECS, _WEBM_CODECS = frozenset({"h264", "vp9", "av1"}), frozenset({"vp8", "vp9", "av1"})
_ISO_SOUND = frozenset({"aac", "mp3", "opus", "flac", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be"})
_WEBM_SOUND = frozenset({"opus", "vorbis"})
_PIXELS = frozenset({"yuv420p", "yuvj420p"})
_PHOTOS = frozenset({"jpeg", "mpo", "png", "gif", "webp", "bmp", "avif"})  # formats as Pillow names them
_PROGRESSIVE = (0, 1)  # FFmpeg's numbers of unknown and progressive
LATE_S = 0.02
"""Browsers count from zero, the index from the start of the container: at most half a frame may lie between."""

_WORDS = {
    "hevc": "H.265 (HEVC)", "prores": "ProRes", "mpeg4": "MPEG-4 Part 2", "mpeg2video": "MPEG-2", "h264": "H.264",
    "mjpeg": "Motion JPEG", "theora": "Theora", "dnxhd": "DNxHD", "dvvideo": "DV", "wmv3": "Windows Media",
    "vc1": "VC-1", "ac3": "Dolby Digital (AC-3)", "eac3": "Dolby Digital Plus (E-AC-3)",
    "alac": "Apple Lossless", "dts": "DTS", "vp8": "VP8", "vp9": "VP9", "av1": "AV1",
}  # fmt: skip
_CONTAINERS = {
    WEBM: "Matroska", "avi": "AVI", "mpegts": "MPEG transport stream", "mpeg": "MPEG program stream", "flv": "FLV",
    "asf": "Windows Media", "mxf": "MXF", "ogg": "Ogg",
}  # fmt: skip
_ANIMATIONS = {".gif": "GIF", ".webp": "WebP", ".png": "PNG", ".apng": "PNG"}
_PHOTO_WORDS = {"heif": "HEIC", "jpeg2000": "JPEG 2000"}
_TYPES = {
    ".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime", ".qt": "video/quicktime", ".3gp": "video/3gpp",
    ".3g2": "video/3gpp2", ".mkv": "video/matroska", ".webm": "video/webm",
}  # fmt: skip
_CONTAINER_TYPES = {
    ISO: "video/mp4", WEBM: "video/matroska", "avi": "video/x-msvideo", "mpegts": "video/mp2t", "mpeg": "video/mpeg",
    "flv": "video/x-flv", "asf": "video/x-ms-asf", "mxf": "application/mxf", "ogg": "video/ogg", "gif": "image/gif",
    "apng": "image/apng",
}  # fmt: skip
_PHOTO_TYPES = {
    "jpeg": "image/jpeg", "mpo": "image/jpeg", "png": "image/png", "gif": "image/gif", "webp": "image/webp",
    "bmp": "image/bmp", "avif": "image/avif", "heif": "image/heic", "tiff": "image/tiff", "jpeg2000": "image/jp2",
}  # fmt: skip
OTHER_TYPE = "application/octet-stream"


@dataclass(frozen=True)
class Playable:
    """Way in which a browser shows a file: directly or by a preview, with the reason of the latter in words."""

    how: Literal["direct", "preview"]
    reason: str | None = None


_DIRECT = Playable("direct")


def playable(record: VideoRecord) -> Playable:
    """Decide whether browsers are expected to show a file themselves.

    The row of the index decides most cases. For the others the file is opened once: for its pixel format, sound and
    start. A file that cannot be opened now is decided by the row alone.
    """
    if record.kind == "photo":
        raw = record.path.suffix.lower() in RAW_SUFFIXES
        if record.codec in _PHOTOS and not raw:
            return _DIRECT
        words = "raw files" if raw else f"{_PHOTO_WORDS.get(record.codec, record.codec.upper())} photos"
        return Playable("preview", f"not every browser shows {words}")
    reason = _by_row(record) or _by_file(record.path, file_state(record.path), record.container == ISO)
    return Playable("preview", reason) if reason else _DIRECT


def media_type_of(record: VideoRecord) -> str:
    """Choose the media type of a file by its container; the suffix chooses between names of one container.

    >>> from types import SimpleNamespace as Row
    >>> media_type_of(Row(kind="video", path=Path("a.MOV"), container="mov,mp4,m4a,3gp,3g2,mj2"))
    'video/quicktime'
    """
    suffix = record.path.suffix.lower()
    if record.kind == "photo":
        return OTHER_TYPE if suffix in RAW_SUFFIXES else _PHOTO_TYPES.get(record.codec, OTHER_TYPE)
    if (
        record.container in (ISO, WEBM)
        and suffix in _TYPES
        and (suffix in (".mkv", ".webm")) == (record.container == WEBM)
    ):
        return _TYPES[suffix]
    if record.container == WEBM and suffix == ".webp":  # an animation, which the decoder makes a Matroska file of
        return "image/webp"
    return _CONTAINER_TYPES.get(record.container, OTHER_TYPE)


def _by_row(record: VideoRecord) -> str | None:
    """Find a reason for a preview in the row of the index."""
    webm = record.container == WEBM and record.path.suffix.lower() == ".webm"
    codecs = _ISO_CODECS if record.container == ISO else _WEBM_CODECS if webm else None
    if codecs is None:
        animation = _ANIMATIONS.get(record.path.suffix.lower())
        if animation is not None:
            return f"browsers show {animation} animations as images, without seeking"
        return f"not every browser plays {_container(record)} files"
    if record.codec not in codecs:
        return f"not every browser plays {_words(record.codec)}"
    return None


def _container(record: VideoRecord) -> str:
    return _CONTAINERS.get(record.container, record.path.suffix.lstrip(".").upper() or record.container)


def _words(codec: str) -> str:
    return _WORDS.get(codec, codec)


@lru_cache(maxsize=1 << 14)
def _by_file(path: Path, state: str, iso: bool) -> str | None:
    """Find a reason for a preview in the file; kept by its state, since it is opened for it."""
    if not state:
        return None
    try:
        with open_video(path) as container:
            stream = choose_stream(path, container).stream
            codec = stream.codec_context
            words = _words(codec.codec.canonical_name)
            if codec.pix_fmt not in _PIXELS:
                return f"not every browser plays {words} in the pixel format {codec.pix_fmt}"
            if codec.field_order not in _PROGRESSIVE:
                return "it is interlaced, and browsers show its fields as combs"
            sound = next(iter(container.streams.audio), None)
            if sound is not None:
                name = sound.codec_context.codec.canonical_name if sound.codec_context is not None else "unknown"
                if name not in (_ISO_SOUND if iso else _WEBM_SOUND):
                    return f"not every browser plays its sound: {_words(name)}"
            if (container.start_time or 0) / 1e6 > LATE_S:
                return f"its times begin at {container.start_time / 1e6:.2f} s, and browsers count from zero"
    except (DecodeError, av.error.FFmpegError):
        return None
    return None
