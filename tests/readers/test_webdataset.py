"""Groups of members in shards: keys with dots, extensions of several parts, and both at once."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from helpers.shards import write_shard
from impart.readers.webdataset import group_members, read_shard


@pytest.mark.parametrize(
    ("members", "keys"),
    [
        ("1.jpg 1.txt 2.jpg 2.txt", "1 2"),
        ("1.image.jpg 1.caption.txt 1.seg.png 2.image.jpg 2.caption.txt", "1 2"),
        ("1.image.jpg 1.image.json 1.caption.txt", "1"),
        ("IMG.1.jpg IMG.1.txt IMG.2.jpg IMG.2.txt", "IMG.1 IMG.2"),
        ("IMG.1.jpg IMG.1.caption.txt IMG.2.jpg IMG.2.caption.txt", "IMG.1 IMG.2"),
        ("IMG.1.jpg IMG.1.json IMG.2.jpg IMG.2.json", "IMG.1 IMG.2"),
        ("IMG.1.jpg IMG.2.txt", "IMG.1 IMG.2"),
        ("0.5.jpg 0.5.cls 0.7.jpg 0.7.cls", "0.5 0.7"),
        ("my.photo.cat.jpg my.photo.cat.txt my.photo.dog.jpg my.photo.dog.txt", "my.photo.cat my.photo.dog"),
        ("1.jpg 1.0.txt 1.1.txt", "1"),
        ("1.cam0.jpg 1.cam1.jpg 1.json", "1"),
        ("d.1/a.jpg d.1/a.txt d.2/a.jpg d.2/a.txt", "d.1/a d.2/a"),
        (".hidden.jpg README 1.jpg", "1"),
    ],
)
def test_groups(members: str, keys: str) -> None:
    assert " ".join(group_members(members.split())) == keys


def test_the_image_beside_its_text_or_of_that_name_is_taken(tmp_path: Path) -> None:
    for members, image in (
        (["1.seg.png", "1.image.png", "1.caption.txt"], "1.image.png"),
        (["1.seg.png", "1.png", "1.txt"], "1.png"),
        (["a.left.png", "a.right.png", "a.right.txt"], "a.right.png"),
    ):
        shard = read_shard(write_shard(tmp_path / "a.tar", [(name, b"x") for name in members]))
        assert [sample.path for sample in shard.samples] == [f"a.tar::{image}"]
        assert len(shard.further) == 1


def test_a_hard_link_is_read_as_the_file_that_it_links(tmp_path: Path) -> None:
    with tarfile.open(write_shard(tmp_path / "a.tar", [("1.png", b"image"), ("1.txt", b"one")]), "a") as tar:
        link = tarfile.TarInfo("2.png")
        link.type, link.linkname = tarfile.LNKTYPE, "1.png"
        tar.addfile(link)
        link = tarfile.TarInfo("3.png")
        link.type, link.linkname = tarfile.SYMTYPE, "1.png"
        tar.addfile(link)
    shard = read_shard(tmp_path / "a.tar")
    assert [sample.image() for sample in shard.samples] == [b"image", b"image"]  # type: ignore[misc]
    assert shard.others == {"links": 1}
