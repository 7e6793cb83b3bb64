"""Side data of a frame: what PyAV has names for, and how to turn the frame upright."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import av
import av.error
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import SideData, Type

__all__ = ["orientation", "side_data"]

KINDS = 64  # more than FFmpeg numbers


def side_data(frame: av.VideoFrame) -> list[SideData]:
    """Read the side data of a frame, without the kinds that PyAV has no name for.

    `frame.side_data` raises ValueError where there is one, such as the EXIF block of a camera's JPEG. Filters then
    remove these kinds from a copy of the frame.
    """
    try:
        return list(_values(frame))
    except ValueError:
        try:
            return list(_values(_without_unknown(frame)))
        except (ValueError, av.error.FFmpegError):
            return []


def orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Read how to turn a decoded frame upright: (transpose, flip left-right, flip top-bottom), in this order.

    The display matrix is `a b u c d v x y w`: a pixel at (x, y) is shown at (a x + c y, b x + d y). It is read rather
    than `frame.rotation`, which has no mirrors: a mirrored frame reads as turned by 180 degrees.
    """
    data = next((item for item in side_data(frame) if item.type == Type.DISPLAYMATRIX), None)
    if data is None:
        return False, False, False
    matrix = np.frombuffer(bytes(data), np.int32)
    a, b, c, d = (int(matrix[i]) for i in (0, 1, 3, 4))
    if abs(a) >= abs(b):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def _values(frame: av.VideoFrame) -> Iterable[SideData]:
    return (frame.side_data[i] for i in range(len(frame.side_data)))


def _without_unknown(frame: av.VideoFrame) -> av.VideoFrame:
    graph = Graph()
    last = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000))
    for kind in range(KINDS):
        if kind not in Type._value2member_map_:
            following = graph.add("sidedata", f"mode=delete:type={kind}")
            last.link_to(following)
            last = following
    sink = graph.add("buffersink")
    last.link_to(sink)
    graph.configure()
    graph.push(frame)
    cleaned = graph.pull()
    assert isinstance(cleaned, av.VideoFrame)
    return cleaned
