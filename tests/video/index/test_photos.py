"""Photos in an index: what a scan takes, batches, changes of files, and what a search shows."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from helpers.clips import write_clip
from helpers.colour_references import colour_set
from helpers.photos import exif, halves, write_animation, write_photo
from helpers.tiny_encoder import COLOURS, TinyEncoder
from impart.blending.encoder import augment
from impart.cli.main import app
from impart.config import EncoderSettings, Settings
from impart.encoders.base import ImageEmbeddings, register
from impart.video.decode.content import ICON
from impart.video.index.events import Event, IndexDone, ScanDone, VideoAbsent, VideoDone, VideoFailed, VideoMoved
from impart.video.index.files.scan import scan
from impart.video.index.index import VideoIndex
from impart.video.index.store import NEIGHBOURS_PREFIX, SEGMENTS, Store
from impart.video.index.writer import Writer

NAMES = ["red", "green", "blue", "yellow", "magenta", "cyan", "white", "black", "grey", "orange"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "library").mkdir()
    return tmp_path / "library"


@pytest.fixture
def index(tmp_path: Path) -> VideoIndex:
    return VideoIndex.open(tmp_path / "index", TinyEncoder())


def one(events: list[Event], kind: type) -> Any:
    (found,) = [event for event in events if isinstance(event, kind)]
    return found


def unlike(number: int) -> Image.Image:
    """Draw an image that no other number has."""
    return halves(NAMES[number % 10], NAMES[number // 3 % 10], size=(64 + number, 48))


def taken(folder: Path, **options: Any) -> list[str]:
    return [file.path.relative_to(folder).as_posix() for file in scan([folder], **options).files]


def test_photos_and_videos_of_a_folder(folder: Path, index: VideoIndex) -> None:
    write_photo(folder / "a.jpg", "red", exif=exif(taken="2024:05:01 12:00:00", offset="+00:00"))
    write_clip(folder / "b.mp4", colours=["blue", "green"])
    write_photo(folder / "c.heic", "yellow")
    write_clip(folder / "c.mov", colours=["cyan"])  # a live photo: both are taken
    write_animation(folder / "d.gif", colours=("white", "black"))
    done = one(list(index.add([folder])), IndexDone)
    assert (done.added, done.photos, done.failed) == (5, 2, 0)
    records = {record.path.name: record for record in index.videos()}
    assert {name: record.kind for name, record in records.items()} == {
        "a.jpg": "photo",
        "b.mp4": "video",
        "c.heic": "photo",
        "c.mov": "video",
        "d.gif": "video",
    }
    photo = records["a.jpg"]
    assert (photo.duration_s, photo.segments, photo.scene_starts, photo.recorded_at) == (0, 1, (0,), 1714564800)
    assert (photo.codec, photo.width, photo.height, photo.fps) == ("jpeg", 64, 48, 0)
    stats = index.stats()
    assert (stats.videos, stats.photos) == (3, 2)
    hit = index.search(text="red", top=1)[0]
    assert (hit.path.name, hit.kind, hit.start_s, hit.end_s, hit.video_s) == ("a.jpg", "photo", 0, 0, 0)
    assert hit.recorded_at == 1714564800
    assert one(list(index.add([folder])), IndexDone).unchanged == 5


def test_what_a_scan_leaves_out(folder: Path) -> None:
    for name in (
        "thumbs",
        "Thumbnails",
        "@eaDir",
        "A.photoslibrary/resources/derivatives",
        "A.photoslibrary/originals",
    ):
        (folder / name).mkdir(parents=True)
        write_photo(folder / name / "x.jpg")
    write_clip(folder / "thumbs" / "film.mp4", seconds_each=0.2)
    write_photo(folder / "icon.png", halves(size=(31, 16)))
    write_photo(folder / "spacer.gif", halves(size=(1, 1)))
    write_photo(folder / "small.png", halves(size=(32, 32)))
    write_photo(folder / "no suffix.png").rename(folder / "no suffix")
    for name in ("a.xmp", "a.aae", "a.jxl", "a.svg", "a.ico", ".hidden.jpg"):
        (folder / name).write_bytes(b"x")
    found = scan([folder])
    names = [file.path.relative_to(folder).as_posix() for file in found.files]
    assert names == ["A.photoslibrary/originals/x.jpg", "no suffix", "small.png", "thumbs/film.mp4"]
    assert found.ignored_by_reason() == {
        "thumbnail": 3,
        ICON: 2,
        "@eaDir": 1,
        ".xmp": 1,
        ".aae": 1,
        ".jxl (cannot be read: save these as JPEG)": 1,
        ".svg": 1,
        ".ico": 1,
        "hidden": 1,
    }


def test_photos_may_be_left_out(folder: Path) -> None:
    write_clip(folder / "a.mp4", seconds_each=0.2)
    for suffix in ("jpg", "png", "heic", "webp", "avif", "gif"):
        write_photo(folder / f"photo.{suffix}")
        if suffix in ("gif", "webp", "avif"):
            write_animation(folder / f"film.{suffix}")
    assert taken(folder, photos=False) == ["a.mp4", "film.avif", "film.gif", "film.webp"]
    assert len(taken(folder)) == 10
    assert [file.path.name for file in scan([folder / "photo.jpg"], photos=False).files] == ["photo.jpg"]


def test_many_photos_are_committed_together(folder: Path, tmp_path: Path) -> None:
    for number in range(30):
        write_photo(folder / f"{number:02}.png", unlike(number))
        if number % 3 == 0:
            size = (160 + 2 * number, 120)
            write_clip(folder / f"{number:02}.mp4", colours=[NAMES[number % 10]], seconds_each=0.2, size=size)
    made = {}
    for batch in (1, 16):
        encoder = augment(TinyEncoder(), colour_set(), k=3)
        settings = Settings(encoder=EncoderSettings(batch=batch))
        index = VideoIndex.open(tmp_path / f"by {batch}", encoder, settings=settings)
        events = list(index.add([folder]))
        assert one(events, IndexDone).photos == 30
        assert [event.kind for event in events if isinstance(event, VideoDone)].count("photo") == 30
        store = Store(index.path)
        by_path = {record.video_id: record.path.name for record in index.videos()}
        tables = [SEGMENTS, *(name for name in store.table_names() if name.startswith(NEIGHBOURS_PREFIX))]
        for table in tables:
            for row in store.read(table).to_pylist():
                kept = {name: value for name, value in row.items() if name not in ("video_id", "revision")}
                made.setdefault((table, by_path[row["video_id"]], row["number"]), []).append(kept)
    assert len(made) == 2 * (30 + 10)
    for alone, together in made.values():
        for name, value in alone.items():
            np.testing.assert_allclose(together[name], value, atol=1e-3, err_msg=name)


def test_photos_that_change(folder: Path, index: VideoIndex, tmp_path: Path) -> None:
    for name in ("changed", "moved", "touched", "gone"):
        write_photo(folder / f"{name}.png", {"changed": "red", "moved": "green", "gone": "blue"}.get(name, "white"))
    list(index.add([folder]))
    before = {record.path.stem: record.video_id for record in index.videos()}
    write_photo(folder / "changed.png", halves("yellow", "yellow", size=(50, 50)))
    (folder / "moved.png").rename(folder / "sub.png")
    os.utime(folder / "touched.png", (1, 1))
    (folder / "gone.png").unlink()
    (folder / "copy.png").write_bytes((folder / "touched.png").read_bytes())
    events = list(index.add([folder], prune=True))
    done = one(events, IndexDone)
    assert (done.added, done.updated, done.moved, done.copied, done.removed, done.unchanged) == (0, 1, 1, 1, 1, 1)
    assert one(events, VideoMoved).path.name == "sub.png"
    after = {record.path.stem: record for record in index.videos()}
    assert {name: record.kind for name, record in after.items()} == dict.fromkeys(
        ("changed", "copy", "sub", "touched"), "photo"
    )
    assert (after["changed"].video_id, after["sub"].video_id) == (before["changed"], before["moved"])
    assert index.search(text="yellow", top=1)[0].path.stem == "changed"
    assert Store(index.path).read(SEGMENTS).num_rows == 4


def test_a_damaged_photo_is_a_failure_and_the_run_goes_on(folder: Path, index: VideoIndex) -> None:
    for number in range(4):
        write_photo(folder / f"{number}.jpg", NAMES[number])
    (folder / "1a.jpg").write_bytes((folder / "1.jpg").read_bytes()[:400])
    (folder / "2a.png").touch()
    write_photo(folder / "icon.png", halves(size=(16, 16)))
    with (folder / "icon.png").open("ab") as file:  # larger than an icon is
        file.write(bytes(9000))
    events = list(index.add([folder]))
    assert {event.path.name for event in events if isinstance(event, VideoFailed)} == {"1a.jpg", "2a.png"}
    assert one(events, VideoAbsent).reason == ICON
    assert (one(events, IndexDone).added, one(events, IndexDone).no_video) == (4, 1)
    again = one(list(index.add([folder])), IndexDone)
    assert (again.unchanged, again.skipped, again.no_video, again.failed) == (4, 2, 1, 0)
    write_photo(folder / "1a.jpg", "cyan")
    assert one(list(index.add([folder])), IndexDone).added == 1


class Picky(TinyEncoder):
    """Fails on a batch with a black image."""

    def encode_images(self, images: Any) -> ImageEmbeddings:
        checked = self.images_encoded == 0  # the blank image before a run
        if not checked and any(np.asarray(image).mean() < 1 for image in images):
            raise RuntimeError("too dark")
        return super().encode_images(images)


def test_an_encoder_that_fails_on_one_photo_fails_that_photo(folder: Path, tmp_path: Path) -> None:
    for name in ("red", "black", "green"):
        write_photo(folder / f"{name}.png", name)
    index = VideoIndex.open(tmp_path / "index", Picky())
    events = list(index.add([folder]))
    assert one(events, VideoFailed).path.name == "black.png"
    assert "too dark" in one(events, VideoFailed).reason
    assert [record.path.stem for record in index.videos()] == ["green", "red"]
    assert Store(index.path).read(SEGMENTS).num_rows == 2


def test_a_run_that_ends_within_a_batch_loses_nothing(
    folder: Path, index: VideoIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        write_photo(folder / f"{number:02}.png", unlike(number))
    commits = 0
    whole = Writer.commit

    def commit(self: Writer, *records: Any) -> None:
        nonlocal commits
        commits += 1
        if commits == 2:
            raise KeyboardInterrupt  # its rows are written, it is not committed
        whole(self, *records)

    monkeypatch.setattr(Writer, "commit", commit)
    with pytest.raises(KeyboardInterrupt):
        list(index.add([folder]))
    monkeypatch.undo()
    first = len(index.videos())
    assert 0 < first < 40
    assert len(index.search(text="red", top=40)) == first
    done = one(list(index.add([folder])), IndexDone)
    assert (done.added, done.unchanged) == (40 - first, first)
    assert Store(index.path).read(SEGMENTS).num_rows == 40


def test_an_image_query_finds_its_photo_with_a_score_of_one(folder: Path, index: VideoIndex) -> None:
    for number in range(6):
        write_photo(folder / f"{number}.jpg", halves(NAMES[number], size=(700 + number, 500)))
    list(index.add([folder]))
    for number in range(6):
        hit = index.search(image=folder / f"{number}.jpg", top=1)[0]
        assert hit.path.name == f"{number}.jpg"
        assert hit.score == pytest.approx(1, abs=1e-3)


def run(*args: object) -> Any:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == 0, result.output
    return result


def test_photos_on_the_command_line(folder: Path, tmp_path: Path) -> None:
    register("tiny", lambda _rest, **_options: TinyEncoder())
    write_photo(folder / "a.jpg", "red", exif=exif(taken="2024:05:01 12:00:00", offset="+00:00"))
    write_photo(folder / "b.png", "green")
    write_clip(folder / "c.mp4", colours=["blue"])
    index = tmp_path / "index"
    assert "1 video, 2 photos" in run("index", folder, "-i", index, "-e", "tiny").stdout
    assert "1 video, 2 photos" in run("stats", "-i", index).stdout
    assert f"{folder / 'a.jpg'}: photo" in run("stats", "-i", index, "--videos").stdout
    listed = [json.loads(line) for line in run("stats", "-i", index, "--videos", "--json").stdout.splitlines()]
    assert [row["kind"] for row in listed] == ["photo", "photo", "video"]
    table = run("search", "red", "-i", index, "-n", 1).stdout
    assert "photo" in table
    assert "00:00" not in table
    (hit,) = json.loads(run("search", "red", "-i", index, "-n", 1, "-f", "jsonl").stdout)["hits"]
    assert hit["kind"] == "photo"
    assert hit["recorded_at"].startswith("2024-05-01T")
    assert "no hits" in run("search", "red", "-i", index, "--min-length", "1h").stdout
    other = tmp_path / "other"
    assert "1 added" in run("index", folder, "-i", other, "-e", "tiny", "--no-photos").stdout


def test_colours_have_names() -> None:
    assert set(NAMES) == set(COLOURS)


def test_the_scan_counts_both_kinds(folder: Path, index: VideoIndex) -> None:
    write_photo(folder / "a.jpg")
    write_clip(folder / "b.mp4", seconds_each=0.2)
    assert one(list(index.add([folder], dry_run=True)), ScanDone).to_add == 2
