"""Files that change between runs: read errors, downloads, disks that go away, shifted times, renames and copies."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from helpers.clips import truncate, write_clip
from helpers.tiny_encoder import TinyEncoder
from impart.errors import VideoIndexError
from impart.video.decode import decoder, timestamps
from impart.video.decode.container import VideoInfo
from impart.video.decode.sampler import DecodedSegment, DecodeFailed, DecodeFinished, sample_video
from impart.video.index.events import (
    Event,
    IndexDone,
    PathFailed,
    VideoCopied,
    VideoDone,
    VideoFailed,
    VideoMoved,
    VideoRemoved,
    VideoSkipped,
)
from impart.video.index.files.prune import read_devices, save_devices
from impart.video.index.index import VideoIndex
from impart.video.index.store import SEGMENTS, Store
from impart.video.index.writer import Writer


class Disk:
    """A decoder of red films with 8 samples, and what goes wrong with their disk or content, per file name."""

    faults: ClassVar[dict[str, DecodeFinished | DecodeFailed]] = {}

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def decode(self, paths: Any) -> Iterator[Any]:
        for path in paths:
            fault = self.faults.get(path.name, whole(path))
            for number in range(fault.samples if isinstance(fault, DecodeFinished) else 1):
                yield DecodedSegment(path, number / 4, (number + 1) / 4, 1, RED)
            yield fault


def whole(path: Path | str = "") -> DecodeFinished:
    return finished(path, samples=8)


def finished(path: Path | str, *, samples: int, problem: str | None = None, lasting: bool = True) -> DecodeFinished:
    info = VideoInfo(duration_s=2.0, width=8, height=8, codec="h264", container="mp4", fps=4.0)
    return DecodeFinished(Path(path), info, samples, problem, lasting)


RED = np.full((8, 8, 3), (255, 0, 0), np.uint8)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> dict[str, DecodeFinished | DecodeFailed]:
    """Faults of a simulated disk, by file name."""
    monkeypatch.setattr(decoder, "Decoder", Disk)
    monkeypatch.setattr(Disk, "faults", {})
    return Disk.faults


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Three files of different sizes; a `Disk` decodes them."""
    folder = tmp_path / "films"
    folder.mkdir()
    for size, name in enumerate(("a.mp4", "b.mp4", "c.mp4"), 1):
        (folder / name).write_bytes(name.encode() * size)
    return folder


@pytest.fixture
def index(tmp_path: Path) -> VideoIndex:
    return VideoIndex.open(tmp_path / "index", TinyEncoder())


def of(events: Any, kind: type) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def paths(index: VideoIndex) -> list[str]:
    return [video.path.name for video in index.videos()]


def ids_of(index: VideoIndex) -> dict[str, str]:
    return {video.path.name: video.video_id for video in index.videos()}


def decoded(events: list[Event]) -> list[str]:
    return [event.path.name for event in events if isinstance(event, VideoDone | VideoFailed)]


def run(index: VideoIndex, *given: Path, **options: bool) -> list[Event]:
    return list(index.add(given, **options))  # type: ignore[arg-type]


def test_a_read_error_is_told_and_tried_again_by_the_next_run(
    films: Path, index: VideoIndex, disk: dict[str, Any]
) -> None:
    disk["a.mp4"] = DecodeFailed(films / "a.mp4", "no such file", lasting=False)
    disk["b.mp4"] = finished(films / "b.mp4", samples=3, problem="stopped at 0.8 s: Input/output error", lasting=False)
    events = run(index, films)
    (failed,) = of(events, VideoFailed)
    assert failed.reason == "no such file; the next run reads it again"
    (done,) = [event for event in of(events, VideoDone) if event.path.name == "b.mp4"]
    assert done.problem.endswith("Input/output error; the next run reads it again")
    (counts,) = of(events, IndexDone)
    assert (counts.failed, counts.partial) == (1, 1)
    assert index.failures() == []
    assert index.stats().partial == 1

    del disk["a.mp4"]
    disk["b.mp4"] = finished(films / "b.mp4", samples=2, problem="stopped: Input/output error", lasting=False)
    events = run(index, films)  # less than before can be read: what there is stays
    assert decoded(events) == ["a.mp4", "b.mp4"]
    assert [video.samples for video in index.videos()] == [8, 3, 8]
    (films / "b.mp4").rename(films / "bb.mp4")
    assert decoded(run(index, films)) == []
    events = run(index, films)  # it was moved meanwhile
    assert decoded(events) == ["bb.mp4"]
    assert of(events, VideoDone)[0].replaced
    assert [(video.samples, video.problem) for video in index.videos()] == [(8, None)] * 3
    assert Store(index.path).read(SEGMENTS).num_rows == index.stats().segments == 24
    assert decoded(run(index, films)) == []


def test_a_whole_video_stays_when_its_changed_file_cannot_be_read(
    films: Path, index: VideoIndex, disk: dict[str, Any]
) -> None:
    run(index, films)
    (films / "a.mp4").write_bytes(b"other content")
    disk["a.mp4"] = finished(films / "a.mp4", samples=3, problem="stopped: Input/output error", lasting=False)
    events = run(index, films)
    assert "what was indexed before is kept" in of(events, VideoFailed)[0].reason
    assert [video.samples for video in index.videos()] == [8, 8, 8]
    assert Store(index.path).read(SEGMENTS).num_rows == 24
    disk.clear()
    assert decoded(run(index, films)) == ["a.mp4"]
    assert index.videos()[0].size_bytes == len(b"other content")


def test_a_video_read_in_part_is_read_again_when_it_changed_or_on_request(
    films: Path, index: VideoIndex, disk: dict[str, Any]
) -> None:
    disk["b.mp4"] = finished(films / "b.mp4", samples=5, problem="2 damaged packets skipped")
    run(index, films)
    assert decoded(run(index, films)) == []
    assert decoded(run(index, films, retry_failed=True)) == ["b.mp4"]
    assert index.videos()[1].samples == 5
    del disk["b.mp4"]  # a download was completed in place: size and sampled blocks are the same
    os.utime(films / "b.mp4", (1, 1))
    assert decoded(run(index, films)) == ["b.mp4"]
    assert (index.videos()[1].samples, index.videos()[1].problem) == (8, None)
    assert Store(index.path).read(SEGMENTS).num_rows == 24
    assert decoded(run(index, films, retry_failed=True)) == []


def test_a_copy_of_a_damaged_video_is_decoded_by_itself(films: Path, index: VideoIndex, disk: dict[str, Any]) -> None:
    disk["a.mp4"] = finished(films / "a.mp4", samples=5, problem="2 damaged packets skipped")
    shutil.copy(films / "a.mp4", films / "z.mp4")
    assert decoded(run(index, films)) == ["a.mp4", "b.mp4", "c.mp4", "z.mp4"]
    shutil.copy(films / "a.mp4", films / "zz.mp4")
    events = run(index, films)
    assert of(events, VideoCopied)[0].original.name == "z.mp4"
    assert [video.samples for video in index.videos()] == [5, 8, 8, 8, 8]
    also_at = {hit.path.name: [path.name for path in hit.also_at] for hit in index.search(text="red")}
    assert also_at == {"a.mp4": [], "b.mp4": [], "c.mp4": [], "z.mp4": ["zz.mp4"]}


def test_a_read_error_of_the_disk_is_no_property_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from impart.config import DecodeSettings
    from impart.errors import DecodeError

    film = write_clip(tmp_path / "film.mkv", colours=["red", "blue"])

    def last() -> DecodeFinished:
        found = list(sample_video(film, settings=DecodeSettings(), short_side_px=32))[-1]
        assert isinstance(found, DecodeFinished)
        return found

    assert last().lasting
    real = timestamps._Packets._read

    def breaks(packets: Any) -> Iterator[Any]:
        for number, packet in enumerate(real(packets)):
            if number == 10:
                raise timestamps.av.error.OSError(errno.EIO, "Input/output error")
            yield packet

    monkeypatch.setattr(timestamps._Packets, "_read", breaks)
    assert not last().lasting
    assert "Input/output error" in (last().problem or "")
    monkeypatch.undo()
    truncate(film, 0.5)
    assert last().lasting
    with pytest.raises(DecodeError) as caught:
        list(sample_video(tmp_path / "gone.mkv", settings=DecodeSettings(), short_side_px=32))
    assert not caught.value.lasting


def test_a_share_below_the_folder_that_is_away_keeps_its_videos(
    films: Path, index: VideoIndex, disk: dict[str, Any], tmp_path: Path
) -> None:
    share = films / "nas"
    (share / "deep").mkdir(parents=True)
    for name in ("1.mp4", "deep/2.mp4", "deep/3.mp4"):
        (share / name).write_bytes(name.encode())
    disk["3.mp4"] = DecodeFailed(share / "deep" / "3.mp4", "not a video")
    run(index, films)
    assert len(index.videos()) == 5
    away = share.rename(tmp_path / "away")
    for make in (lambda: None, lambda: share.mkdir(), lambda: (share / "deep").mkdir()):
        make()
        (films / "a.mp4").unlink(missing_ok=True)
        events = run(index, films, prune=True)
        assert [event.path.name for event in of(events, VideoRemoved)] in ([], ["a.mp4"])
        reasons = " ".join(event.reason for event in of(events, PathFailed))
        assert "2 indexed videos are kept" in reasons or reasons.count("1 indexed video is kept") == 2
        assert "--prune --force" in reasons
        assert paths(index) == ["b.mp4", "c.mp4", "1.mp4", "2.mp4"]
        assert len(index.failures()) == 1
    shutil.rmtree(share)
    away.rename(share)
    assert decoded(run(index, films)) == []

    shutil.rmtree(share)  # now it was deleted
    events = run(index, share, prune=True)
    assert "cannot be found" in of(events, PathFailed)[0].reason
    events = run(index, share, prune=True, force=True)
    assert [event.path.name for event in of(events, VideoRemoved)] == ["1.mp4", "2.mp4"]
    assert of(events, PathFailed) == []
    assert paths(index) == ["b.mp4", "c.mp4"]
    assert index.failures() == []


def test_another_disk_at_the_same_place_removes_nothing(films: Path, index: VideoIndex, disk: dict[str, Any]) -> None:
    (films / "usb").mkdir()
    for name in ("1.mp4", "2.mp4"):
        (films / "usb" / name).write_bytes(name.encode())
    run(index, films)
    devices = read_devices(index.path)
    assert devices.keys() == {str(films), str(films / "usb")}
    assert len(set(devices.values())) == 1
    save_devices(index.path, devices | {str(films / "usb"): 1})
    (films / "usb" / "1.mp4").unlink()
    (films / "usb" / "notes.txt").touch()
    events = run(index, films, prune=True, dry_run=True)
    assert of(events, PathFailed) == []  # 2.mp4 is there: so is the disk
    (films / "usb" / "2.mp4").unlink()
    events = run(index, films, prune=True)
    assert "another disk" in of(events, PathFailed)[0].reason
    assert len(index.videos()) == 5
    save_devices(index.path, devices)  # the last video of a folder was deleted
    assert len(of(run(index, films, prune=True), VideoRemoved)) == 2


def test_disks_in_turn_at_the_same_place_keep_their_videos(
    films: Path, index: VideoIndex, disk: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = {"now": 1}
    monkeypatch.setattr("impart.video.index.files.prune._device", lambda folder: numbers["now"] if folder == usb else 9)
    usb = films / "usb"

    def mount(number: int, content: dict[str, bytes]) -> list[str]:
        numbers["now"] = number
        shutil.rmtree(usb, ignore_errors=True)
        usb.mkdir()
        for name, data in content.items():
            (usb / name).write_bytes(data)
            os.utime(usb / name, ns=(number, number))
        kept = of(run(index, films, prune=True), PathFailed)
        assert all("another disk" in event.reason for event in kept)
        return [path.name for path in paths_below(index, usb)]

    one = {"1.mp4": b"one", "2.mp4": b"two", "same.mp4": b"same"}
    two = {"3.mp4": b"three", "same.mp4": b"other"}  # two cameras give equal names
    everything = ["1.mp4", "2.mp4", "3.mp4", "same.mp4"]
    assert mount(1, one) == ["1.mp4", "2.mp4", "same.mp4"]
    for _ in range(2):
        assert mount(2, two) == everything
        assert mount(2, two) == everything
        assert mount(1, one) == everything
        assert mount(1, one) == everything
    one.pop("1.mp4")  # a deleted file is gone: the others of its disk are there
    assert mount(1, one) == ["2.mp4", "3.mp4", "same.mp4"]


def test_a_file_in_a_folder_that_may_not_be_entered_is_not_remembered(
    films: Path, index: VideoIndex, disk: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Locked:
        def __init__(self, entry: os.DirEntry[str]) -> None:
            self.name, self.path = entry.name, entry.path

        def is_dir(self) -> bool:
            return False

        def stat(self) -> os.stat_result:
            raise PermissionError(13, "Permission denied")

    scandir = os.scandir

    @contextlib.contextmanager
    def locked() -> Iterator[list[Locked]]:
        with scandir(films) as entries:
            yield [Locked(entry) for entry in entries]

    with monkeypatch.context() as patch:
        patch.setattr("os.scandir", lambda folder: locked() if folder == films else scandir(folder))
        for _ in range(2):
            assert len(of(run(index, films), VideoFailed)) == 3
            assert index.failures() == []
    assert len(decoded(run(index, films))) == 3


def paths_below(index: VideoIndex, folder: Path) -> list[Path]:
    return [video.path for video in index.videos() if video.path.parent == folder]


def test_an_index_without_device_numbers_prunes_as_before(films: Path, index: VideoIndex, disk: dict[str, Any]) -> None:
    run(index, films)
    (index.path / "folders.json").unlink()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (films / name).unlink()
    (films / "notes.txt").touch()
    assert len(of(run(index, films, prune=True), VideoRemoved)) == 3


def test_shifted_times_are_one_commit(
    films: Path, index: VideoIndex, disk: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(150):
        (films / f"{number}.mp4").write_bytes(b"%08d" % number)
    run(index, films)
    for film in films.iterdir():
        os.utime(film, ns=(1, film.stat().st_mtime_ns - 3600 * 10**9))
    versions = index.path / "videos.lance" / "_versions"
    before, began = len(list(versions.iterdir())), time.process_time()
    events = run(index, films)
    assert time.process_time() - began < 2.0
    assert decoded(events) == []
    assert len(list(versions.iterdir())) == before + 1
    assert {video.mtime_ns for video in index.videos()} == {film.stat().st_mtime_ns for film in films.iterdir()}
    assert len(index.videos()) == 153

    shutil.copytree(films, films.with_name("copy"))  # copies are few commits as well
    before = len(list(versions.iterdir()))
    assert len(of(run(index, films.with_name("copy")), VideoCopied)) == 153
    assert len(list(versions.iterdir())) == before + 1
    assert Store(index.path).read(SEGMENTS).num_rows == index.stats().segments == 2 * 153 * 8


def test_a_rename_or_copy_onto_an_indexed_path_decodes_nothing(
    films: Path, index: VideoIndex, disk: dict[str, Any]
) -> None:
    run(index, films)
    ids = ids_of(index)
    (films / "b.mp4").rename(films / "a.mp4")  # what was in a.mp4 is gone
    events = run(index, films)
    assert decoded(events) == []
    assert [(event.path.name, event.old_path.name) for event in of(events, VideoMoved)] == [("a.mp4", "b.mp4")]
    assert {video.path.name: video.video_id for video in index.videos()} == {
        "a.mp4": ids["b.mp4"],
        "c.mp4": ids["c.mp4"],
    }

    (films / "a.mp4").rename(films / "x")  # two change places
    (films / "c.mp4").rename(films / "a.mp4")
    (films / "x").rename(films / "c.mp4")
    assert decoded(run(index, films)) == []
    assert {video.path.name: video.video_id for video in index.videos()} == {
        "a.mp4": ids["c.mp4"],
        "c.mp4": ids["b.mp4"],
    }

    shutil.copy(films / "a.mp4", films / "c.mp4")  # and one is written over the other
    events = run(index, films)
    assert decoded(events) == []
    assert [event.path.name for event in of(events, VideoCopied)] == ["c.mp4"]
    assert len({video.content_hash for video in index.videos()}) == 1
    assert Store(index.path).read(SEGMENTS).num_rows == index.stats().segments == 16

    (films / "a.mp4").rename(films / "d.mp4")  # moved away, and another film in its place
    (films / "a.mp4").write_bytes(b"new film")
    assert decoded(run(index, films)) == ["a.mp4"]
    assert paths(index) == ["a.mp4", "c.mp4", "d.mp4"]
    assert decoded(run(index, films)) == []


def test_a_failure_that_lasts_is_not_tried_again(films: Path, index: VideoIndex, disk: dict[str, Any]) -> None:
    disk["a.mp4"] = DecodeFailed(films / "a.mp4", "not a video")
    run(index, films)
    events = run(index, films)
    assert of(events, VideoFailed) == []
    assert len(of(events, VideoSkipped)) == 1
    os.utime(films / "a.mp4", (1, 1))
    assert decoded(run(index, films)) == ["a.mp4"]


def test_a_crash_between_two_steps_of_a_rename_loses_no_file(
    films: Path, index: VideoIndex, disk: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(index, films)
    (films / "b.mp4").rename(films / "a.mp4")
    with monkeypatch.context() as patch:
        patch.setattr(Writer, "update", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(index, films)
    assert decoded(run(index, films)) == []
    assert paths(index) == ["a.mp4", "c.mp4"]


def test_a_folder_without_videos_makes_no_index(tmp_path: Path, index: VideoIndex) -> None:
    (tmp_path / "empty").mkdir()
    events = run(index, tmp_path / "empty", tmp_path / "typo")
    assert [event.path.name for event in of(events, PathFailed)] == ["typo"]
    assert not index.path.exists()
    assert index.search(text="red") == []


def test_a_manifest_with_another_width_is_damaged(films: Path, index: VideoIndex, disk: dict[str, Any]) -> None:
    run(index, films)
    manifest = index.manifest
    for change in ({"dim": 7}, {"dim": 10**9}, {"retrieval_dim": 5}):
        dataclasses.replace(manifest, **change).save(index.path)
        with pytest.raises(VideoIndexError, match=r"manifest .* is damaged: dim"):
            VideoIndex.open(index.path, TinyEncoder()).search(text="red")
