"""Measure how well a face that was taught from one part of a clip is found in the rest of it, and in no other clip.

    python benchmarks/faces.py --data DATA --out FILE

Each clip of `DATA/videos/panda` in whose first and second half a face is found gives one person: the three largest
faces of its first half are the examples. Found: frames of its second half that contain a face, and in which presence is
at least one half. Strangers: frames with faces of all other clips. Some clips show the same people; these
count as strangers all the same.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from impart.config import DecodeSettings
from impart.encoders.base import Float32
from impart.video.decode.decoder import Decoder
from impart.video.decode.sampler import DecodedSegment
from impart.video.faces.detector import Face, find_faces
from impart.video.faces.finding import FPS, SHORT_SIDE_PX
from impart.video.faces.matching import face_presence


def faces_of(clips: Sequence[Path]) -> list[list[list[Face]]]:
    """Find the faces of each frame of each clip."""
    found: list[list[list[Face]]] = [[] for _ in clips]
    number = 0
    with Decoder(DecodeSettings(fps=FPS, fit="crop"), short_side_px=SHORT_SIDE_PX) as decoder:
        for item in decoder.decode(clips):
            if isinstance(item, DecodedSegment):
                found[number].append(find_faces(item.image))
            else:
                number += 1
    return found


def width(face: Face) -> float:
    return float(face.box[2] - face.box[0])


def stacked(faces: Sequence[Face]) -> Float32:
    return np.array([face.descriptor for face in faces], np.float32).reshape(-1, 128)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    options = parser.parse_args()
    clips = sorted((options.data / "videos" / "panda").glob("*.mp4"))
    began = time.monotonic()
    found = faces_of(clips)
    seconds = time.monotonic() - began
    frames = sum(map(len, found))
    right = asked = false = strangers = people = 0
    for number, clip in enumerate(found):
        half = len(clip) // 2
        taught = sorted((face for frame in clip[:half] for face in frame), key=width)[-3:]
        later = [frame for frame in clip[half:] if frame]
        if not taught or not later:
            continue
        people += 1
        examples = stacked(taught)
        asked += len(later)
        right += sum(float(face_presence(stacked(frame), examples).max()) >= 0.5 for frame in later)
        others = [frame for place, other in enumerate(found) if place != number for frame in other if frame]
        strangers += len(others)
        false += sum(float(face_presence(stacked(frame), examples).max()) >= 0.5 for frame in others)
    with_face = sum(bool(frame) for clip in found for frame in clip)
    own = f"{right} of {asked} ({100 * right / max(asked, 1):.1f}%)"
    rest = f"{false} of {strangers} ({100 * false / max(strangers, 1):.2f}%)"
    text = (
        "| clips | frames (1 per second) | with a face | people taught | found in their clip | of strangers |\n"
        "| ---: | ---: | ---: | ---: | ---: | ---: |\n"
        f"| {len(clips)} | {frames} | {with_face} | {people} | {own} | {rest} |\n\n"
        f"{seconds / max(frames, 1):.2f} s per frame on this machine, decoding included.\n"
    )
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
