"""`watch` with the real watchfiles: what arrives is indexed, whatever the system's events say."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from helpers.clips import write_clip
from helpers.tiny_encoder import TinyEncoder
from impart.errors import ConfigError, EncoderError
from impart.video.index.durable.lock import write_lock
from impart.video.index.events import (
    IndexDone,
    RunPaused,
    ScanDone,
    VideoDone,
    VideoFailed,
    VideoMoved,
    VideoRemoved,
    VideoStarted,
)
from impart.video.index.index import VideoIndex
from impart.video.index.pause import is_paused, pause, resume
from impart.video.index.watch.events import FileGrows, IndexBusy, RunFailed, Watching
from impart.video.index.watch.watcher import WatchSettings, watch

FAST: dict[str, Any] = {"quiet_s": 0.4, "longest_s": 5.0, "busy_s": 0.3, "check_s": 0.2, "interval_s": 600.0}
"""No scan is due while a test runs: only events, and the check of the folders, can find something."""


class Running:
    """A watch in a thread, with the events that it has yielded so far."""

    def __init__(self, index: VideoIndex, folders: list[Path], **keywords: Any) -> None:
        self.events: list[Any] = []
        self.stop = threading.Event()
        self.error: BaseException | None = None
        settings = WatchSettings(**FAST | keywords.pop("settings", {}))
        self._steps = watch(index, folders, stop=self.stop, settings=settings, **keywords)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for event in self._steps:
                self.events.append(event)
        except BaseException as error:  # noqa: BLE001 - shown by `until`
            self.error = error

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def indexed(self) -> list[str]:
        return [event.path.name for event in self.of(VideoDone)]

    def until(self, reached: Callable[[], Any], *, seconds: float = 20.0) -> None:
        end_s = time.monotonic() + seconds
        while not reached():
            assert self.error is None, self.error
            assert time.monotonic() < end_s, self.events
            time.sleep(0.02)

    def ended(self) -> bool:
        self._thread.join(20)
        return not self._thread.is_alive()


@contextmanager
def watching(index: VideoIndex, *folders: Path, **keywords: Any) -> Iterator[Running]:
    running = Running(index, list(folders), **keywords)
    try:
        yield running
    finally:
        running.stop.set()
        assert running.ended()


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    return folder


@pytest.fixture
def index(tmp_path: Path) -> VideoIndex:
    return VideoIndex.open(tmp_path / "library.impart", TinyEncoder())


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", colours=["red"], seconds_each=0.5)


def first_run_done(running: Running) -> None:
    running.until(lambda: running.of(IndexDone))


def test_what_is_there_and_what_arrives_is_indexed(index: VideoIndex, films: Path, clip: Path) -> None:
    shutil.copy(clip, films / "before.mp4")
    with watching(index, films) as running:
        first_run_done(running)
        running.until(lambda: running.indexed() == ["before.mp4"])
        write_clip(films / "new.mp4", colours=["blue"], seconds_each=0.5)
        running.until(lambda: running.indexed() == ["before.mp4", "new.mp4"])
        running.until(lambda: len(running.of(IndexDone)) == 2)
    assert [record.path.name for record in index.videos()] == ["before.mp4", "new.mp4"]


def test_a_folder_moved_in_is_found_though_its_files_are_never_named(
    index: VideoIndex, films: Path, tmp_path: Path
) -> None:
    (tmp_path / "trip" / "day").mkdir(parents=True)
    write_clip(tmp_path / "trip" / "day" / "deep.mp4", seconds_each=0.5)
    with watching(index, films) as running:
        first_run_done(running)
        (tmp_path / "trip").rename(films / "trip")
        running.until(lambda: running.indexed() == ["deep.mp4"])


def test_a_file_replaced_in_place_is_indexed_again(index: VideoIndex, films: Path, clip: Path, tmp_path: Path) -> None:
    shutil.copy(clip, films / "a.mp4")
    with watching(index, films) as running:
        first_run_done(running)
        running.until(lambda: running.indexed() == ["a.mp4"])
        write_clip(tmp_path / "other.mp4", colours=["blue", "green"], seconds_each=0.5).replace(films / "a.mp4")
        running.until(lambda: len(running.of(VideoDone)) == 2)
        assert running.of(VideoDone)[1].replaced


def test_a_root_made_anew_is_watched_again(index: VideoIndex, films: Path, clip: Path) -> None:
    with watching(index, films) as running:
        first_run_done(running)
        shutil.rmtree(films)
        films.mkdir()
        time.sleep(1)
        shutil.copy(clip, films / "anew.mp4")
        running.until(lambda: running.indexed() == ["anew.mp4"])
        shutil.copy(clip.with_name("clip.mp4"), films / "more.mp4")
        running.until(lambda: len(running.of(IndexDone)) >= 3)


def test_a_disk_that_comes_later_and_comes_back_is_found(index: VideoIndex, tmp_path: Path, clip: Path) -> None:
    away, disk = tmp_path / "away", tmp_path / "disk"
    away.mkdir()
    shutil.copy(clip, away / "a.mp4")
    with watching(index, disk) as running:
        running.until(lambda: running.events)
        assert running.events[0] == Watching(folders=(), missing=(disk,))
        away.rename(disk)
        running.until(lambda: running.indexed() == ["a.mp4"])
        disk.rename(away)
        running.until(lambda: running.of(Watching)[-1].missing == (disk,))
        write_clip(away / "b.mp4", colours=["blue"], seconds_each=0.5)
        away.rename(disk)
        running.until(lambda: running.indexed() == ["a.mp4", "b.mp4"])
    assert len(index.videos()) == 2


def test_a_file_that_grows_waits_until_it_is_complete(index: VideoIndex, films: Path, tmp_path: Path) -> None:
    content = write_clip(tmp_path / "long.mp4", colours=["red", "blue"], seconds_each=2).read_bytes()
    with watching(index, films, settings={"quiet_s": 0.6, "longest_s": 1.0}) as running:
        first_run_done(running)
        shutil.copy(tmp_path / "long.mp4", films / "complete.mp4")
        with (films / "grows.mp4").open("wb") as file:
            for number in range(20):
                file.write(content[number * len(content) // 20 : (number + 1) * len(content) // 20])
                file.flush()
                time.sleep(0.25)
            assert "grows.mp4" not in running.indexed()
            assert running.indexed() == ["complete.mp4"], "a file that grows must not hold back the others"
        running.until(lambda: len(running.events) and len(index.videos()) == 2)
        assert not running.of(VideoFailed)
        assert [event.path.name for event in running.of(FileGrows)] == ["grows.mp4"]
    assert all(record.problem is None for record in index.videos())


def test_a_file_that_is_renamed_is_moved_also_when_pruning(index: VideoIndex, films: Path, clip: Path) -> None:
    shutil.copy(clip, films / "old.mp4")
    write_clip(films / "stays.mp4", colours=["blue"], seconds_each=0.5)
    with watching(index, films, prune=True) as running:
        running.until(lambda: sorted(running.indexed()) == ["old.mp4", "stays.mp4"])
        (films / "old.mp4").rename(films / "new.mp4")
        running.until(lambda: running.of(VideoMoved))
        assert not running.of(VideoRemoved)
        assert len(running.indexed()) == 2, "nothing is decoded again"
        (films / "new.mp4").unlink()
        running.until(lambda: running.of(VideoRemoved))
    assert not any(event.ignored for event in running.of(ScanDone)), "a file that waits is not left out"


def test_another_writer_is_waited_for_and_named_once(index: VideoIndex, films: Path, clip: Path) -> None:
    shutil.copy(clip, films / "a.mp4")
    list(index.add([films]))
    with watching(index, films) as running:
        first_run_done(running)
        with write_lock(index.path):
            write_clip(films / "b.mp4", colours=["blue"], seconds_each=0.5)
            running.until(lambda: running.of(IndexBusy))
            time.sleep(1)
        running.until(lambda: running.indexed() == ["b.mp4"])
        assert len(running.of(IndexBusy)) == 1


def test_stop_lets_the_video_in_progress_commit(films: Path, tmp_path: Path) -> None:
    entered, go_on = threading.Event(), threading.Event()

    class Slow(TinyEncoder):
        def encode_images(self, images):  # type: ignore[no-untyped-def]
            if len(images) > 1:
                entered.set()
                go_on.wait(20)
            return super().encode_images(images)

    for name in ("a.mp4", "b.mp4", "c.mp4"):
        write_clip(films / name, colours=["red", {"a": "blue", "b": "green", "c": "cyan"}[name[0]]], seconds_each=1)
    index = VideoIndex.open(tmp_path / "library.impart", Slow())
    running = Running(index, [films])
    running.until(lambda: running.of(VideoStarted) and entered.is_set())
    running.stop.set()
    go_on.set()
    assert running.ended()
    assert running.error is None
    assert running.indexed() == ["a.mp4"]
    assert [record.path.name for record in index.videos()] == ["a.mp4"]
    assert len([event for event in index.add([films]) if isinstance(event, VideoDone)]) == 2


def test_nothing_is_removed_without_prune(index: VideoIndex, films: Path, clip: Path) -> None:
    for name, colour in (("a.mp4", "red"), ("b.mp4", "blue")):
        write_clip(films / name, colours=[colour], seconds_each=0.5)
    with watching(index, films) as running:
        running.until(lambda: len(running.indexed()) == 2)
        first_run_done(running)
        (films / "a.mp4").unlink()
        time.sleep(1.5)
        assert len(running.of(IndexDone)) == 1
    assert len(index.videos()) == 2
    with watching(index, films, prune=True) as running:
        running.until(lambda: running.of(VideoRemoved))
        first_run_done(running)
        write_clip(films / "c.mp4", colours=["green"], seconds_each=0.5)
        running.until(lambda: "c.mp4" in running.indexed())
        (films / "b.mp4").unlink()
        running.until(lambda: len(running.of(VideoRemoved)) == 2)


def test_the_index_in_the_watched_folder_causes_no_runs(films: Path, clip: Path) -> None:
    index = VideoIndex.open(films / "library.impart", TinyEncoder())
    shutil.copy(clip, films / "a.mp4")
    with watching(index, films) as running:
        first_run_done(running)
        time.sleep(2)
        assert len(running.of(IndexDone)) == 1


def test_a_file_that_cannot_be_read_is_not_tried_at_every_hint(index: VideoIndex, films: Path, clip: Path) -> None:
    (films / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(2000))
    with watching(index, films) as running:
        first_run_done(running)
        failures = len(running.of(VideoFailed))
        assert failures == 1
        (films / "note.txt").write_text("a hint", encoding="utf-8")
        time.sleep(1.5)
        assert len(running.of(VideoFailed)) == 1
        shutil.copy(clip, films / "a.mp4")
        running.until(lambda: running.indexed() == ["a.mp4"])
        assert len(running.of(VideoFailed)) == 1


@pytest.mark.parametrize("events", [True, False])
def test_without_events_regular_scans_find_it(
    index: VideoIndex, films: Path, clip: Path, events: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_watches(*_: object, **__: object) -> Iterator[object]:
        raise OSError("OS file watch limit reached")
        yield

    monkeypatch.setattr("watchfiles.watch", no_watches)
    with watching(index, films, settings={"events": events, "interval_s": 0.5}) as running:
        first_run_done(running)
        problem = running.of(Watching)[-1].problem
        assert (problem is not None and "limit" in problem) == events
        shutil.copy(clip, films / "a.mp4")
        running.until(lambda: running.indexed() == ["a.mp4"])


def test_an_error_of_a_later_run_is_an_event_and_of_the_first_one_an_error(
    index: VideoIndex, films: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with watching(index, films, settings={"interval_s": 1.0}) as running:
        first_run_done(running)
        original = VideoIndex.add

        def fails(self: VideoIndex, *_: object, **__: object) -> Iterator[object]:
            monkeypatch.setattr(VideoIndex, "add", original)
            raise EncoderError("the model is gone")
            yield

        monkeypatch.setattr(VideoIndex, "add", fails)
        shutil.copy(clip, films / "a.mp4")
        running.until(lambda: running.of(RunFailed))
        running.until(lambda: running.indexed() == ["a.mp4"])
    monkeypatch.setattr(VideoIndex, "add", fails)
    with pytest.raises(EncoderError):
        list(watch(index, [films], stop=threading.Event()))


def test_an_index_that_goes_away_is_not_made_anew_and_is_used_when_it_is_back(
    index: VideoIndex, films: Path, clip: Path, tmp_path: Path
) -> None:
    shutil.copy(clip, films / "a.mp4")
    list(index.add([films]))
    with watching(index, films, settings={"interval_s": 1.0}) as running:
        first_run_done(running)
        index.path.rename(tmp_path / "away")
        write_clip(films / "b.mp4", colours=["blue"], seconds_each=0.5)
        running.until(lambda: any("is gone" in event.reason for event in running.of(RunFailed)))
        time.sleep(1.5)
        assert not index.path.exists()
        (tmp_path / "away").rename(index.path)
        running.until(lambda: running.indexed() == ["b.mp4"])
    assert len(index.videos()) == 2


def test_a_file_is_refused_and_times_are_positive(index: VideoIndex, clip: Path) -> None:
    with pytest.raises(ConfigError, match="impart index"):
        list(watch(index, [clip], stop=threading.Event()))
    with pytest.raises(ConfigError, match="interval_s"):
        WatchSettings(interval_s=0)


def test_a_paused_index_makes_the_run_wait_and_it_can_be_stopped(index: VideoIndex, films: Path, clip: Path) -> None:
    list(index.add([]))
    assert not resume(index.path)
    pause(index.path)
    assert index.stats().paused
    shutil.copy(clip, films / "a.mp4")
    with watching(index, films) as running:
        running.until(lambda: running.of(RunPaused))
        assert running.indexed() == []
        assert resume(index.path)
        running.until(lambda: running.indexed() == ["a.mp4"])
    pause(index.path)
    write_clip(films / "b.mp4", colours=["blue"], seconds_each=0.5)
    with watching(index, films) as running:
        running.until(lambda: running.of(RunPaused))
    assert is_paused(index.path)
    assert len(index.videos()) == 1
