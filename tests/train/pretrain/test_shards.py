"""Streaming of shards finds the images that were listed, whatever the dots of their keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.shards import write_shard
from impart.train.prepare.pairs import Failures, list_images
from impart.train.pretrain.shards import ShardReader, shards_of
from impart.train.settings import PairsFrom

PNG = b"\x89PNG"


@pytest.mark.parametrize("name", ["IMG.{n:04}.png", "{n:04}.image.png", "./{n:04}.png", "a.b/{n}.PNG"])
def test_every_listed_image_is_streamed(name: str, tmp_path: Path) -> None:
    pytest.importorskip("webdataset", reason="training needs the extra `train`")
    numbers = range(1, 6)
    for shard in range(2):
        members = [(name.format(n=n), PNG + bytes([shard, n])) for n in numbers]
        texts = [(f"{name.format(n=n).rpartition('.')[0].removesuffix('.image')}.txt", b"a dog") for n in numbers]
        write_shard(tmp_path / f"{shard}.tar", [*members, *texts])
    images = list_images([PairsFrom(path=".")], tmp_path, Failures())
    shards, rows = shards_of([image.pair.image_key for image in images])
    failures: list[tuple[str, str]] = []
    reader = ShardReader(
        shards, rows, number=0, readers=1, shuffle=1, seed=0, on_failure=lambda *failure: failures.append(failure)
    )
    stream = reader.samples(0)
    found = dict(next(stream) for _ in images)
    assert len(images) == 10
    assert found == {row: image.pair.image() for row, image in enumerate(images)}  # type: ignore[operator]
    assert failures == []
