"""Class folders and captioned pictures: what is read, what is refused, what is left out and named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from impart.errors import DataError
from impart.evaluate import CaptionedImages, ClassFolder, image_retrieval, zeroshot
from tiny_encoder import COLOURS, TinyEncoder


def colour_folder(root: Path, names: list[str], *, each: int = 2) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(each):
            Image.new("RGB", (20, 16), COLOURS[name]).save(root / name / f"{number}.png")
    return root


def test_zeroshot_names_the_colours(tmp_path: Path, tiny: TinyEncoder) -> None:
    dataset = ClassFolder.open(colour_folder(tmp_path / "set", ["red", "green", "blue"]))
    report = zeroshot(tiny, dataset, templates=("{}",))
    assert (report.images, report.classes, report.top1, report.unreadable) == (6, 3, 1.0, ())


def test_wrong_labels_are_wrong(tmp_path: Path, tiny: TinyEncoder) -> None:
    folder = colour_folder(tmp_path / "set", ["red", "blue"])
    (folder / "red" / "0.png").replace(folder / "blue" / "moved.png")
    assert zeroshot(tiny, ClassFolder.open(folder), templates=("{}",)).top1 == 0.75


def test_a_corrupt_picture_is_left_out_and_named(tmp_path: Path, tiny: TinyEncoder) -> None:
    folder = colour_folder(tmp_path / "set", ["red", "blue"])
    (folder / "red" / "0.png").write_bytes(b"not a picture")
    report = zeroshot(tiny, ClassFolder.open(folder), templates=("{}",))
    assert report.images == 3
    assert "0.png" in report.unreadable[0]


def test_folders_that_cannot_be_a_data_set_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        ClassFolder.open(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no sub-folders"):
        ClassFolder.open(tmp_path)
    (tmp_path / "empty_class").mkdir()
    with pytest.raises(DataError, match="empty_class"):
        ClassFolder.open(tmp_path)


def captioned(folder: Path) -> Path:
    folder.mkdir()
    for name in ("red", "blue", "green"):
        Image.new("RGB", (8, 8), COLOURS[name]).save(folder / f"{name}.png")
    table = folder / "captions.csv"
    table.write_text("file,caption,split\nred.png,a red one,a\nred.png,red,a\nblue.png,blue,a\ngreen.png,green,b\n")
    return table


def test_retrieval_both_ways(tmp_path: Path, tiny: TinyEncoder) -> None:
    to_image, to_text, unreadable = image_retrieval(tiny, CaptionedImages.open(captioned(tmp_path / "set")))
    assert (to_image.queries, to_image.items, to_image.recall_at_1) == (4, 3, 1.0)
    assert (to_text.queries, to_text.items, to_text.recall_at_1) == (3, 4, 1.0)
    assert not unreadable


def test_captions_of_one_split(tmp_path: Path) -> None:
    dataset = CaptionedImages.open(captioned(tmp_path / "set"), split="a")
    assert dataset.captions == ("a red one", "red", "blue")
    assert np.array_equal(dataset.owners, [0, 0, 1])


def test_tables_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    table = captioned(tmp_path / "set")
    with pytest.raises(DataError, match="split 'c'"):
        CaptionedImages.open(table, split="c")
    (tmp_path / "set" / "blue.png").unlink()
    with pytest.raises(DataError, match=r"blue\.png"):
        CaptionedImages.open(table)
    table.write_text("picture,caption\nx,y\n")
    with pytest.raises(DataError, match="'file'"):
        CaptionedImages.open(table)


def test_folders_with_codes_are_named_by_their_table(tmp_path):
    folder = colour_folder(tmp_path / "set" / "test", ["red", "blue"])
    table = tmp_path / "set" / "classes.csv"
    table.write_text('code,name\nred,"tench, Tinca tinca"\nblue,goldfish\n', encoding="utf-8")
    assert ClassFolder.open(folder).classes == ("goldfish", "tench")
    table.write_text("code,name\nred,tench\n", encoding="utf-8")
    with pytest.raises(DataError, match="blue"):
        ClassFolder.open(folder)
