"""Building from every kind of source, sampling, hold-out, and pairs that cannot be used."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from helpers.tiny_encoder import COLOURS, TinyEncoder
from impart.encoders.base import l2_normalise
from impart.errors import ConfigError, ReferenceSetError
from impart.refset.build import BuildProgress, Selection
from impart.refset.pairs import Columns, read_pairs
from impart.refset.refset import ReferenceSet


def png(name: str, size: int = 6) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), COLOURS[name]).save(buffer, "PNG")
    return buffer.getvalue()


def write_csv(path: Path, rows: list[tuple[str, ...]], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """red.png ... in a folder."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("red", "green", "blue", "white"):
        (folder / f"{name}.png").write_bytes(png(name))
    return folder


@pytest.mark.parametrize(
    ("suffix", "delimiter", "header"),
    [
        (".csv", ",", ("file", "caption")),
        (".csv", "|", ("Image", "Text")),
        (".tsv", "\t", ("filepath", "title")),
    ],
)
def test_tables(tiny: TinyEncoder, images: Path, suffix: str, delimiter: str, header: tuple[str, str]) -> None:
    rows = [header, ("red.png", "a red wall"), ("blue.png", "  the blue\n sky ")]
    table = write_csv(images / f"list{suffix}", rows, delimiter)
    made = ReferenceSet.build(table, tiny)
    assert made.texts == ("a red wall", "the blue sky")
    np.testing.assert_allclose(
        made.image_embeddings, tiny.encode_images(open_all(images, "red", "blue")).embeddings, atol=1e-3
    )


def open_all(folder: Path, *names: str) -> list[Image.Image]:
    return [Image.open(folder / f"{name}.png") for name in names]


def test_named_columns_sources_and_licences(tiny: TinyEncoder, images: Path) -> None:
    rows = [("a", "b", "source", "license"), ("red.png", "x", "mine", "CC0"), ("blue.png", "y", "", "")]
    table = write_csv(images / "list.csv", rows)
    with pytest.raises(ReferenceSetError, match=r"list\.csv has no image column.*--image-column"):
        ReferenceSet.build(table, tiny)
    made = ReferenceSet.build(table, tiny, columns=Columns(image="a", text="b"), source="rest", licence="MIT")
    assert made.table["source"].to_pylist() == ["mine", "rest"]
    assert made.table["licence"].to_pylist() == ["CC0", "MIT"]


def test_class_folders(tiny: TinyEncoder, tmp_path: Path) -> None:
    for name in ("sky_blue", "deep-red"):
        (tmp_path / name).mkdir()
        for i, colour in enumerate(("blue", "red")):
            (tmp_path / name / f"{i}.png").write_bytes(png(colour, 5 + i))
    made = ReferenceSet.build(tmp_path, tiny)
    assert made.texts == ("deep red", "deep red", "sky blue", "sky blue")
    assert made.table["path"].to_pylist()[0] == "deep-red/0.png"


def test_flat_folders_use_sidecars_or_file_names(tiny: TinyEncoder, images: Path) -> None:
    assert ReferenceSet.build(images, tiny).texts == ("blue", "green", "red", "white")
    for name in ("red", "green", "blue"):
        (images / f"{name}.txt").write_text(f"all {name}\n")
    made = ReferenceSet.build(images, tiny)
    assert made.texts == ("all blue", "all green", "all red")
    assert made.manifest.failed == 1


def test_folder_with_a_captions_table_and_images_below(tiny: TinyEncoder, images: Path, tmp_path: Path) -> None:
    images.rename(tmp_path / "images")
    write_csv(tmp_path / "captions.csv", [("file", "text"), ("red.png", "the red one")])
    assert ReferenceSet.build(tmp_path, tiny).texts == ("the red one",)


@pytest.mark.parametrize("layout", ["bytes", "struct", "path"])
def test_parquet(tiny: TinyEncoder, images: Path, layout: str) -> None:
    def cell(name: str) -> object:
        data = png(name)
        return {"bytes": data, "struct": {"bytes": data, "path": None}, "path": f"{name}.png"}[layout]

    table = pa.table({"image": [cell("red"), cell("blue")], "caption": ["red thing", "blue thing"]})
    pq.write_table(table, images / "data.parquet")
    made = ReferenceSet.build(images / "data.parquet", tiny)
    assert made.texts == ("red thing", "blue thing")
    np.testing.assert_allclose(
        made.image_embeddings, tiny.encode_images(open_all(images, "red", "blue")).embeddings, atol=1e-3
    )


def test_webdataset_shards(tiny: TinyEncoder, tmp_path: Path) -> None:
    def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))

    with tarfile.open(tmp_path / "shard-0.tar", "w") as tar:
        add(tar, "000.txt", b"red by text")
        add(tar, "000.png", png("red"))
        add(tar, "a/001.png", png("blue"))
        add(tar, "a/001.json", json.dumps({"caption": "blue by json", "width": 6}).encode())
    with tarfile.open(tmp_path / "shard-1.tar", "w") as tar:
        add(tar, "002.png", png("green"))
        add(tar, "002.cls", b"7")
        add(tar, "003.png", png("white"))
    made = ReferenceSet.build(tmp_path, tiny, path=tmp_path / "set")
    assert made.texts == ("red by text", "blue by json")
    failures = (tmp_path / "set" / "failures.csv").read_text()
    assert "shard-1.tar::003.png,the text is empty" in failures
    assert "shard-1.tar::002.png,\"its class is '7', a number or a code: give its name in a file" in failures


def test_unusable_images_are_listed_and_the_rest_is_built(tiny: TinyEncoder, images: Path, tmp_path: Path) -> None:
    (images / "empty.png").write_bytes(b"")
    (images / "text.png").write_text("not an image")
    (images / "cut.png").write_bytes(png("red", 300)[:200])
    Image.new("RGB", (2000, 1000)).save(images / "huge.png")
    names = ["red", "missing", "empty", "text", "cut", "huge", "blue"]
    rows = [("file", "text"), *((f"{name}.png", name) for name in names), ("green.png", "  ")]
    failures = []
    made = ReferenceSet.build(
        write_csv(images / "list.csv", rows), tiny, path=tmp_path / "set", max_megapixels=1, on_failure=failures.append
    )
    assert made.texts == ("red", "blue")
    assert made.manifest.failed == 6
    with (tmp_path / "set" / "failures.csv").open() as file:
        reasons = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert {failure.path: failure.reason for failure in failures} == reasons
    assert reasons["missing.png"] == "the file is missing"
    assert reasons["empty.png"] == "the file is empty"
    assert reasons["text.png"].startswith("not a readable image")
    assert reasons["cut.png"].startswith("not a readable image")
    assert reasons["huge.png"] == "2000 x 1000 px is over the limit of 1 megapixels"
    assert reasons["green.png"] == "the text is empty"


def test_nothing_usable_leaves_the_old_set(tiny: TinyEncoder, images: Path, tmp_path: Path) -> None:
    ReferenceSet.build(images, tiny, path=tmp_path / "set")
    before = sorted(p.name for p in (tmp_path / "set").iterdir())
    bad = write_csv(images / "bad.csv", [("file", "text"), ("nowhere.png", "x")])
    with pytest.raises(
        ReferenceSetError, match=r"no pair .* \(1 failed; the first: nowhere.png: the file is missing\)"
    ):
        ReferenceSet.build(bad, tiny, path=tmp_path / "set")
    assert sorted(p.name for p in (tmp_path / "set").iterdir()) == before
    assert len(ReferenceSet.open(tmp_path / "set")) == 4


def test_hold_out_splits_by_image_and_lists_the_rest(tiny: TinyEncoder, tmp_path: Path) -> None:
    rows = [("file", "text")]
    for i in range(40):
        Image.new("RGB", (4, 4), (i * 6, 10, 200)).save(tmp_path / f"{i}.png")
        rows += [(f"{i}.png", f"caption {i} {j}") for j in range(3)]
    table = write_csv(tmp_path / "all.csv", rows)
    made = ReferenceSet.build(table, tiny, path=tmp_path / "set", selection=Selection(fraction=0.1, seed=3))
    held = Counter(made.table["path"].to_pylist())
    assert len(held) == 4
    assert set(held.values()) == {3}
    rest = list(read_pairs(tmp_path / "set" / "rest.csv"))
    assert len(rest) == 108
    assert not {Path(pair.path).name for pair in rest} & set(held)
    assert all(Path(pair.location).is_file() for pair in rest)
    again = ReferenceSet.build(table, tiny, selection=Selection(fraction=0.1, seed=3))
    assert again.table["path"].equals(made.table["path"])
    other = ReferenceSet.build(table, tiny, selection=Selection(fraction=0.1, seed=4))
    assert set(other.table["path"].to_pylist()) != set(held)


def test_limit_and_per_class(tiny: TinyEncoder, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(5):
            Image.new("RGB", (4, 4), (i * 40, len(name) * 20, ord(name[0]))).save(tmp_path / name / f"{i}.png")
    first = ReferenceSet.build(tmp_path, tiny, selection=Selection(per_class=2))
    assert first.table["path"].to_pylist() == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]
    assert len(ReferenceSet.build(tmp_path, tiny, selection=Selection(limit=3))) == 3
    drawn = Selection(per_class=2, shuffle=True, seed=1)
    one, two = (ReferenceSet.build(tmp_path, tiny, selection=drawn) for _ in range(2))
    assert Counter(one.texts) == {"cat": 2, "dog": 2}
    assert one.fingerprint == two.fingerprint
    for bad in ({"fraction": 0.0}, {"fraction": 1.5}, {"limit": -1}):
        with pytest.raises(ConfigError):
            Selection(**bad)


def test_prompts_are_averaged(tiny: TinyEncoder) -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    made = ReferenceSet.build([(image, "red")], tiny, prompts=("{}", "blue {}"))
    want = l2_normalise(tiny.encode_texts(["red", "blue red"]).mean(axis=0, keepdims=True))
    np.testing.assert_allclose(made.text_embeddings, want, atol=1e-3)
    assert made.texts == ("red",)


def test_captions_of_one_image_share_a_forward_pass(tiny: TinyEncoder) -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    progress: list[BuildProgress] = []
    made = ReferenceSet.build([(image, text) for text in ("a", "b", "c", "a")], tiny, on_progress=progress.append)
    assert tiny.images_encoded == 1
    assert made.texts == ("a", "b", "c")
    assert progress[-1] == BuildProgress(read=4, written=3, failed=0, duplicates=1)


def test_a_stream_is_read_no_further_ahead_than_a_few_batches(tiny: TinyEncoder) -> None:
    asked = 0

    def stream() -> object:
        nonlocal asked
        for i in range(200):
            asked += 1
            yield np.full((4, 4, 3), i, np.uint8), "x"

    ahead: list[int] = []
    ReferenceSet.build(stream(), tiny, batch=8, on_progress=lambda event: ahead.append(asked - event.read))
    assert max(ahead) <= 16


def test_a_missing_path_is_refused(tiny: TinyEncoder, tmp_path: Path) -> None:
    with pytest.raises(ReferenceSetError, match="does not exist"):
        ReferenceSet.build(tmp_path / "nothing.csv", tiny)
    with pytest.raises(ReferenceSetError, match="no image under"):
        ReferenceSet.build(tmp_path, tiny)
