"""Runs of `VideoIndex.add`: files found, decoded, skipped, moved, removed and failed."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.clips import solid, truncate, write_audio, write_clip, write_frames
from helpers.colour_references import colour_set
from helpers.tiny_encoder import TinyEncoder
from impart.blending.encoder import AugmentedEncoder
from impart.blending.vanilla import Vanilla
from impart.config import DecodeSettings, Settings, VanillaSettings
from impart.encoders import load_encoder
from impart.encoders.onnx.encoder import MINI_FOLDER
from impart.errors import EncoderError
from impart.files import blake2b_hex
from impart.video.decode import decoder
from impart.video.decode.container import VideoInfo
from impart.video.decode.frames.changes import Step
from impart.video.decode.sampler import DecodedSegment, DecodeFailed, DecodeFinished
from impart.video.index.doctor.checksums import read_checksums
from impart.video.index.durable.lock import is_locked
from impart.video.index.events import (
    Event,
    IndexDone,
    PathFailed,
    Planned,
    ScanDone,
    VideoAbsent,
    VideoCopied,
    VideoDone,
    VideoFailed,
    VideoMoved,
    VideoProgress,
    VideoRemoved,
    VideoSkipped,
    VideoStarted,
)
from impart.video.index.files import plan
from impart.video.index.files.scan import absolute, as_listed, content_hash, scan
from impart.video.index.index import Query, VideoIndex
from impart.video.index.store import NEIGHBOURS_PREFIX, SEGMENTS, Store, is_current
from impart.video.search.state.load import load_snapshot


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    write_clip(folder / "a.mp4", colours=["red"])
    write_clip(folder / "b.mp4", colours=["blue", "green"])
    write_clip(folder / "c.mp4", colours=["white"])
    return folder


@pytest.fixture
def index(tmp_path: Path) -> VideoIndex:
    return VideoIndex.open(tmp_path / "index", TinyEncoder())


def kinds(events: Iterable[Event]) -> list[str]:
    return [type(event).__name__ for event in events if not isinstance(event, VideoProgress | VideoStarted)]


def one(events: Iterable[Event], kind: type) -> Any:
    (found,) = [event for event in events if isinstance(event, kind)]
    return found


def names(index: VideoIndex) -> list[str]:
    return [video.path.name for video in index.videos()]


def test_events_and_counts_of_a_first_run(films: Path, index: VideoIndex) -> None:
    events = list(index.add([films]))
    assert kinds(events) == ["ScanDone", "VideoDone", "VideoDone", "VideoDone", "IndexDone"]
    size = sum(file.stat().st_size for file in films.iterdir())
    assert one(events, ScanDone).bytes_total == size
    started = [event for event in events if isinstance(event, VideoStarted)]
    assert [(event.number, event.of, event.path.name) for event in started] == [
        (1, 3, "a.mp4"),
        (2, 3, "b.mp4"),
        (3, 3, "c.mp4"),
    ]
    progress = [event for event in events if isinstance(event, VideoProgress)]
    assert [event.bytes_done for event in progress] == sorted(event.bytes_done for event in progress)
    last = progress[-1]
    assert (last.files_done, last.files_total, last.bytes_done) == (3, 3, size)
    assert last.video_s == pytest.approx(4, abs=0.1)
    done = one(events, IndexDone)
    assert (done.added, done.segments, done.samples, done.failed) == (3, 4, 16, 0)
    video = index.videos()[1]
    assert (video.width, video.height, video.codec, video.segments, video.scene_starts) == (160, 120, "h264", 2, (0, 1))
    stats = index.stats()
    assert (stats.videos, stats.segments, stats.scenes, stats.samples) == (3, 4, 4, 16)


def test_a_second_run_decodes_nothing(films: Path, index: VideoIndex) -> None:
    list(index.add([films]))
    encoder = index.encoder
    assert isinstance(encoder, TinyEncoder)
    encoded, state = encoder.images_encoded, Store(index.path).state()
    events = list(index.add([films]))
    assert kinds(events) == ["ScanDone", "IndexDone"]
    assert one(events, ScanDone).unchanged == 3
    assert encoder.images_encoded == encoded
    assert Store(index.path).state() == state


def test_changed_touched_moved_and_copied_files(films: Path, index: VideoIndex) -> None:
    list(index.add([films]))
    encoder = index.encoder
    assert isinstance(encoder, TinyEncoder)
    ids = {video.path.name: video.video_id for video in index.videos()}
    encoded = encoder.images_encoded

    os.utime(films / "a.mp4", (1, 1))  # touched
    (films / "deep").mkdir()
    (films / "b.mp4").rename(films / "deep" / "bb.mp4")  # moved
    shutil.copy(films / "c.mp4", films / "cc.mp4")  # copied
    events = list(index.add([films]))
    assert kinds(events) == ["ScanDone", "VideoMoved", "VideoCopied", "IndexDone"]
    assert one(events, VideoMoved).old_path.name == "b.mp4"
    assert one(events, VideoCopied).original.name == "c.mp4"
    assert encoder.images_encoded == encoded
    assert names(index) == ["a.mp4", "c.mp4", "cc.mp4", "bb.mp4"]
    assert index.videos()[3].video_id == ids["b.mp4"]
    assert index.search(text="blue", by="moment", top=1)[0].path == films / "deep" / "bb.mp4"

    write_clip(films / "b.mp4", colours=["yellow"])  # another film where one was before
    write_clip(films / "a.mp4", colours=["cyan", "magenta"])  # changed
    events = list(index.add([films]))
    assert kinds(events) == ["ScanDone", "VideoDone", "VideoDone", "IndexDone"]
    assert [event.replaced for event in events if isinstance(event, VideoDone)] == [True, False]
    assert len({video.video_id for video in index.videos()}) == 5
    assert index.videos()[0].video_id == ids["a.mp4"]
    assert Store(index.path).read(SEGMENTS).num_rows == index.stats().segments == 7
    assert index.search(text="red", by="moment", top=1)[0].score < 0.99


def test_copies_that_are_all_new_are_decoded_once(films: Path, index: VideoIndex) -> None:
    for name in ("z1.mp4", "z2.mp4"):
        shutil.copy(films / "b.mp4", films / name)
    events = list(index.add([films]))
    assert [event.path.name for event in events if isinstance(event, VideoCopied)] == ["z1.mp4", "z2.mp4"]
    asked = Query(text="green")
    hits = index.search_many([asked], by="moment", top=3, fold_copies=False)[0]
    assert [hit.path.name for hit in hits] == ["b.mp4", "z1.mp4", "z2.mp4"]
    assert {hit.score for hit in hits} == {hits[0].score}


def test_prune_removes_only_what_is_surely_gone(films: Path, index: VideoIndex, tmp_path: Path) -> None:
    list(index.add([films]))
    (films / "a.mp4").unlink()
    assert kinds(index.add([films])) == ["ScanDone", "IndexDone"]
    assert len(names(index)) == 3
    assert kinds(index.add([films], prune=True)) == ["ScanDone", "VideoRemoved", "IndexDone"]
    assert names(index) == ["b.mp4", "c.mp4"]

    hidden = films.rename(tmp_path / "unmounted")
    events = list(index.add([films], prune=True))
    assert "No such file" in one(events, PathFailed).reason
    films.mkdir()  # the empty mount point
    events = list(index.add([films], prune=True))
    assert "mounted" in one(events, PathFailed).reason
    assert names(index) == ["b.mp4", "c.mp4"]
    films.rmdir()
    hidden.rename(films)

    other = tmp_path / "other"
    other.mkdir()
    (films / "b.mp4").unlink()
    (other / "x.txt").touch()
    assert kinds(index.add([other], prune=True)) == ["ScanDone", "IndexDone"]  # b.mp4 is not below it
    assert len(names(index)) == 2


def test_a_dry_run_writes_nothing(films: Path, index: VideoIndex) -> None:
    events = list(index.add([films], dry_run=True))
    assert [(event.path.name, event.action) for event in events if isinstance(event, Planned)] == [
        ("a.mp4", "add"),
        ("b.mp4", "add"),
        ("c.mp4", "add"),
    ]
    assert not index.path.exists()
    list(index.add([films]))
    state = Store(index.path).state()
    (films / "a.mp4").unlink()
    shutil.copy(films / "b.mp4", films / "d.mp4")
    (films / "c.mp4").rename(films / "e.mp4")
    events = list(index.add([films], dry_run=True, prune=True))
    assert [
        (event.path.name, event.action, Path(event.detail).name) for event in events if isinstance(event, Planned)
    ] == [
        ("d.mp4", "copy", "b.mp4"),
        ("e.mp4", "move", "c.mp4"),
        ("a.mp4", "remove", ""),
    ]
    assert Store(index.path).state() == state


def test_a_folder_of_bad_files(tmp_path: Path, index: VideoIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "pile"
    folder.mkdir()
    write_clip(folder / "good.mp4", colours=["red"])
    write_clip(folder / "good.gif", colours=["blue"])
    write_clip(folder / 'it\'s "good" – süß 🎬.mp4', colours=["green"])
    (folder / "empty.mp4").touch()
    truncate(write_clip(folder / "truncated.mp4", colours=["white"]), 0.5)
    (folder / "text.mp4").write_text("This is not a film. " * 50)
    write_clip(folder / "tiny.avi", colours=["red"], size=(2, 2), codec="rawvideo", pix_fmt="bgr24")
    write_audio(folder / "sound.mp4")
    (folder / "nowhere.mp4").symlink_to(folder / "missing.mp4")
    (folder / "circle.mp4").symlink_to(folder / "circle.mp4")
    (folder / "loop").symlink_to(folder)
    (folder / "inner").mkdir()
    (folder / "inner" / "back").symlink_to(folder)
    (folder / "notes.txt").write_text("skipped")
    (folder / ".hidden.mp4").write_bytes((folder / "good.mp4").read_bytes())
    bad = {"circle.mp4", "empty.mp4", "nowhere.mp4", "sound.mp4", "text.mp4", "truncated.mp4"}
    if os.name == "posix" and os.geteuid() != 0:  # root reads everything
        locked = write_clip(folder / "locked.mp4", colours=["cyan"])
        locked.chmod(0)  # no property of the file: it is not remembered

    events = list(index.add([folder, folder / "missing folder"]))
    assert one(events, PathFailed).path.name == "missing folder"
    assert {"good.mp4", "good.gif", 'it\'s "good" – süß 🎬.mp4'} <= set(names(index))
    failures = {failure.path.name: failure.reason for failure in index.failures()}
    assert failures.keys() - {"tiny.avi"} == bad
    assert "tiny.avi" in failures.keys() | set(names(index))
    assert "empty" in failures["empty.mp4"]
    assert "circle" in failures["circle.mp4"]
    assert "sound" in failures["sound.mp4"]
    assert "truncated" in failures["truncated.mp4"]
    done = one(events, IndexDone)
    assert (done.failed, done.no_video) == (len(failures) - 1, 1)
    assert done.path_failures == 1
    del failures["sound.mp4"]  # it is remembered, but no failure

    events = list(index.add([folder]))
    assert not [event for event in events if isinstance(event, VideoStarted | VideoFailed | VideoDone)]
    assert {event.path.name for event in events if isinstance(event, VideoSkipped)} == failures.keys()
    assert one(events, IndexDone).skipped == len(failures)

    events = list(index.add([folder], retry_failed=True))
    assert {event.path.name: event.attempts for event in events if isinstance(event, VideoFailed)} == dict.fromkeys(
        failures, 2
    )
    write_clip(folder / "empty.mp4", colours=["yellow"])  # mended
    assert one(index.add([folder]), VideoDone).path.name == "empty.mp4"
    assert "empty.mp4" not in {failure.path.name for failure in index.failures()}


def test_an_unreadable_folder_is_reported_and_nothing_below_it_pruned(
    films: Path, index: VideoIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = films / "inner"
    inner.mkdir()
    (films / "a.mp4").rename(inner / "a.mp4")
    list(index.add([films]))
    listed = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path) == inner:
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (inner / "a.mp4").unlink()
    events = list(index.add([films], prune=True))
    assert one(events, PathFailed).path == inner
    assert len(names(index)) == 3


def test_a_failing_encoder_costs_the_video_only(films: Path, tmp_path: Path) -> None:
    class Fails(TinyEncoder):
        def encode_images(self, images: Any) -> Any:
            if any(np.asarray(image)[0, 0, 2] > 200 and np.asarray(image)[0, 0, 0] < 50 for image in images):
                raise EncoderError("no blue, please")
            return super().encode_images(images)

    index = VideoIndex.open(tmp_path / "index", Fails())
    events = list(index.add([films]))
    assert "no blue, please" in one(events, VideoFailed).reason
    assert names(index) == ["a.mp4", "c.mp4"]
    assert Store(index.path).read(SEGMENTS).num_rows == 2


def test_a_damaged_model_is_one_error_and_no_failure_of_any_video(films: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(MINI_FOLDER, tmp_path / "model", ignore=shutil.ignore_patterns("references", "b*")))
    weights = (folder / "image.onnx").read_bytes()
    (folder / "image.onnx").write_bytes(weights[: len(weights) // 2])
    index = VideoIndex.open(tmp_path / "index", load_encoder(f"mini:{folder}"))
    events: list[Event] = []
    with pytest.raises(EncoderError, match=r"image\.onnx cannot be opened"):
        events.extend(index.add([films]))
    assert not [event for event in events if isinstance(event, VideoFailed | VideoStarted)]
    (folder / "image.onnx").write_bytes(weights)
    assert one(index.add([films / "a.mp4"]), VideoDone).path.name == "a.mp4"

    class Broken(TinyEncoder):
        def encode_images(self, images: Any) -> Any:
            raise RuntimeError("out of memory")

    with pytest.raises(EncoderError, match=r"out of memory.*no video was read"):
        list(VideoIndex.open(tmp_path / "other", Broken()).add([films]))


def test_the_last_event_comes_when_all_is_recorded_and_the_lock_is_free(films: Path, index: VideoIndex) -> None:
    for event in index.add([films]):
        locked = is_locked(index.path)
        assert locked != isinstance(event, IndexDone)
        if not locked:
            assert read_checksums(index.path)
            assert not (index.path / "writing.json").exists()


def test_stopping_early_keeps_what_was_committed(films: Path, index: VideoIndex) -> None:
    run = index.add([films])
    for event in run:
        if isinstance(event, VideoDone):
            break
    run.close()
    assert names(index) == ["a.mp4"]
    assert [event.path.name for event in index.add([films]) if isinstance(event, VideoDone)] == ["b.mp4", "c.mp4"]


def test_files_are_indexed_again_with_other_settings(films: Path, index: VideoIndex) -> None:
    list(index.add([films]))
    finer = Settings(decode=DecodeSettings(fps=8))
    again = VideoIndex.open(index.path, TinyEncoder(), settings=finer)
    assert one(again.add([films / "a.mp4"]), VideoDone).samples == 8
    assert index.manifest.decode.fps == 8
    kept = VideoIndex.open(index.path, TinyEncoder())  # without settings: the index's own apply
    assert [event.path.name for event in kept.add([films]) if isinstance(event, VideoDone)] == ["b.mp4", "c.mp4"]


def test_whole_numbers_of_settings_may_have_been_part_of_an_id_without_a_point(films: Path, index: VideoIndex) -> None:
    """Version 0.1.0 took `fps = 8` of a settings file as 8, and 8.0 as 8.0; both are the same setting."""
    list(index.add([films / "a.mp4"]))
    (record,) = index.videos()
    manifest = dataclasses.replace(index.manifest, decode=DecodeSettings(fps=8))
    cut = manifest.index.cut_threshold
    for numbers in (f"8, 2.0, {cut}", f"8.0, 2.0, {cut}", f"8, 2, {cut}"):
        text = f"{record.content_hash} ({numbers}, 'squash') {manifest.encoder_fingerprint}"
        old = dataclasses.replace(record, revision=blake2b_hex(text, size_bytes=8))
        assert is_current(old, manifest)
        assert not is_current(old, index.manifest)


def test_neighbours_added_equal_neighbours_searched_again(films: Path, tmp_path: Path) -> None:
    encoder = AugmentedEncoder(TinyEncoder(), colour_set(), Vanilla(VanillaSettings(k=3, tau=0.1)))
    added = VideoIndex.open(tmp_path / "one", encoder)
    list(added.add([films]))
    later = VideoIndex.open(tmp_path / "two", TinyEncoder())
    list(later.add([films]))
    later.use_references(colour_set(), VanillaSettings(k=3, tau=0.1))
    one_blend, two_blend = (load_snapshot(Store(index.path)).blend for index in (added, later))
    assert one_blend is not None
    assert two_blend is not None
    assert np.array_equal(one_blend.ids, two_blend.ids)
    for name in ("img", "txt", "norm"):
        assert np.allclose(getattr(one_blend, name), getattr(two_blend, name), atol=1e-6)
    later.use_references(None)
    assert not [name for name in Store(later.path).table_names() if name.startswith(NEIGHBOURS_PREFIX)]
    assert not list((later.path / "references").iterdir())


class LongFilm:
    """A decoder of one film with very many segments, and one that breaks off."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> LongFilm:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def decode(self, paths: Iterable[Path]) -> Iterator[DecodedSegment | DecodeFinished | DecodeFailed]:
        images = [solid(colour, size=(8, 8)) for colour in ("red", "green", "blue")]
        for path in paths:
            for i in range(9_000):
                yield DecodedSegment(path, i / 4, (i + 1) / 4, 1, images[i // 1000 % 3])
            if path.stem == "broken":
                yield DecodeFailed(path, "the decoder crashed with SIGSEGV")
            else:
                info = VideoInfo(2250.0, 8, 8, "h264", "mp4", 25.0)
                steps = tuple(Step(time_s - 0.04, time_s, 170.0, 0.0) for time_s in range(250, 2250, 250))
                yield DecodeFinished(path, info, 9_000, "stopped at 2250.0 s", steps=steps)


def test_a_long_film_is_written_in_parts_and_a_broken_one_leaves_nothing(
    tmp_path: Path, index: VideoIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "Decoder", LongFilm)
    for name in ("broken.mp4", "long.mp4"):
        (tmp_path / name).write_text(name)
    events = list(index.add([tmp_path / "broken.mp4", tmp_path / "long.mp4"]))
    assert one(events, VideoFailed).reason == "the decoder crashed with SIGSEGV"
    done = one(events, VideoDone)
    assert (done.segments, done.scenes, done.problem) == (9_000, 9, "stopped at 2250.0 s")
    assert index.videos()[0].status == "partial"
    rows = Store(index.path).read(SEGMENTS)
    assert rows.num_rows == 9_000
    assert Store(index.path).table(SEGMENTS).stats()["fragment_stats"]["num_fragments"] == 3
    hit = index.search(text="green", group="scene", top=1)[0]
    assert (hit.start_s, hit.end_s) == (250, 500)


class OddFilms:
    """A decoder whose files have impossible numbers, in the place of `impart.video.decode.decoder.Decoder`."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> OddFilms:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def decode(self, paths: Iterable[Path]) -> Iterator[DecodedSegment | DecodeFinished | DecodeFailed]:
        image = solid("red", size=(8, 8))
        info = VideoInfo(1.0, 8, 8, "h264", "mp4", 25.0)
        for path in paths:
            weights = {"a weight": [10**10], "a sum": [2**31 - 1] * 3, "fine": [4]}[path.stem]
            for i, weight in enumerate(weights):
                yield DecodedSegment(path, i / 4, (i + 1) / 4, weight, image)
            yield DecodeFinished(path, info, sum(weights))


def test_what_one_video_raises_is_its_own_failure(
    tmp_path: Path, index: VideoIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "Decoder", OddFilms)
    for name in ("a sum.mp4", "a weight.mp4", "fine.mp4"):
        (tmp_path / name).write_text(name)
    events = list(index.add([tmp_path / "a sum.mp4", tmp_path / "a weight.mp4", tmp_path / "fine.mp4"]))
    failed = {event.path.stem: event.reason for event in events if isinstance(event, VideoFailed)}
    assert failed.keys() == {"a sum", "a weight"}
    assert all("OverflowError" in reason for reason in failed.values())
    assert names(index) == ["fine.mp4"]
    assert Store(index.path).read(SEGMENTS).num_rows == 1
    assert one(events, IndexDone).failed == 2


def test_a_camera_clock_that_was_set_late_costs_nothing(tmp_path: Path, index: VideoIndex) -> None:
    years_s = 30 * 365 * 86_400.0
    images = [solid(colour) for colour in ("red", "red", "blue", "blue")]
    write_frames(tmp_path / "a.mkv", images, times_s=[0.0, 1.0, years_s, years_s + 1], last_s=1.0)
    write_clip(tmp_path / "b.mp4", colours=["green"])
    done = one(index.add([tmp_path]), IndexDone)
    assert (done.added, done.failed, done.partial) == (2, 0, 0)
    hit = index.search(text="blue", group="frame", by="moment", top=1)[0]
    assert hit.path.name == "a.mkv"
    assert hit.start_s < 5


def test_a_sound_recording_is_remembered_and_no_failure(tmp_path: Path, index: VideoIndex) -> None:
    write_audio(tmp_path / "podcast.mp4")
    write_clip(tmp_path / "film.mp4")
    events = list(index.add([tmp_path]))
    assert one(events, VideoAbsent).reason == "has sound but no image"
    done = one(events, IndexDone)
    assert (done.added, done.no_video, done.all_failures) == (1, 1, 0)
    again = list(index.add([tmp_path]))
    assert kinds(again) == ["ScanDone", "IndexDone"]
    assert (one(again, IndexDone).no_video, one(again, IndexDone).skipped) == (1, 0)
    stats = index.stats()
    assert (stats.failures, stats.no_video) == (0, 1)


def test_another_stream_is_indexed_anew(tmp_path: Path) -> None:
    film = write_clip(tmp_path / "film.mp4")
    folder = tmp_path / "index"
    assert one(VideoIndex.open(folder, TinyEncoder()).add([film]), IndexDone).added == 1
    second = Settings(decode=DecodeSettings(stream=2))
    done = one(VideoIndex.open(folder, TinyEncoder(), settings=second).add([film]), VideoDone)
    assert done.notes == ("has 1 video stream: stream 2 was asked for, the best one is taken",)
    assert one(VideoIndex.open(folder, TinyEncoder()).add([film]), IndexDone).unchanged == 1
    assert VideoIndex.open(folder).manifest.decode.stream == 2


def test_ten_thousand_unchanged_files_take_about_a_second(tmp_path: Path) -> None:
    from impart.video.index.store import VideoRecord, path_id, revision_of

    index = VideoIndex.open(tmp_path / "index", TinyEncoder())
    list(index.add([]))
    manifest = index.manifest
    for i in range(100):
        folder = tmp_path / "films" / f"{i:02d}"
        folder.mkdir(parents=True)
        for j in range(100):
            (folder / f"{j:02d}.mp4").touch()
    shared: dict[str, Any] = dict.fromkeys(("width", "height", "samples", "segments"), 1)
    shared |= {"codec": "", "container": "", "fps": 1.0, "duration_s": 1.0, "problem": None, "indexed_at": 0.0}
    videos = [
        VideoRecord(
            video_id=path_id(file.path),
            revision=revision_of("c", manifest),
            path=file.path,
            size_bytes=file.size_bytes,
            mtime_ns=file.mtime_ns,
            content_hash="c",
            scene_starts=(0,),
            **shared,
        )
        for file in scan([tmp_path / "films"]).files
    ]
    began = time.process_time()
    found = scan([tmp_path / "films"])
    made = plan.make_plan(found, videos=videos, failures={}, manifest=manifest, request=plan.Request(prune=True))
    assert time.process_time() - began < 2.0
    assert (made.files, made.unchanged, made.empty) == (10_000, 10_000, True)


def test_scan_order_suffixes_and_explicit_files(tmp_path: Path) -> None:
    (tmp_path / "B").mkdir()
    for name in ("B/2.MKV", "B/1.mp4", "a.webm", "c.txt", "program.ts", ".hidden.mp4"):
        (tmp_path / name).write_text("import x from 'y'\n" * 30)
    packets = (b"\x47" + bytes(187)) * 3
    (tmp_path / "recording.ts").write_bytes(packets)
    found = scan([tmp_path, tmp_path / "c.txt", tmp_path / "B"])
    assert [str(file.path.relative_to(tmp_path)) for file in found.files] == [
        "B/1.mp4",
        "B/2.MKV",
        "a.webm",
        "c.txt",
        "recording.ts",
    ]
    assert found.problems == []


def test_names_of_undecodable_bytes_are_indexed(tmp_path: Path, index: VideoIndex) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    clip = write_clip(tmp_path / "x.mp4", colours=["red"])
    try:
        clip.rename(tmp_path / name)
    except OSError:
        pytest.skip("this file system takes only text for names")
    list(index.add([tmp_path]))
    assert index.search(text="red")[0].path == tmp_path / name


def test_content_hash_depends_on_size_ends_and_samples(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    raw = bytearray(rng.integers(0, 256, 5_000_000, dtype=np.uint8).tobytes())
    path = tmp_path / "x"

    def digest(content: bytes) -> str:
        path.write_bytes(content)
        return content_hash(path)

    whole = digest(raw)
    assert digest(raw) == whole
    assert digest(raw[:-1]) != whole
    for at in (0, len(raw) - 1, len(raw) * 7 // 15):
        changed = bytearray(raw)
        changed[at] ^= 1
        assert digest(changed) != whole
    assert digest(b"") != digest(b"a") != digest(b"b")


def test_removed_event_names_the_file(films: Path, index: VideoIndex) -> None:
    list(index.add([films]))
    (films / "c.mp4").unlink()
    assert one(index.add([films], prune=True), VideoRemoved).path == films / "c.mp4"


def test_a_file_that_comes_back_as_it_was_is_no_failure(films: Path, index: VideoIndex) -> None:
    list(index.add([films]))
    path = sorted(films.rglob("*.mp4"))[0]
    status, whole = path.stat(), path.read_bytes()
    path.write_bytes(b"no video")
    list(index.add([films]))
    assert [record.path for record in index.failures()] == [path]
    path.write_bytes(whole)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    list(index.add([films]))
    assert not index.failures()


def test_a_pipe_a_socket_and_a_device_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(tmp_path / "socket.mp4"))
        found = scan([tmp_path / "pipe.mp4", tmp_path / "socket.mp4", "/dev/null", tmp_path])
    assert found.files == []
    assert [reason.split(":")[0] for _, reason in found.problems] == ["is a pipe", "is a socket", "is a device"]


def test_a_file_has_one_path_on_a_disk_that_ignores_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    films = tmp_path / "Films"
    films.mkdir()
    (films / "Clip.MP4").touch()
    (films / "clip 2.mp4").touch()
    (films / "CLIP 2.mp4").touch()  # this disk distinguishes case: two files
    assert len(scan([films, films / "CLIP 2.mp4"]).files) == 3
    for folder, name, other in ((films, "Clip.MP4", "clip.mp4"), (tmp_path, "Films", "FILMS")):
        for spelled in (other, other.swapcase(), name.swapcase()):  # now it does not: links stand for other spellings
            if not (folder / spelled).exists():
                (folder / spelled).symlink_to(folder / name)
    listed = os.listdir
    monkeypatch.setattr(
        os, "listdir", lambda path: [name for name in listed(path) if not (Path(path) / name).is_symlink()]
    )
    assert absolute(films / "clip.mp4") == films / "Clip.MP4"
    assert as_listed(tmp_path / "FILMS" / "clip.mp4") == films / "Clip.MP4"
    assert absolute(films / "gone.mp4") == films / "gone.mp4"


def test_a_renamed_spelling_is_a_move(films: Path, index: VideoIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    list(index.add([films]))
    (films / "a.mp4").rename(films / "A.mp4")
    (films / "a.mp4").symlink_to(films / "A.mp4")  # on a disk that ignores case, the old path still exists
    real = plan.as_listed
    monkeypatch.setattr(plan, "as_listed", lambda path: films / "A.mp4" if path.name == "a.mp4" else real(path))
    found = scan([films])
    found.files = [file for file in found.files if file.path.name != "a.mp4"]
    made = plan.make_plan(found, videos=index.videos(), failures={}, manifest=index.manifest, request=plan.Request())
    assert [(task.action, task.file.path.name) for task in made.tasks] == [("move", "A.mp4")]
