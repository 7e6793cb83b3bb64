"""Damaged sources of pairs: readable pairs are listed, the others are reported with their place."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from helpers.photos import write_photo
from helpers.tiny_encoder import COLOURS, TinyEncoder
from impart.errors import DataError, ReferenceSetError
from impart.images import load_image
from impart.refset.build import Failure
from impart.refset.pairs import Pair, read_pairs
from impart.refset.refset import ReferenceSet

NAMES = ("red", "green", "blue", "white")


def png(colour: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), COLOURS[colour]).save(data, "PNG")
    return data.getvalue()


def write_shard(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def colour_shard(path: Path, *names: str) -> Path:
    return write_shard(path, [part for n in names for part in ((f"{n}.png", png(n)), (f"{n}.txt", n.encode()))])


def test_photos_of_phones_are_read(tmp_path: Path) -> None:
    for suffix in ("heic", "avif", "jp2", "jpg"):
        for name in ("red", "blue"):
            (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
            write_photo(tmp_path / "set" / name / f"{suffix}.{suffix}", name)
    pairs, failures = listed(tmp_path / "set")
    assert (len(pairs), failures) == (8, [])
    references = ReferenceSet.build(pairs, TinyEncoder())
    assert len(references) == 8
    expected = TinyEncoder().encode_images([Image.new("RGB", (64, 48), COLOURS["red"])]).embeddings[0]
    red = references.image_embeddings[[text == "red" for text in references.texts]]
    np.testing.assert_allclose(red @ expected, 1, atol=1e-3)


def listed(path: Path) -> tuple[list[Pair], list[tuple[str, str]]]:
    failures: list[tuple[str, str]] = []
    pairs = list(read_pairs(path, on_failure=lambda name, reason: failures.append((name, reason))))
    return pairs, failures


def test_a_caption_file_is_preferred_to_json_and_json_has_licence_and_source(tmp_path: Path) -> None:
    about = {"title": "by json", "licence": "CC BY 2.0", "source": "yfcc"}
    plain = {"caption": "by json", "license": "CC0"}
    shard = write_shard(
        tmp_path / "a.tar",
        [
            ("1.txt", b"by text"),
            ("1.png", png("red")),
            ("1.json", json.dumps(about).encode()),
            ("2.json", json.dumps(plain).encode()),
            ("2.cls", b"7"),
            ("2.png", png("blue")),
            ("3.cls", b"grass_green"),
            ("3.json", b"[broken"),
            ("3.png", png("green")),
        ],
    )
    found = [(pair.text, pair.licence, pair.source) for pair in read_pairs(shard, source="mine", licence="none")]
    assert found == [("by text", "CC BY 2.0", "yfcc"), ("by json", "CC0", "mine"), ("grass green", "none", "mine")]


@pytest.mark.parametrize("damage", ["cut", "header", "garbage", "empty"])
def test_a_damaged_shard_is_reported_and_the_others_are_read(damage: str, tmp_path: Path) -> None:
    """Cut within its third sample, a header overwritten there, not a tar file, or empty."""
    colour_shard(tmp_path / "0.tar", "red")
    middle = colour_shard(tmp_path / "1.tar", *NAMES)
    colour_shard(tmp_path / "2.tar", "white")
    data = bytearray(middle.read_bytes())
    third = data.index(b"blue.png")
    if damage == "cut":
        data = data[: third + 520]
    elif damage == "header":
        data[third : third + 512] = b"\xff" * 512
    else:
        data = bytearray(b"" if damage == "empty" else b"\x01no tar" * 400)
    middle.write_bytes(data)
    pairs, failures = listed(tmp_path)
    whole = [pair for pair in pairs if pair.text]
    assert [pair.text for pair in whole] == (
        ["red", "red", "green", "white"] if damage in ("cut", "header") else ["red", "white"]
    )
    for pair in whole:
        load_image(pair.image, max_megapixels=1)
    assert [name for name, _ in failures] == [str(middle)]
    assert f"cannot read shard {middle}: " in failures[0][1]
    with pytest.raises(ReferenceSetError, match=r"cannot read shard .*1\.tar"):
        list(read_pairs(tmp_path))


def test_an_image_cut_off_with_its_shard_is_refused_when_read(tmp_path: Path) -> None:
    shard = colour_shard(tmp_path / "a.tar", "red", "blue")
    shard.write_bytes(shard.read_bytes()[: shard.read_bytes().index(b"blue.png") + 530])
    pairs, failures = listed(shard)
    assert [pair.path for pair in pairs] == ["a.tar::red.png", "a.tar::blue.png"]
    assert len(failures) == 1
    with pytest.raises(DataError, match="not a readable image"):
        load_image(pairs[1].image, max_megapixels=1)


def test_a_sample_without_an_image_is_reported(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [("1.txt", b"lost"), ("2.txt", b"red"), ("2.png", png("red"))])
    pairs, failures = listed(shard)
    assert [pair.text for pair in pairs] == ["red"]
    assert failures == [("a.tar::1", "the sample has no image")]


def test_rows_without_an_image_or_text_are_reported_by_their_place(tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(png("red"))
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("file", "text"), ("red.png", "red"), ("", "nothing"), ("red.png", ""), ("red.png",)]
        )
    rows = [
        {"image": png("red"), "text": "red"},
        {"image": None, "text": "nothing"},
        {"image": png("red"), "text": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "b.parquet")
    for table, places in (("a.csv", ["red.png", "a.csv::3"]), ("b.parquet", ["b.parquet::0", "b.parquet::1"])):
        pairs = list(read_pairs(tmp_path / table))
        assert [pair.path for pair in pairs[:2]] == places
        assert {pair.text for pair in pairs[2:]} == {""}
        load_image(pairs[0].image, max_megapixels=1)
        with pytest.raises(DataError, match="the row names no image"):
            load_image(pairs[1].image, max_megapixels=1)


def test_a_damaged_parquet_file_is_reported_and_the_others_are_read(tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        table = pa.Table.from_pylist([{"image": png(name), "text": name}])
        pq.write_table(table, tmp_path / f"{number}.parquet", compression="none")
    one, two = tmp_path / "1.parquet", tmp_path / "2.parquet"
    one.write_bytes(one.read_bytes()[:-6])  # its end, with the schema
    two.write_bytes(b"PAR1" + bytes(60) + two.read_bytes()[64:])  # its data pages
    pairs, failures = listed(tmp_path)
    assert [pair.text for pair in pairs] == ["red", "white"]
    assert [name for name, _ in failures] == [str(one), str(two)]
    with pytest.raises(ReferenceSetError, match=r"cannot read table .*1\.parquet"):
        list(read_pairs(tmp_path))


def test_a_table_without_its_columns_is_an_error_also_with_on_failure(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"a": 1}]), tmp_path / "a.parquet")
    with pytest.raises(ReferenceSetError, match="has no image column"):
        listed(tmp_path)


def test_a_reference_set_is_built_from_the_readable_pairs(tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    colour_shard(shards / "0.tar", "red", "green")
    (shards / "1.tar").write_bytes(b"\x01no tar" * 400)
    failures: list[Failure] = []
    made = ReferenceSet.build(shards, TinyEncoder(), path=tmp_path / "set", on_failure=failures.append)
    assert made.texts == ("red", "green")
    assert made.manifest.failed == 1
    assert [failure.path for failure in failures] == [str(shards / "1.tar")]
    assert "cannot read shard" in (tmp_path / "set" / "failures.csv").read_text()
    with pytest.raises(ReferenceSetError, match=r"no pair .* \(1 failed; the first: .*1\.tar: cannot read shard"):
        ReferenceSet.build(shards / "1.tar", TinyEncoder())
