"""Export jobs: every form, spans that are left out, limits, cancel, and the folder of finished files."""

from __future__ import annotations

import os
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
from PIL import Image

from helpers.clips import write_clip
from helpers.job_queues import make_queue
from helpers.tiny_encoder import TinyEncoder
from impart.serve.jobs.export_files import ExportFiles
from impart.serve.jobs.job import Job
from impart.serve.jobs.queue import JobQueue
from impart.serve.jobs.refusal import JobRefusedError
from impart.serve.jobs.requests import EXPORT_FORMS, ExportRequest, SpanRequest
from impart.video.index.index import VideoIndex

pytestmark = pytest.mark.timeout(180)
QUICK_S = 45.0


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    for name, colour in (("a", "red"), ("b", "blue"), ("c", "green")):
        write_clip(folder / f"{name}.mp4", colours=[colour, "white"], seconds_each=1.0)
    Image.new("RGB", (320, 240), "yellow").save(folder / "photo.png")
    list(VideoIndex.open(tmp_path / "index", TinyEncoder()).add([folder]))
    return folder


@pytest.fixture
def queue(films: Path, tmp_path: Path) -> Iterator[JobQueue]:
    queue = make_queue(tmp_path / "index", export_hours=0.01, export_spans=20, nice=0)
    yield queue
    queue.close(0.0)


def span(queue: JobQueue, name: str, start_s: float = 0.2, end_s: float = 1.4, label: str = "") -> SpanRequest:
    (video_id,) = [key for key, record in queue._records().items() if record.path.stem == name]
    return SpanRequest(video_id=video_id, start_s=start_s, end_s=end_s, label=label)


def run(queue: JobQueue, form: str, *spans: SpanRequest, **options: str) -> Job:
    job = queue.export(ExportRequest(form=form, spans=spans, **options))  # type: ignore[arg-type]
    assert job.wait(QUICK_S)
    return job


def file_of(queue: JobQueue, job: Job) -> Path:
    found = queue.file_of(job)
    assert found is not None, job.view()
    return found[0]


def test_clips_are_one_archive_of_playable_files(queue: JobQueue) -> None:
    job = run(queue, "clips", span(queue, "b"), span(queue, "a", 0.4, 0.8))
    assert job.status == "done"
    view = job.view()["export"]
    file = file_of(queue, job)
    assert view["file"] == {
        "name": "export.zip", "size_bytes": file.stat().st_size, "media_type": "application/zip", "files": 2
    }  # fmt: skip
    assert view["spans_done"] == view["spans_total"] == 2
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist() == ["001_b_00.00.00.200.mp4", "002_a_00.00.00.400.mp4"]
        assert {item.compress_type for item in archive.infolist()} == {zipfile.ZIP_STORED}
        archive.extractall(file.parent)
    with av.open(str(file.parent / "002_a_00.00.00.400.mp4")) as clip:
        assert len(list(clip.decode(video=0))) == 10
    assert "progress" in [event.kind for event in job.log.after(0) or []]


def test_one_clip_is_no_archive(queue: JobQueue) -> None:
    job = run(queue, "clips", span(queue, "a"))
    assert file_of(queue, job).name == "001_a_00.00.00.200.mp4"


def test_every_form_gives_a_file_named_by_the_title(queue: JobQueue) -> None:
    suffixes = {}
    for form in EXPORT_FORMS:
        job = run(queue, form, span(queue, "a"), span(queue, "b", label="a wall"), title="Walls: red/blue")
        assert job.status == "done", (form, job.view())
        file = file_of(queue, job)
        assert file.stat().st_size == job.view()["export"]["file"]["size_bytes"] > 0
        suffixes[form] = file.suffix
        if form != "clips":
            assert file.stem == "Walls_ red_blue"
    assert suffixes == {
        "clips": ".zip", "reel": ".mp4", "sheet": ".png", "edl": ".edl", "fcp7": ".xml", "fcpxml": ".fcpxml",
        "otio": ".otio", "csv": ".csv", "resolve": ".zip", "chapters": ".zip",
    }  # fmt: skip


def test_handles_are_in_the_timeline(queue: JobQueue) -> None:
    job = run(queue, "csv", span(queue, "a", 0.4, 1.0), handles="5f")
    row = file_of(queue, job).read_text(encoding="utf-8").splitlines()[1].split(",")
    assert row[6:8] == ["5", "30"], "frames 10 to 25, with five on both sides"


def test_spans_of_files_that_are_gone_or_changed_are_left_out_and_named(queue: JobQueue, films: Path) -> None:
    spans = [span(queue, "a"), span(queue, "b"), span(queue, "c"), span(queue, "photo", 0, 0)]
    spans += [SpanRequest(video_id="0" * 16, start_s=0, end_s=1), span(queue, "a", 1.0, 1.0)]
    (films / "b.mp4").unlink()
    write_clip(films / "c.mp4", colours=["black"])
    job = run(queue, "reel", *spans)
    assert job.status == "partly_failed"
    view = job.view()
    assert [one["number"] for one in view["skipped"]] == [2, 3, 4, 5, 6]
    reasons = [one["reason"] for one in view["skipped"]]
    parts = ("is gone", "has changed", "is a photo", "no longer in the index", "not after the start")
    for reason, part in zip(reasons, parts, strict=True):
        assert part in reason
    assert view["skipped_count"] == 5
    with av.open(str(file_of(queue, job))) as reel:
        assert len(list(reel.decode(video=0))) == 30

    sheet = run(queue, "sheet", spans[0], spans[3])
    assert sheet.status == "done", "a sheet shows photos"
    nothing = run(queue, "edl", spans[1])
    assert nothing.status == "failed"
    assert "nothing to export" in nothing.view()["error"]["detail"]
    assert queue.file_of(nothing) is None


def test_too_many_and_too_long_spans_are_refused(queue: JobQueue) -> None:
    one = span(queue, "a")
    with pytest.raises(JobRefusedError, match="export at most 20 at once"):
        queue.export(ExportRequest(form="csv", spans=(one,) * 21))
    long = SpanRequest(video_id=one.video_id, start_s=0.0, end_s=37.0)
    with pytest.raises(JobRefusedError, match=r"export at most 0\.01 hours"):
        queue.export(ExportRequest(form="clips", spans=(long,)))
    with pytest.raises(JobRefusedError):
        queue.export(ExportRequest(form="clips", spans=(one,), handles="18s"))
    assert run(queue, "csv", long).status == "done", "a timeline has no such limit"


def test_cancel_ends_an_export_at_once_and_leaves_no_file(queue: JobQueue, films: Path, tmp_path: Path) -> None:
    write_clip(films / "long.mp4", colours=["red", "blue"] * 10, size=(640, 480))
    list(VideoIndex.open(tmp_path / "index", TinyEncoder()).add([films]))
    job = queue.export(ExportRequest(form="clips", spans=(span(queue, "long", 0, 20),)))
    deadline = time.monotonic() + QUICK_S
    while job.pid is None and time.monotonic() < deadline:
        time.sleep(0.01)
    job.cancel()
    assert job.wait(5)
    assert job.status == "cancelled"
    assert queue.file_of(job) is None
    assert run(queue, "csv", span(queue, "a")).status == "done", "the queue goes on"
    assert len(list((tmp_path / "exports").iterdir())) == 1, "nothing is left of the first"


def test_files_end_with_the_server(queue: JobQueue, tmp_path: Path) -> None:
    job = run(queue, "csv", span(queue, "a"))
    assert file_of(queue, job).is_file()
    queue.close(1.0)
    assert list((tmp_path / "exports").iterdir()) == []


def test_old_and_large_exports_are_deleted(tmp_path: Path) -> None:
    files = ExportFiles(tmp_path, most_mb=1, age_s=100)
    for age_s, name in ((200, "old"), (50, "large"), (20, "newer"), (10, "newest")):
        folder = files.make_folder(name)
        (folder / "file").write_bytes(b"\0" * 400_000)
        os.utime(folder, (time.time() - age_s,) * 2)
    files.keep_within_limits()
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["newer", "newest"]
    files.clear()
    assert list(tmp_path.iterdir()) == []
