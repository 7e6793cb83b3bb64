"""WebDataset shards in the layout that CLIP benchmarks publish."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from helpers.tiny_encoder import COLOURS, TinyEncoder
from impart.errors import DataError
from impart.evaluate import CaptionSet, ClassSet, open_set, zeroshot


def encoded(colour: str, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 16), COLOURS[colour]).save(buffer, form)
    return buffer.getvalue()


def shard(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def classification(root: Path) -> Path:
    root.mkdir()
    (root / "classnames.txt").write_text("red\ngreen\nblue\n")
    (root / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\nthe {c} one\n")
    samples = [("red", 0), ("blue", 2), ("green", 1), ("red", 0)]
    for number in range(2):
        members = []
        for index, (colour, label) in list(enumerate(samples))[2 * number : 2 * number + 2]:
            form = "webp" if index else "png"
            members += [(f"s{index:07d}.cls", str(label).encode()), (f"s{index:07d}.{form}", encoded(colour, form))]
        shard(root / "test" / f"{number}.tar", members)
    (root / "test" / "nshards.txt").write_text("2\n")
    return root


def test_classes(tmp_path: Path, tiny: TinyEncoder) -> None:
    root = classification(tmp_path / "colours")
    for spec in (f"webdataset:{root}", str(root)):
        dataset = open_set(spec)
        assert isinstance(dataset, ClassSet)
        assert (dataset.name, dataset.classes) == ("colours/test", ("red", "green", "blue"))
        assert dataset.templates == ("a photo of a {}.", "the {} one")
        assert dataset.labels.tolist() == [0, 2, 1, 0]
        assert dataset.images.keys == ("0.tar:s0000000", "0.tar:s0000001", "1.tar:s0000002", "1.tar:s0000003")
    assert zeroshot(tiny, dataset, prompts=("{}",)).figures["top-1"] == 1.0
    before = dataset.images.identity()
    with (root / "test" / "1.tar").open("ab") as file:
        file.write(b"\0" * 512)
    assert dataset.images.identity() != before


def test_the_folder_of_shards_itself(tmp_path: Path) -> None:
    root = classification(tmp_path / "colours")
    dataset = open_set(root / "test")
    assert isinstance(dataset, ClassSet)
    assert (len(dataset), dataset.name) == (4, "test")
    with pytest.raises(DataError, match="no folder 'train'"):
        open_set(root, split="train")


def test_errors_name_the_missing_or_damaged_file(tmp_path: Path) -> None:
    root = classification(tmp_path / "colours")
    (root / "test" / "nshards.txt").write_text("3")
    with pytest.raises(DataError, match=r"2\.tar is missing"):
        open_set(root)
    (root / "test" / "nshards.txt").write_text("two")
    with pytest.raises(DataError, match="'two'"):
        open_set(root)
    (root / "test" / "nshards.txt").unlink()
    whole = (root / "test" / "1.tar").read_bytes()
    (root / "test" / "1.tar").write_bytes(whole[:700])
    with pytest.raises(DataError, match=r"1\.tar is damaged"):
        open_set(root)
    for content, message in ((b"3", "class 3, and .* names 3"), (b"red", "'red', expected a class number")):
        shard(root / "test" / "1.tar", [("a.png", encoded("red")), ("a.cls", content)])
        with pytest.raises(DataError, match=message):
            open_set(root)
    shard(root / "test" / "1.tar", [("a.png", encoded("red")), ("b.cls", b"1")])
    dataset = open_set(root)
    assert isinstance(dataset, ClassSet)
    assert (len(dataset), dataset.notes) == (2, ("2 samples without an image or a .cls are left out",))
    (root / "classnames.txt").unlink()
    with pytest.raises(DataError, match=r"has no classnames\.txt.*published at"):
        open_set(f"webdataset:{root}")


def test_retrieval_shards(tmp_path: Path) -> None:
    root = tmp_path / "pairs"
    members = [
        ("s0.jpg", encoded("red", "JPEG")),
        ("s0.txt", b"A red image.\nRed  all over.\n\n"),
        ("s1.jpg", encoded("blue", "JPEG")),
        ("s1.json", b'{"caption": "A blue image."}'),
        ("s2.jpg", encoded("green", "JPEG")),
        ("s2.json", b'{"captions": ["Green.", "Grass."]}'),
        ("s3.jpg", encoded("green", "JPEG")),
    ]
    shard(root / "test" / "0.tar", members)
    for spec in (f"webdataset-captions:{root}", f"webdataset:{root}"):
        dataset = open_set(spec, kind="captions")
        assert isinstance(dataset, CaptionSet)
        assert dataset.captions == ("A red image.", "Red all over.", "A blue image.", "Green.", "Grass.")
        assert dataset.owners.tolist() == [0, 0, 1, 2, 2]
        assert dataset.notes == ("1 samples without an image or a caption are left out",)
    assert dataset.images.read(1)[0].size == (20, 16)
    shard(root / "test" / "0.tar", [("a.jpg", encoded("red", "JPEG")), ("a.json", b"{")])
    with pytest.raises(DataError, match=r"a\.json is not json"):
        open_set(f"webdataset-captions:{root}")
