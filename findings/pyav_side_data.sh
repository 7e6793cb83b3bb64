#!/usr/bin/env bash
# Reading the side data of a frame raises where FFmpeg gives a kind that PyAV has no name for.
#
# Versions: PyAV 18.1.0 (libavutil 60.26, libavcodec 62.28), Pillow 13.0.0, Python 3.11, Linux x86-64.
# Input:    a QuickTime file of four JPEG images, each with an EXIF orientation (motion JPEG, as cameras write it).
# Expected: `frame.side_data` lists the side data, or skips the kinds that it has no name for.
# Seen:     ValueError: 31 is not a valid Type. Without EXIF the list is empty and nothing is raised.
#           One unknown kind hides the others, such as the display matrix. `frame.rotation` still works (-90).
# Remedy:   catch ValueError around `frame.side_data`, and take the rotation from `frame.rotation`.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet av==18.1.0 pillow==13.0.0
"$work/venv/bin/python" - "$work" <<'PY'
import io
import sys
from fractions import Fraction
from pathlib import Path

import av
from PIL import Image

ORIENTATION = 0x0112


def jpeg(*, exif: bool) -> bytes:
    tags = Image.Exif()
    if exif:
        tags[ORIENTATION] = 6
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 30, 30)).save(file, "JPEG", exif=tags)
    return file.getvalue()


def write(path: Path, *, exif: bool) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=4)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number in range(4):
            packet = av.Packet(jpeg(exif=exif))
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 4), True
            packet.pts = packet.dts = number
            container.mux(packet)
    return path


def side_data(path: Path) -> str:
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        try:
            found = str([item.type for item in frame.side_data])
        except ValueError as error:
            found = f"ValueError: {error}"
        return f"{found}, rotation {frame.rotation}"


folder = Path(sys.argv[1])
plain = side_data(write(folder / "plain.mov", exif=False))
tagged = side_data(write(folder / "exif.mov", exif=True))
print(f"PyAV {av.__version__}\nwithout EXIF: {plain}\nwith EXIF:    {tagged}")
if plain != "[], rotation 0" or tagged != "ValueError: 31 is not a valid Type, rotation -90":
    sys.exit("the behaviour has changed")
PY
