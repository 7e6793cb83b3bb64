"""Which files a scan takes: by suffix, else by content; what it leaves out is counted. For photos: test_photos.py."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from helpers import clips
from helpers.tiny_encoder import TinyEncoder
from impart.video.decode import content
from impart.video.decode.content import PHOTO_SUFFIXES
from impart.video.index.events import IndexDone, PathIgnored, ScanDone
from impart.video.index.files import scan as module
from impart.video.index.files.scan import OTHER_SUFFIXES, OUTSIDE, VIDEO_SUFFIXES, scan
from impart.video.index.index import VideoIndex

PACKETS = np.full((8, 188), 200, np.uint8)
PACKETS[:, 0] = 0x47


def names(folder: Path, **options: object) -> list[str]:
    return [file.path.relative_to(folder).as_posix() for file in scan([folder], **options).files]


def test_no_suffix_is_both():
    assert not VIDEO_SUFFIXES & OTHER_SUFFIXES
    assert not {".ts", ".mod", ".png", ".webp", ".avif", ".heic", ".dat"} & (VIDEO_SUFFIXES | OTHER_SUFFIXES)
    assert not PHOTO_SUFFIXES & (VIDEO_SUFFIXES | OTHER_SUFFIXES)


def test_shapes_of_ts_files(tmp_path):
    shapes = {
        "plain": PACKETS.tobytes(),
        "cut": PACKETS.tobytes()[100:],
        "with_times": b"".join(bytes(4) + packet.tobytes() for packet in PACKETS),
        "with_parity": b"".join(packet.tobytes() + bytes(16) for packet in PACKETS),
        "fragmented_mp4": b"\x00\x00\x00\x18ftypiso5\x00\x00\x02\x00iso5mp41" + bytes(100),
        "flv": b"FLV\x01\x05\x00\x00\x00\x09" + bytes(100),
        "scrambled": bytes(range(256)) * 4,
    }
    for name, data in shapes.items():
        (tmp_path / f"{name}.ts").write_bytes(data)
    (tmp_path / "index.ts").write_text("export const answer = 42;\n")
    (tmp_path / "empty.ts").touch()
    (tmp_path / "translation.ts").write_text('<?xml version="1.0"?><TS language="de"></TS>')
    found = scan([tmp_path])
    assert {file.path.stem for file in found.files} == shapes.keys()
    assert found.ignored_by_reason() == {".ts": 3}
    assert found.problems == []


def test_suffixes_of_cameras_and_recorders(tmp_path):
    suffixes = """
        mod 3gpp insv 360 lrv dav 264 265 mk3d tp trp dvr-ms vro m4p xvid MP4 dat rec mpeg4 ismv evo braw gifv moov
        2026-01-01
    """
    wanted = sorted(["no_suffix", *(f"a.{suffix}" for suffix in suffixes.split())])
    for name in wanted:
        (tmp_path / name).write_bytes(b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom" + bytes(100))
    assert names(tmp_path) == wanted


def test_what_is_no_video_is_counted_by_suffix(tmp_path):
    for name in ("a.jpg", "b.JPG", "notes.txt", "tune.mod", "photo.heic", "Makefile", "film.mkv.part"):
        (tmp_path / name).write_bytes(b"text")
    clips.write_clip(tmp_path / "film.mp4", seconds_each=0.2)
    found = scan([tmp_path], photos=False)
    assert [file.path.name for file in found.files] == ["film.mp4"]
    expected = {".jpg": 2, ".txt": 1, ".mod": 1, ".heic": 1, "no suffix": 1, ".part": 1}
    assert found.ignored_by_reason() == expected
    assert next(iter(found.ignored_by_reason())) == ".jpg"  # the most frequent one first


def test_folders_of_storage_systems_are_left_out_unless_given(tmp_path):
    foreign = ["@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", ".Trash-1000"]
    for folder in [*foreign, "films"]:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.mp4").write_bytes(b"x")
    found = scan([tmp_path])
    assert [file.path.parent.name for file in found.files] == ["films"]
    assert found.ignored_by_reason() == {**dict.fromkeys(foreign[:5], 1), "hidden": 1}
    assert names(tmp_path / "#recycle") == ["a.mp4"]


def test_patterns_leave_out_files_and_folders(tmp_path):
    for name in ("a.mp4", "a.proxy.mp4", "old/b.mp4", "new/old/c.mp4", "new/d.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"x")
    assert names(tmp_path, exclude=["*.proxy.mp4", "old"]) == ["a.mp4", "new/d.mp4"]
    assert names(tmp_path, exclude=["new/*"]) == ["a.mp4", "a.proxy.mp4", "old/b.mp4"]
    assert names(tmp_path, exclude=["old/"]) == ["a.mp4", "a.proxy.mp4", "new/d.mp4"]
    assert names(tmp_path, exclude=[f"{tmp_path}/new"]) == ["a.mp4", "a.proxy.mp4", "old/b.mp4"]
    assert scan([tmp_path], exclude=["new"]).ignored == [(str(tmp_path / "new"), "excluded")]
    assert [file.path.name for file in scan([tmp_path / "a.mp4"], exclude=["*"]).files] == ["a.mp4"]  # given by name


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_a_named_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.mp4")
    assert scan([tmp_path]).ignored_by_reason() == {"not a file": 2}


def test_only_files_that_the_suffix_does_not_decide_are_opened(tmp_path, monkeypatch):
    for number in range(2000):
        (tmp_path / f"{number}.jpg").write_bytes(bytes(9000))  # no icon
        (tmp_path / f"{number}.srt").touch()
        (tmp_path / f"{number}.mp4").touch()
    opened: list[Path] = []
    monkeypatch.setattr(module, "content_of", lambda path: opened.append(path) or content.content_of(path))
    (tmp_path / "x.ts").write_text("text")
    began = time.perf_counter()
    found = scan([tmp_path])
    assert time.perf_counter() - began < 5
    assert (len(found.files), found.ignored_by_reason()) == (4000, {".srt": 2000, ".ts": 1})
    assert [path.name for path in opened] == ["x.ts"]


def test_an_index_in_the_folder_is_not_searched_for_videos(tmp_path, tiny: TinyEncoder):
    clips.write_clip(tmp_path / "a.mp4", seconds_each=0.5)
    (tmp_path / "notes.txt").touch()
    index = VideoIndex.open(tmp_path / "t.impart", tiny)
    list(index.add([tmp_path]))
    events = list(index.add([tmp_path], exclude=["nothing"], name_ignored=True))
    assert {(event.path.name, event.reason) for event in events if isinstance(event, PathIgnored)} == {
        ("notes.txt", ".txt"),
        ("t.impart", "IMPART folder"),
    }
    done = next(event for event in events if isinstance(event, ScanDone))
    assert dict(done.ignored) == {".txt": 1, "IMPART folder": 1}
    assert next(event for event in events if isinstance(event, IndexDone)).unchanged == 1


def test_a_folder_of_videos_that_has_a_reference_set_is_searched(tmp_path):
    for folder in ("set", "films"):
        (tmp_path / folder).mkdir()
        for name in ("manifest.json", "pairs-0123456789abcdef.arrow"):
            (tmp_path / folder / name).write_text("{}")
    (tmp_path / "films" / "a.mp4").write_bytes(b"video")
    assert names(tmp_path) == ["films/a.mp4"]
    assert scan([tmp_path]).ignored_by_reason() == {"IMPART folder": 1, ".arrow": 1, ".json": 1}


def test_links_that_leave_the_given_folders_are_left_out_and_named(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / f"{folder.name}.mp4").touch()
    (inside / "folder").symlink_to(outside)
    (inside / "file.mp4").symlink_to(outside / "outside.mp4")
    (inside / "same.mp4").symlink_to(inside / "inside.mp4")
    (tmp_path / "link").symlink_to(outside)

    found = scan([inside, outside, tmp_path / "link"], within=[inside])
    assert [file.path.name for file in found.files] == ["inside.mp4", "same.mp4"]
    assert sorted(Path(path).name for path, reason in found.ignored if reason == OUTSIDE) == ["file.mp4", "folder"]
    assert found.problems == [(outside, OUTSIDE), (tmp_path / "link", OUTSIDE)]
    assert len(scan([inside]).files) == 4, "without the limit, links are followed"
