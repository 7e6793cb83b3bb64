#!/usr/bin/env bash
# A stream copied with `add_stream_from_template` may have no frame rate: an MP4 with a time code cannot be written.
#
# Versions: PyAV 18.1.0 (FFmpeg in its wheel), NumPy 2.4.6, Python 3.11, Linux x86-64.
# Input:    25 frames of H.264 at 25 fps in an MP4, encoded with a time base of 1/12800 (its headers then name no frame
#           rate; `average_rate` of the stream is 25); metadata `timecode` set on the copy.
# Expected: the copy has a tmcd track that starts at 01:00:00:00, as `ffmpeg -c copy -timecode 01:00:00:00` writes it.
# Seen:     av.error.ArgumentError, "Invalid argument", when the header is written. FFmpeg's log has the reason: "fps
#           12800 is too large". The muxer takes the time base for the frame rate, since the copy has none.
# Remedy:   set `stream.codec_context.framerate` of the new stream to the rate of the film before the first packet.
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

folder = Path(sys.argv[1])
with av.open(str(folder / "film.mp4"), "w") as container:
    stream = container.add_stream("libx264", rate=25)
    stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
    stream.codec_context.time_base = Fraction(1, 12_800)
    for number in range(25):
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 9 * number, np.uint8), format="rgb24")
        frame.pts, frame.time_base = number * 512, Fraction(1, 12_800)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def copy(name: str, *, rate: int | None) -> str:
    with av.open(str(folder / "film.mp4")) as film, av.open(str(folder / name), "w", options={"write_tmcd": "1"}) as out:
        out.metadata["timecode"] = "01:00:00:00"
        made = out.add_stream_from_template(film.streams.video[0], opaque=True)
        if rate:
            made.codec_context.framerate = rate
        for packet in film.demux(video=0):
            if packet.dts is not None:
                packet.stream = made
                out.mux(packet)
    with av.open(str(folder / name)) as written:
        return written.streams.video[0].metadata.get("timecode", "none")


try:
    plain = copy("plain.mp4", rate=None)
except av.error.FFmpegError as error:
    plain = f"{type(error).__name__}: {error.strerror}"
given = copy("given.mp4", rate=25)
print(f"PyAV {av.__version__}: without a rate: {plain}; with one: {given}")
if "Invalid argument" not in plain or given != "01:00:00:00":
    sys.exit("the behaviour has changed")
PY
