#!/usr/bin/env bash
# Converting YUV to 16-bit RGB gives 65,283 for white, not 65,535. And `dst_color_trc` converts pixels.
#
# Versions: PyAV 18.1.0 (libswscale 9.5), NumPy 2.4.6, Python 3.11, Linux x86-64.
# Input:    a white frame, yuv420p10le, limited range (Y 940, U and V 512), tagged BT.2020 and PQ.
# Expected: `reformat(format="rgb48le")` gives 65,535 (white of 16 bits). PyAV's documentation of `dst_color_trc`: it
#           "sets frame metadata only; it does not perform a pixel-level transfer function conversion".
# Seen:     65,283 = 255 x 256 + 3: values count in steps of 256. 0.4% of a PQ signal are 2% of the light.
#           With `dst_color_trc=1, dst_color_primaries=1` the pixels change from PQ to SDR.
# Remedy:   divide 16-bit RGB by 65,280 where it is linearised. Ask for `dst_color_trc` only where conversion is wanted.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import sys

import av
import numpy as np


def frame(luma: int) -> av.VideoFrame:
    made = av.VideoFrame(64, 64, "yuv420p10le")
    for number, plane in enumerate(made.planes):
        plane.update(np.full(plane.buffer_size // 2, luma if number == 0 else 512, np.uint16).tobytes())
    made.colorspace, made.color_range, made.color_trc, made.color_primaries = 9, 1, 16, 9
    return made


def value(made: av.VideoFrame, **options: int) -> int:
    return int(made.reformat(format="rgb48le", **options).to_ndarray()[32, 32, 1])


white, grey = value(frame(940)), value(frame(502))
converted = value(frame(502), dst_color_trc=1, dst_color_primaries=1)
print(f"PyAV {av.__version__}: white {white}, PQ 0.5 {grey}, PQ 0.5 with dst_color_trc=1 {converted}")
if white != 65283 or grey != 32641 or abs(converted - grey) < 1000:
    sys.exit("the behaviour has changed")
PY
