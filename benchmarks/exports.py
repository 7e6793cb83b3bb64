"""Measure how exactly exports keep in and out points: films of odd rates, every format, read back.

    python benchmarks/exports.py [--minutes 11] [--spans 40]

Films are rendered: each frame has its number as grey blocks, and a start time code where its kind has one. The spans
are random and lie between frames. Every format is read back by a parser of this program, and by the adapter of
OpenTimelineIO where there is one (extra: dev). Of clips and the reel, the first and the last frame are decoded and
their numbers read. An error is the distance of the point read back from the one asked for, in frames of the film.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import re
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt
from av.codec.context import Flags

from impart.video.export.clips import write_clips
from impart.video.export.reel import write_reel
from impart.video.export.spans import ExportSpan
from impart.video.export.timelines import TimelineForm, write_timeline

WIDTH, HEIGHT, BITS = 160, 96, 16
KINDS = {
    "23.976": (Fraction(24000, 1001), "01:00:00:00", 86_400),
    "29.97 drop-frame": (Fraction(30000, 1001), "00:59:58;00", 107_892 - 60),
    "25": (Fraction(25), "10:00:00:00", 900_000),
    "59.94 drop-frame": (Fraction(60000, 1001), None, 0),
    "variable": (Fraction(0), None, 0),
}
"""Rate, start time code, and its frame number."""

Bounds = list[tuple[float, float]]


@dataclass(frozen=True)
class Film:
    """A rendered film: times of its frames and its end, the rate at which editors count it, its first frame number."""

    path: Path
    times_s: npt.NDArray[np.float64]
    rate: Fraction
    start: int


def coded_image(number: int) -> npt.NDArray[np.uint8]:
    image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    for bit in range(BITS):
        row, column = divmod(bit, 8)
        rows = slice(row * HEIGHT // 2, (row + 1) * HEIGHT // 2)
        image[rows, column * WIDTH // 8 : (column + 1) * WIDTH // 8] = 235 if number >> bit & 1 else 20
    return image


def number_in(frame: av.VideoFrame) -> int:
    blocks = frame.to_ndarray(format="gray").reshape(2, HEIGHT // 2, 8, WIDTH // 8)
    bright = blocks[:, 8:-8, :, 4:-4].mean(axis=(1, 3)).ravel() > 128  # (16,)
    return int((bright * (1 << np.arange(BITS))).sum())


def render(path: Path, kind: str, *, minutes: float) -> Film:
    """Write a film of a kind."""
    rate, timecode, start = KINDS[kind]
    if rate:
        times = np.arange(round(minutes * 60 * rate) + 1) / float(rate)
        base = Fraction(1, rate.numerator)
    else:  # as a phone records: 15 to 60 frames per second
        steps = np.random.default_rng(1).choice([1 / 15, 1 / 24, 1 / 30, 1 / 60], round(minutes * 60 * 26))
        times = np.concatenate([[0.0], np.cumsum(steps)])
        base = Fraction(1, 90_000)
    with av.open(str(path), "w", options={"write_tmcd": "1"} if timecode else {}) as container:
        if timecode:
            container.metadata["timecode"] = timecode
        options = {"preset": "ultrafast", "crf": "16", "bf": "2", "g": "100"}
        stream = cast("Any", container.add_stream("libx264", rate=rate or Fraction(30), options=options))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = base
        stream.codec_context.flags |= Flags.frame_duration.value
        for number, (begin_s, end_s) in enumerate(itertools.pairwise(times)):
            frame = av.VideoFrame.from_ndarray(coded_image(number), format="rgb24")
            frame.pts, frame.time_base = round(begin_s / float(base)), base
            frame.duration = round(end_s / float(base)) - frame.pts
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return Film(path, times, rate, start)


def random_spans(film: Film, count: int) -> list[ExportSpan]:
    """Choose spans of 0.2 to 6 s that do not overlap."""
    rng = np.random.default_rng(0)
    slot_s = film.times_s[-1] / count
    spans = []
    for number in range(count):
        length_s = float(rng.uniform(0.2, min(6, slot_s / 2)))
        start_s = float(number * slot_s + rng.uniform(0, slot_s - length_s))
        spans.append(
            ExportSpan(path=film.path, start_s=start_s, end_s=start_s + length_s, number=number + 1, label="span")
        )
    return spans


def count_of(text: str, nominal: int) -> int:
    """Count the frames of a time code minute by minute."""
    hours, minutes, seconds, frames = map(int, re.split("[:;]", text))
    dropped = nominal // 15 if ";" in text else 0
    passed = hours * 60 + minutes
    whole = sum(nominal * 60 - (dropped if minute % 10 else 0) for minute in range(passed))
    return whole + seconds * nominal + frames - (dropped if passed % 10 else 0)


def edl_bounds(text: str, film: Film) -> Bounds:
    nominal = round(film.rate)
    events = [line.split() for line in text.splitlines() if re.match(r"\d{3}  ", line)]
    return [
        cast("tuple[float, float]", tuple((count_of(one, nominal) - film.start) / film.rate for one in event[4:6]))
        for event in events
    ]


def marker_bounds(text: str, film: Film) -> Bounds:
    nominal = round(film.rate)
    found = re.findall(r"C        (\S+) .*\n.*\|D:(\d+)", text)
    zero = count_of("01:00:00;00" if "FCM: DROP" in text else "01:00:00:00", nominal)
    first = [count_of(at, nominal) - zero for at, _ in found]
    return [
        (float(at / film.rate), float((at + int(length)) / film.rate))
        for at, (_, length) in zip(first, found, strict=True)
    ]


def fcp7_bounds(text: str, _: Film) -> Bounds:
    clips = ET.fromstring(text).findall("sequence/media/video/track/clipitem")
    rate = Fraction(int(clips[0].findtext("rate/timebase") or 0))
    if clips[0].findtext("rate/ntsc") == "TRUE":
        rate *= Fraction(1000, 1001)
    return [(float(int(one.findtext("in") or 0) / rate), float(int(one.findtext("out") or 0) / rate)) for one in clips]


def fcpxml_bounds(text: str, _: Film) -> Bounds:
    root = ET.fromstring(text)

    def seconds(one: ET.Element, name: str) -> Fraction:
        return Fraction((one.get(name) or "0s").removesuffix("s"))

    asset = root.find("resources/asset")
    assert asset is not None
    zero = seconds(asset, "start")
    return [
        (float(seconds(one, "start") - zero), float(seconds(one, "start") - zero + seconds(one, "duration")))
        for one in root.iter("asset-clip")
    ]


def otio_bounds(text: str, _: Film) -> Bounds:
    bounds = []
    for clip in json.loads(text)["tracks"]["children"][0]["children"]:
        begin, length = clip["source_range"]["start_time"], clip["source_range"]["duration"]
        zero = clip["media_references"]["DEFAULT_MEDIA"]["available_range"]["start_time"]
        first = (begin["value"] - zero["value"]) / begin["rate"]
        bounds.append((first, first + length["value"] / length["rate"]))
    return bounds


def csv_bounds(text: str, _: Film) -> Bounds:
    rows = list(csv.DictReader(text.splitlines()))
    return [
        cast(
            "tuple[float, float]",
            tuple(float(int(row[name]) / Fraction(row["fps"])) for name in ("in_frame", "out_frame")),
        )
        for row in rows
    ]


def chapter_bounds(text: str, _: Film) -> Bounds:
    found = re.findall(r"START=(\d+)\nEND=(\d+)\ntitle=span", text)
    return [(int(start) / 1000, int(end) / 1000) for start, end in found]


PARSERS: dict[str, Callable[[str, Film], Bounds]] = {
    "edl": edl_bounds,
    "resolve": marker_bounds,
    "fcp7": fcp7_bounds,
    "fcpxml": fcpxml_bounds,
    "otio": otio_bounds,
    "csv": csv_bounds,
    "chapters": chapter_bounds,
}
ADAPTERS = {"edl": "cmx_3600", "fcp7": "fcp_xml", "fcpxml": "fcpx_xml", "otio": "otio_json"}


def adapter_bounds(text: str, form: str, film: Film) -> Bounds:
    """Read a timeline with OpenTimelineIO's adapter."""
    import opentimelineio

    options = {"rate": float(film.rate)} if form == "edl" else {}
    read: Any = opentimelineio.adapters.read_from_string(text, ADAPTERS[form], **options)
    clips = list(read.video_tracks()[0].find_clips() if hasattr(read, "video_tracks") else read.find_clips())
    bounds = []
    zero = film.start / float(film.rate)
    for clip in clips:
        begin_s = clip.source_range.start_time.to_seconds() - zero
        bounds.append((begin_s, begin_s + clip.source_range.duration.to_seconds()))
    return bounds


def shown_bounds(file: Path, film: Film) -> tuple[float, float]:
    """Read the numbers of the first and last frame of a clip; return when they begin and end in the film."""
    with av.open(str(file)) as container:
        numbers = [number_in(frame) for frame in container.decode(video=0)]
    return float(film.times_s[numbers[0]]), float(film.times_s[numbers[-1] + 1])


def reel_bounds(file: Path, film: Film, spans: Sequence[ExportSpan]) -> Bounds:
    """Split a reel where its frame numbers jump to the next span."""
    with av.open(str(file)) as container:
        numbers = [number_in(frame) for frame in container.decode(video=0)]
    middles = [(one.end_s + other.start_s) / 2 for one, other in itertools.pairwise(spans)]
    owner = np.searchsorted(middles, film.times_s[numbers])
    parts = [np.asarray(numbers)[owner == index] for index in range(len(spans))]
    return [(float(film.times_s[part[0]]), float(film.times_s[part[-1] + 1])) for part in parts]


def errors(found: Bounds, spans: Sequence[ExportSpan], film: Film) -> npt.NDArray[np.float64]:
    """Compute the errors of in and out points in frames, (2 spans,)."""
    assert len(found) == len(spans), (len(found), len(spans))
    asked = np.array([(span.start_s, span.end_s) for span in spans])
    middle = np.clip(np.searchsorted(film.times_s, asked), 1, len(film.times_s) - 1)
    length = film.times_s[middle] - film.times_s[middle - 1]  # of the frame at each point
    longest = np.maximum(length, 1 / float(film.rate))
    return np.asarray(np.abs(np.array(found) - asked) / longest).ravel()


def measure(
    film: Film, spans: Sequence[ExportSpan], folder: Path
) -> Iterator[tuple[str, npt.NDArray[np.float64], str]]:
    """Export in every form; yield its name, the errors, and a remark."""
    for form, parse in PARSERS.items():
        file = folder / f"{film.path.stem}-{form}"
        write_timeline(spans, file, cast("TimelineForm", form))
        text = file.read_text(encoding="utf-8")
        yield form, errors(parse(text, film), spans, film), ""
        if form in ADAPTERS:
            yield f"{form}, by its adapter", errors(adapter_bounds(text, form, film), spans, film), ""
    copy = folder / f"{film.path.stem}-chapters.mp4"
    write_timeline(spans, copy, "chapters")
    with av.open(str(copy)) as container:
        chapters = [one for one in container.chapters() if one["metadata"]["title"] == "span"]
    found = [(float(one["start"] * one["time_base"]), float(one["end"] * one["time_base"])) for one in chapters]
    yield "chapters in an MP4", errors(found, spans, film), ""
    clips = write_clips(spans, folder / f"{film.path.stem}-clips")
    bounds = [shown_bounds(file, film) for file in clips.files]
    yield "clips", errors(bounds, spans, film), ""
    copies = write_clips(spans, folder / f"{film.path.stem}-copies", copy=True)
    moved = np.array([shown_bounds(file, film) for file in copies.files]) - [(one.start_s, one.end_s) for one in spans]
    inside = (moved[:, 0] <= 1 / float(film.rate)) & (moved[:, 1] >= -1 / float(film.rate))
    yield (
        "clips --copy",
        np.zeros(0),
        f"{inside.sum()} of {len(spans)} hold the whole span; start {-moved[:, 0].mean():.2f} s earlier, end "
        f"{moved[:, 1].mean():.2f} s later on average",
    )
    reel = folder / f"{film.path.stem}-reel.mp4"
    write_reel(spans, reel)
    yield "reel", errors(reel_bounds(reel, film, spans), spans, film), ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="not needed: the films are rendered")
    parser.add_argument("--minutes", type=float, default=11, help="length of each film")
    parser.add_argument("--spans", type=int, default=40, help="spans per film")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    options = parser.parse_args()
    cells: dict[str, list[str]] = {}
    remarks: list[str] = []
    near = points = 0
    with tempfile.TemporaryDirectory() as scratch:
        for kind in KINDS:
            film = render(Path(scratch) / f"{kind.split()[0]}.mp4", kind, minutes=options.minutes)
            if not film.rate:
                film = Film(film.path, film.times_s, counted_rate(film.path), film.start)
            spans = random_spans(film, options.spans)
            for form, wrong, remark in measure(film, spans, Path(scratch)):
                if wrong.size:
                    cells.setdefault(form, []).append(f"{wrong.max():.2f}")
                    if not form.endswith("adapter"):
                        near, points = near + int((wrong <= 1).sum()), points + wrong.size
                if remark:
                    remarks.append(f"- {kind}, {form}: {remark}")
                print(kind, form, f"{wrong.max() if wrong.size else 0:.2f}", remark, file=sys.stderr, flush=True)
    text = (
        f"{len(KINDS)} films of {options.minutes:g} minutes, {options.spans} spans each. Largest distance, in frames, "
        f"between a point asked for and the one read back. {near:,} of {points:,} points are within one frame "
        "(without the adapters, which read the same files).\n\n"
        f"| form | {' | '.join(KINDS)} |\n| --- |{' ---: |' * len(KINDS)}\n"
    )
    text += "\n".join(f"| {form} | {' | '.join(row)} |" for form, row in cells.items())
    text += "\n\n" + "\n".join(remarks)
    print(text)
    if options.out:
        options.out.write_text(f"{text}\n", encoding="utf-8")


def counted_rate(path: Path) -> Fraction:
    """Read the rate at which frames of a variable film are counted."""
    from impart.video.export.source.facts import read_facts

    return read_facts(path).timebase.rate


if __name__ == "__main__":
    main()
