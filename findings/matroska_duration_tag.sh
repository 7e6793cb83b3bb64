#!/usr/bin/env bash
# The DURATION tag of a Matroska stream is an end time: it is too long by the time at which the stream starts.
#
# Versions: PyAV 18.1.0 (libavformat 62.12), NumPy 2.4.6, Python 3.11, Linux x86-64.
# Input:    100 frames at 25 per second, the first at 10 s (as a recording that was joined in the middle), as .mkv and
#           .mp4.
# Expected: 4 s in both, as the frames last.
# Seen:     .mp4: stream.duration 4.0, container.duration 4.0.
#           .mkv: stream.duration None, container.duration 14.0, the stream's tag DURATION 00:00:14.000000000.
# Remedy:   for Matroska, subtract the start time from the tag and from container.duration. A check for truncated files
#           that does not subtract it reports every late start as a file that is cut short.
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


def durations(path: Path) -> tuple[float | None, float, str | None]:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(100):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = 250 + number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        times = [frame.time for frame in container.decode(stream)]
        assert (len(times), times[0], round(times[-1], 2)) == (100, 10.0, 13.96)
        own = None if stream.duration is None else float(stream.duration * stream.time_base)
        return own, container.duration / 1e6, stream.metadata.get("DURATION")


print(f"PyAV {av.__version__}: stream.duration, container.duration, tag DURATION")
mp4, mkv = (durations(Path(sys.argv[1]) / f"late.{kind}") for kind in ("mp4", "mkv"))
print(f"mp4: {mp4}\nmkv: {mkv}")
if mp4 != (4.0, 4.0, None) or mkv != (None, 14.0, "00:00:14.000000000"):
    sys.exit("the behaviour has changed")
PY
