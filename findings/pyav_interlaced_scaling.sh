#!/usr/bin/env bash
# Resizing a frame that is flagged as interlaced scales its two fields apart and weaves them: edges become combs.
#
# Versions: PyAV 18.1.0 (libswscale 9.5), NumPy 2.4.6, Python 3.11, Linux x86-64.
# Input:    a white disk that does not move, 320x240, as H.264 with the interlaced flag (progressive content in an
#           interlaced stream, as most broadcasts and many camera files have it).
# Expected: `frame.reformat(width, height)` of equal pixels gives equal images.
# Seen:     the same pixels give another image with the flag on: at 160x60 up to 78 of 255 grey levels away, and the
#           mean difference between a row and the mean of its neighbours rises from 4.7 to 5.8.
# Remedy:   `frame.interlaced_frame` cannot be written. Copy the planes into a new frame
#           (`VideoFrame.from_ndarray(frame.to_ndarray(), format=frame.format.name)`), or deinterlace before resizing.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
"$work/venv/bin/python" - "$work" <<'PY'
import sys
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT, SMALL = 320, 240, (160, 60)


def write(path: Path, *, interlaced: bool) -> Path:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    disk = (rows - HEIGHT / 2) ** 2 + (columns - WIDTH / 2) ** 2 < 80**2
    image = np.repeat(np.where(disk, 255, 40).astype(np.uint8)[..., None], 3, axis=2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        if interlaced:
            stream.options = {"x264-params": "tff=1"}
        for number in range(4):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def grey(frame: av.VideoFrame) -> np.ndarray:
    return frame.reformat(width=SMALL[0], height=SMALL[1], format="gray").to_ndarray().astype(int)


def comb(image: np.ndarray) -> float:
    """Mean difference between a row and the mean of its two neighbours, doubled."""
    return float(np.abs(2 * image[1:-1] - image[:-2] - image[2:]).mean())


print(f"PyAV {av.__version__}")
furthest = {}
for interlaced in (False, True):
    with av.open(str(write(Path(sys.argv[1]) / f"{interlaced}.mkv", interlaced=interlaced))) as container:
        frame = next(container.decode(video=0))
        copy = av.VideoFrame.from_ndarray(frame.to_ndarray(), format=frame.format.name)  # equal pixels, no flag
        assert frame.interlaced_frame == interlaced and not copy.interlaced_frame
        flagged, plain = grey(frame), grey(copy)
        furthest[interlaced] = int(np.abs(flagged - plain).max())
        print(f"flag {interlaced}: furthest pixel {furthest[interlaced]}, comb {comb(flagged):.1f} / {comb(plain):.1f}")
if furthest[False] != 0 or furthest[True] < 20:
    sys.exit("the behaviour has changed")
PY
