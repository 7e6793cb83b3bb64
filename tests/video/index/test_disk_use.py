"""Temporary files of killed runs and replaced files are deleted by later writers."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from helpers.tiny_encoder import DIM, RETRIEVAL_DIM, TinyEncoder
from impart.video.index import writer as writing
from impart.video.index.index import VideoIndex
from impart.video.index.store import SEGMENTS, Store, VideoRecord, path_id
from impart.video.index.writer import SegmentChunk, Writer
from impart.video.integrity import bytes_below

ROWS = 500  # per video: 24 kB


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty index that is compacted early, and whose replaced files are deleted at once, however small."""
    monkeypatch.setattr(writing, "_worth_compacting", lambda stats: stats["fragment_stats"]["num_fragments"] >= 6)
    monkeypatch.setattr(writing, "_KEEP_VERSIONS", timedelta(milliseconds=1))
    monkeypatch.setattr(writing, "_SPARE_BYTES", 0)
    index = VideoIndex.open(tmp_path / "index", TinyEncoder())
    list(index.add([]))
    return Store(index.path)


def add(writer: Writer, numbers: range) -> None:
    for number in numbers:
        path = Path(f"/films/{number}.mp4")
        start_s = np.arange(ROWS) / 4
        chunk = SegmentChunk(
            first=0,
            start_s=start_s,
            end_s=start_s + 0.25,
            weight=np.ones(ROWS, np.int32),
            vectors=np.random.default_rng(number).random((ROWS, DIM)).astype(np.float16),
            retrieval=np.ones((ROWS, RETRIEVAL_DIM), np.float16),
            blend=None,
        )
        record = VideoRecord(
            video_id=path_id(path),
            revision="r",
            path=path,
            size_bytes=1,
            mtime_ns=1,
            content_hash="c",
            duration_s=ROWS / 4,
            width=4,
            height=3,
            codec="h264",
            container="mp4",
            fps=25.0,
            samples=ROWS,
            segments=ROWS,
            scene_starts=(0,),
            problem=None,
            indexed_at=0.0,
        )
        writer.add_segments(record.video_id, "r", chunk)
        writer.commit(record)


def sizes(store: Store) -> tuple[int, int]:
    """Bytes of the data files of `segments` on disk, and of those in force."""
    folder = store.folder / f"{SEGMENTS}.lance"
    return bytes_below(folder / "data"), Store(store.folder).table(SEGMENTS).stats()["total_bytes"]


def test_temporary_files_of_a_killed_run_are_deleted(store: Store) -> None:
    left = [store.folder / f"{SEGMENTS}.lance" / name for name in ("data/.tmpA1b2C3", "_versions/.tmpX", "data/a#1")]
    with Writer(store) as writer:
        add(writer, range(2))
    for file in left:
        file.write_bytes(bytes(1_000_000))
    with Writer(Store(store.folder)):
        assert not [file for file in left if file.exists()]
    assert Store(store.folder).read(SEGMENTS).num_rows == 2 * ROWS


def test_three_runs_with_a_kill_during_compaction_leave_one_copy(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(writer: Writer, name: str) -> None:
        (store.folder / f"{name}.lance" / "data" / ".tmpHalf").write_bytes(bytes(500_000))
        raise Killed

    for run in range(3):
        with monkeypatch.context() as patch, Writer(Store(store.folder)) as writer:
            add(writer, range(run * 10, run * 10 + 8))
            writer.compact()
            add(writer, range(run * 10 + 8, run * 10 + 10))  # too few to be worth a compaction
            if run == 1:
                patch.setattr(Writer, "_optimize", dies)
                with pytest.raises(Killed):
                    writer.compact(last=True)
            else:
                writer.compact(last=True)
    with Writer(Store(store.folder)):
        pass
    on_disk, live = sizes(store)
    assert live > 3 * 10 * ROWS * 2 * DIM
    assert on_disk < 1.05 * live
    assert Store(store.folder).read(SEGMENTS).num_rows == 3 * 10 * ROWS


def test_a_short_run_does_not_rewrite_the_index(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with Writer(Store(store.folder)) as writer:
        add(writer, range(8))
        writer.compact(last=True)
    rewritten: list[str] = []
    for number in range(100, 103):
        with Writer(Store(store.folder)) as writer:
            if number > 100:  # the first writer deletes what the compaction replaced
                monkeypatch.setattr(Writer, "_optimize", lambda writer, name: rewritten.append(name))
            add(writer, range(number, number + 1))
            writer.compact(last=True)
    assert SEGMENTS not in rewritten
