"""Timelines: every format is read back by OpenTimelineIO's adapter and by a parser of this test, to the frame."""

from __future__ import annotations

import csv
import json
import re
import urllib.parse
import xml.etree.ElementTree as ET
from fractions import Fraction
from pathlib import Path

import opentimelineio as otio
import pytest

from helpers.coded_films import write_coded_film
from impart.errors import ConfigError, DataError
from impart.video.export.spans import ExportSpan, Handles
from impart.video.export.timelines import TIMELINE_FORMS, write_timeline

NTSC24, NTSC30, NTSC60 = Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60000, 1001)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("films")
    kinds = {
        "23.976 with a long name": (NTSC24, "01:00:00:00"),
        "29.97 drop": (NTSC30, "00:59:58;00"),
        "29.97 non-drop": (NTSC30, "10:00:00:00"),
        "59.94": (NTSC60, None),
        "25": (Fraction(25), "10:00:00:00"),
        "24": (Fraction(24), None),
        "15": (Fraction(15), None),
        "late": (Fraction(25), "23:59:58:00"),
    }
    found = {}
    for name, (rate, timecode) in kinds.items():
        found[name] = folder / f"{name}.mp4"
        write_coded_film(found[name], rate=rate, frames=150, timecode=timecode)
    times = [0.0]
    for number in range(150):
        times.append(times[-1] + (1 / 30, 1 / 15, 1 / 20)[number % 3])
    found["variable"] = folder / "variable.mp4"
    write_coded_film(found["variable"], times_s=times, rate=Fraction(30), frames=150)
    return found


RATES = {
    "23.976 with a long name": (NTSC24, 3600 * 24, False),
    "29.97 drop": (NTSC30, 107892 - 60, True),  # 01:00:00;00 is frame 107892
    "29.97 non-drop": (NTSC30, 36000 * 30, False),
    "59.94": (NTSC60, 0, True),
    "25": (Fraction(25), 36000 * 25, False),
    "24": (Fraction(24), 0, False),
}


def spans_in(path: Path) -> list[ExportSpan]:
    return [
        ExportSpan(path=path, start_s=0.51, end_s=1.26, label="a dog & <cat>", number=1, score=0.3),
        ExportSpan(path=path, start_s=1.0, end_s=2.2, number=2),
    ]


def wanted(span: ExportSpan, rate: Fraction) -> tuple[int, int]:
    return round(span.start_s * rate), round(span.end_s * rate)


def own_count(text: str, nominal: int, *, drop: bool) -> int:
    """Count a time code by listing the numbers of its minute: slow, and independent of the formula."""
    hours, minutes, seconds, frames = map(int, re.split("[:;]", text))
    total = 0
    for minute in range(hours * 60 + minutes):
        total += nominal * 60 - (nominal // 15 if drop and minute % 10 else 0)
    skipped = nominal // 15 if drop and minutes % 10 else 0
    return total + seconds * nominal + frames - skipped


@pytest.mark.parametrize("kind", RATES)
def test_edl(films: dict[str, Path], tmp_path: Path, kind: str) -> None:
    rate, start, drop = RATES[kind]
    file = tmp_path / "cut.edl"
    spans = spans_in(films[kind])
    write_timeline(spans, file, "edl")
    lines = file.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "TITLE: cut"
    assert lines[1] == ("FCM: DROP FRAME" if drop else "FCM: NON-DROP FRAME")
    events = [line.split() for line in lines if re.match(r"\d{3}  ", line)]
    nominal, at = round(rate), 0
    for event, span in zip(events, spans, strict=True):
        times = [own_count(text, nominal, drop=drop) for text in event[4:]]
        assert [time - start for time in times[:2]] == list(wanted(span, rate))
        assert times[2] - own_count("01:00:00:00", nominal, drop=drop) == at
        at += times[1] - times[0]
        assert times[3] - times[2] == times[1] - times[0]
        assert all((";" in text) == drop for text in event[4:])
        assert re.fullmatch("[A-Z0-9]{1,8}", event[1])
        assert event[2] == "B"
    assert "* COMMENT: a dog & <cat>" in lines
    read = otio.adapters.read_from_string(file.read_text(encoding="utf-8"), "cmx_3600", rate=float(rate))
    for clip, span in zip(read.video_tracks()[0].find_clips(), spans, strict=True):
        first = round(clip.source_range.start_time.value) - start
        assert (first, first + round(clip.source_range.duration.value)) == wanted(span, rate)
        assert clip.name == span.path.name


def test_an_edl_has_unique_reels_and_comments_with_whole_names(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "interview with a guest.mp4" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        write_coded_film(path, frames=50, sound=False)
    file = tmp_path / "cut.edl"
    write_timeline([ExportSpan(path=path, start_s=0, end_s=1) for path in paths], file, "edl")
    text = file.read_text(encoding="utf-8")
    events = [line.split() for line in text.splitlines() if re.match(r"\d{3}  ", line)]
    assert [event[1] for event in events] == ["INTERVIE", "INTERV02"]
    assert [event[2] for event in events] == ["V", "V"]
    for path in paths:
        assert f"* SOURCE FILE: {path}" in text


def test_an_edl_refuses_mixed_rates_and_names_the_remedy(films: dict[str, Path], tmp_path: Path) -> None:
    spans = [ExportSpan(path=films[kind], start_s=0, end_s=1) for kind in ("25", "24")]
    with pytest.raises(DataError, match=r"one frame rate.*24 \(24\.mp4\), 25 \(25\.mp4\).*fcp7"):
        write_timeline(spans, tmp_path / "cut.edl", "edl")
    assert not list(tmp_path.iterdir())


def test_an_edl_with_both_ways_of_counting_says_so_per_event(films: dict[str, Path], tmp_path: Path) -> None:
    spans = [
        ExportSpan(path=films[kind], start_s=0, end_s=1) for kind in ("29.97 drop", "29.97 non-drop", "29.97 drop")
    ]
    write_timeline(spans, tmp_path / "cut.edl", "edl")
    text = (tmp_path / "cut.edl").read_text(encoding="utf-8")
    assert re.findall("FCM: (.*)", text) == ["DROP FRAME", "NON-DROP FRAME", "DROP FRAME"]


def test_an_edl_refuses_what_its_numbers_cannot_hold(films: dict[str, Path], tmp_path: Path) -> None:
    spans = [ExportSpan(path=films["25"], start_s=0, end_s=1)] * 1000
    with pytest.raises(DataError, match="999"):
        write_timeline(spans, tmp_path / "cut.edl", "edl")


def test_source_time_code_goes_on_after_midnight(films: dict[str, Path], tmp_path: Path) -> None:
    write_timeline([ExportSpan(path=films["late"], start_s=1, end_s=3)], tmp_path / "cut.edl", "edl")
    event = (tmp_path / "cut.edl").read_text(encoding="utf-8").splitlines()[3].split()
    assert event[4:6] == ["23:59:59:00", "00:00:01:00"]


@pytest.mark.parametrize("kind", [*RATES, "15"])
def test_fcp7(films: dict[str, Path], tmp_path: Path, kind: str) -> None:
    rate, start, drop = RATES.get(kind, (Fraction(15), 0, False))
    file = tmp_path / "cut.xml"
    spans = spans_in(films[kind])
    write_timeline(spans, file, "fcp7")
    root = ET.fromstring(file.read_text(encoding="utf-8"))
    sequence = root.find("sequence")
    assert sequence is not None
    assert sequence.findtext("rate/timebase") == str(round(rate))
    assert sequence.findtext("rate/ntsc") == ("TRUE" if rate.denominator == 1001 else "FALSE")
    clips = sequence.findall("media/video/track/clipitem")
    at = 0
    for clip, span in zip(clips, spans, strict=True):
        bounds = int(clip.findtext("in") or ""), int(clip.findtext("out") or "")
        assert bounds == wanted(span, rate)
        assert int(clip.findtext("start") or "") == at
        at += bounds[1] - bounds[0]
        assert int(clip.findtext("end") or "") == at
    media = clips[0].find("file")
    assert media is not None
    assert media.findtext("timecode/frame") == str(start)
    assert media.findtext("timecode/displayformat") == ("DF" if drop else "NDF")
    assert own_count(media.findtext("timecode/string") or "", round(rate), drop=drop) == start
    address = urllib.parse.urlparse(media.findtext("pathurl") or "")
    assert Path(urllib.parse.unquote(address.path)) == films[kind]
    assert media.findtext("duration") == "150"
    ids = {clip.get("id") for clip in sequence.iter("clipitem")}
    assert {link.text for link in sequence.iter("linkclipref")} == ids  # video and one sound track, linked
    assert len(ids) == 4
    read = otio.adapters.read_from_string(file.read_text(encoding="utf-8"), "fcp_xml")
    for clip, span in zip(read.video_tracks()[0].find_clips(), spans, strict=True):
        first = round(clip.source_range.start_time.value) - start
        assert (first, first + round(clip.source_range.duration.value)) == wanted(span, rate)


@pytest.mark.parametrize("kind", RATES)
def test_fcpxml(films: dict[str, Path], tmp_path: Path, kind: str) -> None:
    rate, start, drop = RATES[kind]
    file = tmp_path / "cut.fcpxml"
    spans = spans_in(films[kind])
    write_timeline(spans, file, "fcpxml")
    root = ET.fromstring(file.read_text(encoding="utf-8"))

    def seconds(text: str | None) -> Fraction:
        return Fraction((text or "").removesuffix("s"))

    form = root.find("resources/format")
    asset = root.find("resources/asset")
    sequence = root.find(".//sequence")
    assert form is not None
    assert asset is not None
    assert sequence is not None
    assert seconds(form.get("frameDuration")) == 1 / rate
    assert seconds(asset.get("start")) == start / rate
    assert sequence.get("tcFormat") == ("DF" if drop else "NDF")
    at = Fraction(0)
    clips = root.findall(".//asset-clip")
    for clip, span in zip(clips, spans, strict=True):
        first, end = wanted(span, rate)
        assert seconds(clip.get("start")) == (start + first) / rate
        assert seconds(clip.get("duration")) == (end - first) / rate
        assert seconds(clip.get("offset")) == at
        at += (end - first) / rate
    read = list(otio.adapters.read_from_string(file.read_text(encoding="utf-8"), "fcpx_xml").find_clips())
    step_s = 1.001 / int(rate)  # the adapter cuts rates and times to whole numbers
    for clip, span in zip(read, spans, strict=True):
        first, end = wanted(span, rate)
        assert clip.source_range.start_time.to_seconds() == pytest.approx(float((start + first) / rate), abs=step_s)
        assert clip.source_range.duration.to_seconds() == pytest.approx(float((end - first) / rate), abs=step_s)


@pytest.mark.parametrize("kind", [*RATES, "15", "variable"])
def test_otio(films: dict[str, Path], tmp_path: Path, kind: str) -> None:
    rate, start, _ = RATES.get(kind, (Fraction(15), 0, False))
    if kind == "variable":
        rate = NTSC24  # the next known one above its 20 frames per second
    file = tmp_path / "cut.otio"
    spans = spans_in(films[kind])
    written = write_timeline(spans, file, "otio")
    if kind == "variable":
        assert any("variable" in note for note in written.notes)
    read = otio.adapters.read_from_file(str(file))
    clips = json.loads(file.read_text(encoding="utf-8"))["tracks"]["children"][0]["children"]
    for clip, raw, span in zip(read.video_tracks()[0].find_clips(), clips, spans, strict=True):
        assert clip.source_range.start_time.rate == pytest.approx(float(rate), abs=1e-9)
        first = round(clip.source_range.start_time.value) - start
        assert (first, first + round(clip.source_range.duration.value)) == wanted(span, rate)
        value = raw["source_range"]["start_time"]
        assert abs(value["value"] / value["rate"] - start / rate - span.start_s) <= 0.5 / rate + 1e-9
        assert clip.media_reference.available_range.contains(clip.source_range)
        assert clip.metadata["impart"]["start_s"] == span.start_s
    assert len(read.audio_tracks()) == 1


def test_mixed_rates_keep_the_rate_of_each_file(films: dict[str, Path], tmp_path: Path) -> None:
    spans = [ExportSpan(path=films[kind], start_s=1, end_s=2) for kind in ("25", "24", "25")]
    write_timeline(spans, tmp_path / "cut.xml", "fcp7")
    clips = ET.parse(tmp_path / "cut.xml").getroot().findall("sequence/media/video/track/clipitem")
    assert [clip.findtext("in") for clip in clips] == ["25", "24", "25"]
    assert [clip.findtext("end") for clip in clips] == ["25", "50", "75"]


def test_handles_are_frames_of_each_film_and_stay_inside(films: dict[str, Path], tmp_path: Path) -> None:
    span = ExportSpan(path=films["25"], start_s=0.2, end_s=5.8)
    write_timeline([span], tmp_path / "cut.csv", "csv", handles=Handles(frames=12))
    row = next(csv.DictReader((tmp_path / "cut.csv").read_text(encoding="utf-8").splitlines()))
    assert (row["in_frame"], row["out_frame"]) == ("0", "150")
    inner = ExportSpan(path=films["24"], start_s=1, end_s=2)
    write_timeline([inner], tmp_path / "cut.csv", "csv", handles=Handles(time_s=0.5), overwrite=True)
    row = next(csv.DictReader((tmp_path / "cut.csv").read_text(encoding="utf-8").splitlines()))
    assert (row["in_frame"], row["out_frame"], row["fps"]) == ("12", "60", "24")


def test_resolve_markers_are_one_file_per_film(films: dict[str, Path], tmp_path: Path) -> None:
    spans = [*spans_in(films["29.97 drop"]), ExportSpan(path=films["25"], start_s=2, end_s=3, label="pipe|d")]
    written = write_timeline(spans, tmp_path / "marks.edl", "resolve")
    assert [file.name for file in written.files] == ["marks-29.97 drop.edl", "marks-25.edl"]
    text = written.files[0].read_text(encoding="utf-8")
    assert "FCM: DROP FRAME" in text
    found = re.findall(r"^(\d{3}) .* (\S+) (\S+) +\n \|C:(\w+) \|M:(.*) \|D:(\d+)$", text, flags=re.MULTILINE)
    for (_, at, _, colour, _, length), span in zip(found, spans, strict=False):
        first, end = wanted(span, NTSC30)
        assert own_count(at, 30, drop=True) - own_count("01:00:00;00", 30, drop=True) == first
        assert int(length) == end - first
        assert colour == "ResolveColorBlue"
    assert " |C:ResolveColorBlue |M:pipe/d |D:25" in written.files[1].read_text(encoding="utf-8")
    read = otio.adapters.read_from_string(written.files[1].read_text(encoding="utf-8"), "cmx_3600", rate=25)
    assert len(read.video_tracks()) == 1


def test_photos_and_lost_files_are_left_out_and_counted(films: dict[str, Path], tmp_path: Path) -> None:
    spans = [
        ExportSpan(path=films["25"], start_s=1, end_s=2),
        ExportSpan(path=tmp_path / "gone.mp4", start_s=1, end_s=2),
        ExportSpan(path=films["25"], start_s=100, end_s=101),
        ExportSpan(path=tmp_path / "photo.jpg", start_s=0, end_s=0, kind="photo"),
    ]
    written = write_timeline(spans, tmp_path / "cut.edl", "edl")
    assert (written.spans, written.photos) == (1, 1)
    assert [failure.span for failure in written.failures] == spans[1:3]
    assert "gone.mp4" in written.failures[0].reason
    assert "behind its end at 6 s" in written.failures[1].reason
    with pytest.raises(DataError, match="photos"):
        write_timeline(spans[3:], tmp_path / "none.edl", "edl")


def test_nothing_is_replaced_unless_asked(films: dict[str, Path], tmp_path: Path) -> None:
    spans = spans_in(films["25"])
    file = tmp_path / "cut.edl"
    file.write_text("mine")
    with pytest.raises(DataError, match="--overwrite"):
        write_timeline(spans, file, "edl")
    assert file.read_text() == "mine"
    write_timeline(spans, file, "edl", overwrite=True)
    assert "TITLE" in file.read_text()
    with pytest.raises(DataError, match="one of the exported videos"):
        write_timeline(spans, films["25"], "edl", overwrite=True)
    with pytest.raises(DataError, match="does not exist"):
        write_timeline(spans, tmp_path / "no" / "cut.edl", "edl")
    with pytest.raises(ConfigError, match="otio"):
        write_timeline(spans, tmp_path / "cut.aaf", "aaf")  # type: ignore[arg-type]


@pytest.mark.parametrize("form", TIMELINE_FORMS)
def test_odd_names_fit_into_every_format(tmp_path: Path, form: str) -> None:
    path = tmp_path / "a b\x01&<ü>\udc80%20.mp4"
    write_coded_film(tmp_path / "plain.mp4", frames=50)
    (tmp_path / "plain.mp4").rename(path)
    span = ExportSpan(path=path, start_s=0, end_s=1, label='two\nlines "&\x00')
    written = write_timeline([span], tmp_path / f"cut.{form}", form)  # type: ignore[arg-type]
    text = written.files[0].read_bytes().decode("utf-8", "surrogateescape")
    if form in ("fcp7", "fcpxml"):
        ET.fromstring(text)
    if form == "csv":
        row = next(csv.DictReader(text.splitlines(keepends=True)))
        assert row["path"] == str(path)
