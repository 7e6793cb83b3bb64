"""Ranges of an MPEG transport stream, opened as files of their own.

FFmpeg finds the streams of a transport stream in its first seconds. Inserted advertising, or a channel that changes its
codec, continues under another packet identifier (PID) that may appear later, and PyAV does not yield its packets. A
range without packets of the stream that is being decoded is therefore opened again.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import av.error

__all__ = ["Range", "open_range"]

PACKET_BYTES = 188
SMALLEST_BYTES = 20 * PACKET_BYTES  # less cannot hold more than a few frames


@dataclass(frozen=True)
class Range:
    """Bytes of a file in which the decoded stream has no packet. `stop`: None = the end of the file."""

    start: int
    stop: int | None

    @classmethod
    def after(cls, packet: av.Packet, stop: int | None) -> Range | None:
        """Make the range from behind a packet's first bytes on; None where its position is not given."""
        return None if packet.pos is None or packet.pos < 0 else cls(packet.pos + PACKET_BYTES, stop)

    def within(self, whole: Range) -> Range:
        """Count from the start of the file what is counted from the start of the range `whole`."""
        stop = whole.stop if self.stop is None else whole.start + self.stop
        return Range(whole.start + self.start, stop)


@contextmanager
def open_range(path: Path, wanted: Range) -> Iterator[tuple[av.container.InputContainer, av.VideoStream] | None]:
    """Open a range, with its best video stream; None where it has none."""
    size = path.stat().st_size
    stop = size if wanted.stop is None else min(wanted.stop, size)
    if stop - wanted.start < SMALLEST_BYTES:
        yield None
        return
    with _Part(path, wanted.start, stop) as part:
        try:
            container = av.open(part, format="mpegts", metadata_errors="replace")
        except (av.error.FFmpegError, ValueError):
            yield None
            return
        with container:
            found = [s for s in container.streams.video if s.codec_context is not None and s.codec_context.width]
            best = container.streams.best("video")
            yield (container, best if best in found else found[0]) if found else None


class _Part(io.RawIOBase):
    """A range of a file, for reading."""

    def __init__(self, path: Path, start: int, stop: int) -> None:
        self._file = path.open("rb")
        self._start, self._size, self._at = start, stop - start, 0

    def read(self, count: int = -1) -> bytes:
        left = self._size - self._at
        self._file.seek(self._start + self._at)
        data = self._file.read(left if count < 0 else max(0, min(count, left)))
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()
