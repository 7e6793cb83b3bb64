"""CIFAR batches as published, damaged batches, and pickles that could run code."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from helpers.image_sets import python2_pickle
from impart.errors import DataError
from impart.evaluate import ClassSet, open_set
from impart.evaluate.datasets.names import class_names, named_set


def pixels(count: int, *, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def cifar10_files() -> dict[str, bytes]:
    """The files of `cifar-10-batches-py`, with three images in each."""
    files = {
        "batches.meta": python2_pickle(
            {"num_cases_per_batch": 10000, "label_names": list(named_set("cifar10").keys), "num_vis": 3072}
        ),
        "readme.html": b"<html>",
    }
    for number, name in enumerate(["test_batch", *(f"data_batch_{batch}" for batch in range(1, 6))]):
        files[name] = python2_pickle(
            {
                "batch_label": "testing batch 1 of 1",
                "labels": [3, number, 9],
                "data": pixels(3, seed=number),
                "filenames": ["a.png", "b.png", "c.png"],
            }
        )
    return files


def cifar100_files() -> dict[str, bytes]:
    keys = list(named_set("cifar100").keys)
    batch = {
        "filenames": ["a.png", "b.png"],
        "batch_label": "testing batch 1 of 1",
        "fine_labels": [0, 99],
        "coarse_labels": [4, 1],
        "data": pixels(2),
    }
    meta = {"fine_label_names": keys, "coarse_label_names": ["fish", "flowers"]}
    return {"test": python2_pickle(batch), "train": python2_pickle(batch), "meta": python2_pickle(meta)}


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def write_archive(path: Path, folder: str, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def opened(spec: str, split: str | None = None) -> ClassSet:
    dataset = open_set(spec, split=split)
    assert isinstance(dataset, ClassSet)
    return dataset


def test_the_folder_as_published(tmp_path: Path) -> None:
    write_folder(tmp_path / "cifar-10-batches-py", cifar10_files())
    dataset = opened(f"cifar10:{tmp_path}")
    assert (dataset.name, dataset.classes, dataset.notes) == ("cifar10/test", class_names("cifar10"), ())
    assert dataset.labels.tolist() == [3, 0, 9]
    assert dataset.images.keys[2] == "cifar-10-batches-py/test_batch[2]"
    image, _ = dataset.images.read(1)
    row = pixels(3)[1]  # planes of red, green, blue, each row by row
    assert image.size == (32, 32)
    assert image.getpixel((5, 2)) == tuple(int(row[plane * 1024 + 2 * 32 + 5]) for plane in range(3))
    train = opened(f"cifar10:{tmp_path / 'cifar-10-batches-py'}", "train")
    assert len(train) == 15
    assert train.labels.tolist()[:6] == [3, 1, 9, 3, 2, 9]


def test_the_archive_is_read_without_unpacking(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py", cifar10_files())
    for spec in (f"cifar10:{archive}", f"cifar10:{tmp_path}", str(archive)):
        dataset = opened(spec)
        assert dataset.labels.tolist() == [3, 0, 9]
        assert dataset.images.read(0)[1]
    before = opened(str(archive)).images.identity()
    assert before == opened(str(archive)).images.identity()
    assert before != opened(str(archive), "train").images.identity()
    assert list(tmp_path.iterdir()) == [archive]


def test_cifar100_by_its_fine_labels(tmp_path: Path) -> None:
    write_archive(tmp_path / "cifar-100-python.tar.gz", "cifar-100-python", cifar100_files())
    dataset = opened(f"cifar100:{tmp_path}")
    assert (dataset.name, dataset.labels.tolist()) == ("cifar100/test", [0, 99])
    assert dataset.classes == class_names("cifar100")
    write_folder(tmp_path / "cifar-100-python", cifar100_files())
    assert opened(f"cifar100:{tmp_path}", "train").name == "cifar100/train"


def test_without_a_meta_file_the_official_order_is_assumed(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "cifar-10-batches-py", cifar10_files())
    (folder / "batches.meta").unlink()
    dataset = opened(f"cifar10:{folder}")
    assert dataset.classes == class_names("cifar10")
    assert "official order" in dataset.notes[0]


def test_batches_pickled_again_by_python_3(tmp_path: Path) -> None:
    for protocol in (2, 5):
        files = cifar10_files()
        files["test_batch"] = pickle.dumps({b"data": pixels(2), b"labels": [1, 2]}, protocol=protocol)
        folder = write_folder(tmp_path / str(protocol) / "cifar-10-batches-py", files)
        assert opened(f"cifar10:{folder}").labels.tolist() == [1, 2]


@pytest.mark.parametrize("call", [b"cposix\nsystem\n", b"cbuiltins\neval\n", b"c_codecs\ndecode\n"])
def test_a_pickle_that_could_run_code_is_refused(tmp_path: Path, call: bytes) -> None:
    marker = tmp_path / "ran"
    files = cifar10_files()
    command = f"touch {marker}".encode()
    files["test_batch"] = b"\x80\x02" + call + b"U" + bytes([len(command)]) + command + b"\x85R."
    folder = write_folder(tmp_path / "cifar-10-batches-py", files)
    with pytest.raises(DataError, match="plain data does not need"):
        open_set(f"cifar10:{folder}")
    assert not marker.exists()


def test_damaged_files_are_errors(tmp_path: Path) -> None:
    good = cifar10_files()
    bad = {
        "cut off": good["test_batch"][:-500],
        "no batch": python2_pickle({"labels": [1]}),
        "label": python2_pickle({"labels": [10], "data": pixels(1)}),
        "shape": python2_pickle({"labels": [1, 2], "data": pixels(1)}),
        "list": pickle.dumps([1, 2]),
        "empty": b"",
    }
    for number, (_, data) in enumerate(bad.items()):
        folder = write_folder(tmp_path / str(number) / "cifar-10-batches-py", {**good, "test_batch": data})
        with pytest.raises(DataError, match=r"test_batch.*(download it again|damaged)"):
            open_set(f"cifar10:{folder}")
    archive = write_archive(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py", good)
    archive.write_bytes(archive.read_bytes()[:4000])
    with pytest.raises(DataError, match="damaged"):
        open_set(archive)
    archive.write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match="no tar archive"):
        open_set(archive)
    write_archive(archive, "elsewhere", good)
    with pytest.raises(DataError, match=r"has no cifar-10-batches-py/test_batch.*published at"):
        open_set(archive)


def test_the_development_copies(data_dir: Path) -> None:
    for name, count in (("cifar10", 1000), ("cifar100", 2000)):
        dataset = opened(f"{name}:{data_dir / 'images' / name}")
        assert len(dataset) == count
        assert sorted(dataset.classes) == sorted(class_names(name))
        assert dataset.notes == ()


@pytest.mark.parametrize(
    ("protocol", "older"), [(2, False), (2, True), (3, True), (4, False), (pickle.HIGHEST_PROTOCOL, False)]
)
def test_batches_saved_again_by_python_3(tmp_path: Path, protocol: int, older: bool) -> None:
    data = pixels(3)
    batch = {
        "labels": [np.int64(3), np.int64(0), 9],
        "data": np.asfortranarray(data) if protocol % 2 else data,
        "filenames": np.array(["a.png", "b.png", "c.png"]),
        "raw": bytearray(b"\xff\x00"),
    }
    meta = {"label_names": [np.str_(key) for key in named_set("cifar10").keys]}

    def saved(content: object) -> bytes:
        written = pickle.dumps(content, protocol=protocol)
        return written.replace(b"numpy._core", b"numpy.core") if older else written  # its name before NumPy 2

    write_folder(tmp_path / "cifar-10-batches-py", {"test_batch": saved(batch), "batches.meta": saved(meta)})
    dataset = open_set(f"cifar10:{tmp_path}", split="test")
    assert isinstance(dataset, ClassSet)
    assert dataset.labels.tolist() == [3, 0, 9]
    assert dataset.classes == class_names("cifar10")
    wanted = data[1].reshape(3, 32, 32).transpose(1, 2, 0)
    np.testing.assert_array_equal(np.asarray(dataset.images.read(1)[0]), wanted)


class _Calls:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize(
    "content",
    [
        _Calls(print, "run"),
        _Calls(bytearray, 2**40),
        _Calls(getattr, "text", "upper"),
        _Calls(np.load, "file.npy"),
        np.array([{"an": "object"}], dtype=object)[0:1].dtype.type,
    ],
    ids=["print", "memory", "getattr", "load", "type"],
)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_what_is_no_plain_data_is_refused_in_every_protocol(content: object, protocol: int, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    write_folder(folder, {**cifar10_files(), "test_batch": pickle.dumps({"data": content}, protocol=protocol)})
    with pytest.raises(DataError, match="not a pickle of plain data"):
        open_set(f"cifar10:{tmp_path}", split="test")
