#!/usr/bin/env bash
# Theora: a repeated frame is a packet of 0 bytes, which gives no frame. `container.decode` of PyAV raises there.
#
# Versions: PyAV 18.1.0, imageio-ffmpeg 0.8.1 (FFmpeg 9.0.2 with libtheora), NumPy 2.4.6, Python 3.11, Linux x86-64.
# Input:    100 frames at 25 per second, four still pictures of a second each, encoded by libtheora to .ogv.
# Expected: 100 frames, as from the same frames in FFV1.
# Seen:     101 packets, 78 of them with 0 bytes (the last one ends the stream). `for frame in container.decode(video=0)`
#           raises ArgumentError (avcodec_send_packet, 22) at the first one. Packet by packet, without the empty ones, there
#           are 23 frames; the program of FFmpeg reads 23 as well, without a word.
# Remedy:   decode packet by packet, and skip those of 0 bytes. A frame is shown until the next one: whatever counts frames
#           (windows of n frames, a rate from the number of frames) is wrong in such files; measure by the times.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet av==18.1.0 imageio-ffmpeg==0.8.1 numpy==2.4.6
"$work/venv/bin/python" - "$work" <<'PY'
import subprocess
import sys
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np

work = Path(sys.argv[1])
rng = np.random.default_rng(0)
pictures = [rng.integers(0, 256, (15, 20, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1) for _ in range(4)]
frames = b"".join(pictures[number // 25].tobytes() for number in range(100))


def encoded(name: str, codec: str) -> Path:
    size = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "320x240", "-r", "25", "-i", "-"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", *size, "-c:v", codec, str(work / name)]
    subprocess.run(command, input=frames, check=True)
    return work / name


def packets_and_frames(path: Path) -> tuple[int, int, int]:
    with av.open(str(path)) as container:
        packets = list(container.demux(video=0))
        empty = [packet for packet in packets if not packet.size]
        full = [packet for packet in packets if packet.size]
        return len(packets), len(empty), sum(len(packet.decode()) for packet in full)


def error_of(path: Path) -> str:
    try:
        with av.open(str(path)) as container:
            return f"{sum(1 for _ in container.decode(video=0))} frames"
    except av.error.ArgumentError as error:
        return f"ArgumentError {error.errno}"


theora, lossless = encoded("a.ogv", "libtheora"), encoded("a.mkv", "ffv1")
found = packets_and_frames(theora), error_of(theora), error_of(lossless)
print(".ogv: (packets, empty ones, frames without them), container.decode; .mkv: container.decode:", found)
if found != ((101, 78, 23), "ArgumentError 22", "100 frames"):
    sys.exit("the behaviour has changed")
PY
