"""References: whether other frames refer to a frame, read from its packet.

A frame that nothing refers to need not be decoded where it is not shown. Its packet is then not given to FFmpeg at all:
with `skip_frame`, each skipped packet would take the place of a frame that a thread decodes meanwhile.

H.264 marks each slice. HEVC marks frames that nothing refers to in the same temporal layer, or in a lower one: in the
highest layer of a stream nothing refers to them at all. FFmpeg itself reads the marks of the MPEG codecs.
"""

from __future__ import annotations

from collections.abc import Iterator

import av

__all__ = ["References"]

_BY_FFMPEG = frozenset({"mpeg4", "mpeg2video", "mpeg1video"})  # "not a reference" is exact there
_H264_SLICES = range(1, 6)
_HEVC_SLICES = range(32)
_HEVC_UNREFERENCED = range(0, 15, 2)  # slices of sub-layer non-reference frames
_SPS = 33
_AVCC_BYTES, _HVCC_BYTES = 7, 23  # of the records of MP4 and Matroska, up to their first parameter set


class References:
    """Tells which packets of a stream hold frames that no other frame refers to.

    Args:
        codec: FFmpeg's name of the decoder.
        extradata: the stream's parameter sets, as the container has them.

    Attributes:
        by_ffmpeg: whether `skip_frame` is exact for this codec; `unreferenced` is then always False.
    """

    def __init__(self, codec: str, extradata: bytes | None) -> None:
        data = extradata or b""
        self.by_ffmpeg = codec in _BY_FFMPEG
        self._codec = codec
        self._length_bytes = 0  # before each NAL unit; 0 = start codes
        self._top: int | None = None  # highest temporal layer of HEVC; None = unknown
        if codec == "h264" and data[:1] == b"\1" and len(data) >= _AVCC_BYTES:
            self._length_bytes = (data[4] & 3) + 1
        elif codec == "hevc" and data[:1] == b"\1" and len(data) >= _HVCC_BYTES:
            self._length_bytes = (data[21] & 3) + 1
            layers = data[21] >> 3 & 7
            self._top = layers - 1 if layers else None
        elif codec == "hevc":
            tops = {unit[2] >> 1 & 7 for unit in _units(data, 0) if unit[0] >> 1 & 0x3F == _SPS}
            self._top = tops.pop() if len(tops) == 1 else None

    @property
    def known(self) -> bool:
        """Whether there may be frames that can be left out."""
        return self.by_ffmpeg or self._codec == "h264" or self._top is not None

    def unreferenced(self, packet: av.Packet) -> bool:
        """Test whether nothing refers to the frame of a packet, and its packet has nothing else that counts."""
        if self._codec == "h264":
            heads = [unit[0] for unit in _units(bytes(packet), self._length_bytes)]
            slices = [head >> 5 & 3 for head in heads if head & 0x1F in _H264_SLICES]
            return bool(slices) and not any(slices) and not any(head & 0x1F in (7, 8) for head in heads)
        if self._top is None:
            return False
        found = False
        for unit in _units(bytes(packet), self._length_bytes):
            kind, layer = unit[0] >> 1 & 0x3F, (unit[1] & 7) - 1
            if kind == _SPS or layer > self._top:  # other parameters: nothing is known about the frames behind them
                self._top = None
                return False
            if kind in _HEVC_SLICES:
                if kind not in _HEVC_UNREFERENCED or layer != self._top:
                    return False
                found = True
        return found


def _units(data: bytes, length_bytes: int) -> Iterator[bytes]:
    """Yield the first 3 bytes of the NAL units of a packet."""
    if length_bytes:
        at = 0
        while at + length_bytes < len(data):
            size = int.from_bytes(data[at : at + length_bytes], "big")
            at += length_bytes
            if size > 2:
                yield data[at : at + 3]
            at += size
        return
    at = data.find(b"\0\0\1")
    while 0 <= at <= len(data) - 6:
        yield data[at + 3 : at + 6]
        at = data.find(b"\0\0\1", at + 3)
