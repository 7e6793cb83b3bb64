#!/usr/bin/env bash
# B-frames in AVI: decoded frames come in order of presentation, with presentation times in order of decoding.
#
# Versions: PyAV 18.1.0 (libavformat 62.12), NumPy 2.4.6, Python 3.11, Linux x86-64.
# Input:    60 frames at 25 per second, H.264 with up to 8 B-frames in a row, as .avi and .mp4. The grey level of a frame
#           is its number.
# Expected: frame n has pts n in both (AVI has no presentation times: the n-th frame shown is the n-th chunk).
# Seen:     .mp4: as expected. .avi: the frames come in the right order, but their pts do not: 1, 4, 5, 6, 3 ...
# Remedy:   for AVI, give the n-th frame shown the n-th decoding time of the packets. Never decide from `packet.pts` there
#           which frame is shown at a time.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
"$work/venv/bin/python" - "$work" <<'PY'
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def decoded(path: Path) -> tuple[list[int], list[int]]:
    with av.open(str(path), "w") as container:
        options = {"bf": "8", "refs": "6", "b-adapt": "0", "crf": "1"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(60):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 4 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        numbers, times = [], []
        for frame in container.decode(stream):
            numbers.append(round(float(frame.to_ndarray(format="rgb24").mean()) / 4))
            times.append(round(float(frame.pts * stream.time_base) * 25))
        return numbers, times


print(f"PyAV {av.__version__}: numbers of the frames, their pts in frames")
results = {kind: decoded(Path(sys.argv[1]) / f"b.{kind}") for kind in ("mp4", "avi")}
for kind, (numbers, times) in results.items():
    print(f"{kind}: {numbers[:12]} {times[:12]}")
in_order = {kind: numbers == list(range(60)) for kind, (numbers, _) in results.items()}
sorted_times = {kind: times == sorted(times) for kind, (_, times) in results.items()}
if in_order != {"mp4": True, "avi": True} or sorted_times != {"mp4": True, "avi": False}:
    sys.exit("the behaviour has changed")
PY
