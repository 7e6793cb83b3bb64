"""Images decoded once: the views of the copies equal those of the files, in any order and after a resume."""

from __future__ import annotations

import time

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from PIL import Image, ImageFilter  # noqa: E402

from impart.encoders.preprocess import PreprocessConfig, preprocess  # noqa: E402
from impart.errors import ConfigError  # noqa: E402
from impart.refset.pairs import Pair  # noqa: E402
from impart.train.events import result_of  # noqa: E402
from impart.train.prepare.pairs import ListedImage  # noqa: E402
from impart.train.pretrain.batches import ImageDataset, epoch_batches  # noqa: E402
from impart.train.pretrain.decoded import DecodedRun, cut_views  # noqa: E402

PREPROCESS = PreprocessConfig(size_px=48)


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """Smooth images of several sizes, as photos are; number 5 is cut off."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    made = []
    for number in range(40):
        size = (int(rng.integers(90, 160)), int(rng.integers(90, 160)))
        noise = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        path = folder / f"{number}.png"
        noise.resize(size, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(2)).save(path)
        made.append(
            ListedImage(Pair(image=path, text="a", path=path.name, location=str(path)), [f"{number} a", f"{number} b"])
        )
    path = folder / "5.png"
    path.write_bytes(path.read_bytes()[:900])
    return made


def _dataset(items, folder=None, *, crop=0.5, side_px=64):
    run = None if folder is None else DecodedRun(folder, side_px, PREPROCESS)
    copies = None if run is None else run.copies(items, cropped=crop < 1)
    return ImageDataset(items, PREPROCESS, crop=crop, flip=crop < 1, seed=7, copies=copies)


def test_views_of_copies_are_those_of_the_files(items, tmp_path):
    rows = np.arange(len(items))
    direct, copied = _dataset(items).batch(rows, 3), _dataset(items, tmp_path).batch(rows, 3)
    assert copied.texts == direct.texts
    assert copied.rows.tolist() == direct.rows.tolist()
    assert copied.failures == direct.failures
    assert [path for path, _ in copied.failures] == ["5.png"]
    assert copied.rows[5] == 6  # the next image
    assert copied.pixels.shape == direct.pixels.shape == (40, 3, 48, 48)
    assert copied.pixels.dtype == direct.pixels.dtype == torch.uint8
    apart = (copied.pixels.float() - direct.pixels.float()).abs()
    assert apart.mean() < 1.0
    assert apart.max() < 24
    other = _dataset(items, tmp_path).batch(rows, 4)
    assert (other.pixels.float() - direct.pixels.float()).abs().mean() > 10  # another epoch, other crops


def test_evaluation_views_of_copies_are_exact(items, tmp_path):
    rows = np.array([3, 0, 7])
    found = _dataset(items, tmp_path, crop=1.0).batch(rows, 0).pixels
    expected = preprocess([Image.open(items[row].pair.image) for row in rows], PREPROCESS)
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (PREPROCESS.mean, PREPROCESS.std))
    assert np.allclose((found.numpy() / np.float32(255) - mean) / std, expected, atol=1e-5)
    direct = _dataset(items, crop=1.0).batch(rows, 0).pixels
    assert torch.equal(direct, torch.from_numpy(expected))


def test_batches_are_the_same_after_a_resume_and_in_workers(items, tmp_path):
    def batches(first, workers):
        data = _dataset(items, tmp_path)
        return list(epoch_batches(data, batch=8, count=5, first=first, epoch=2, workers=workers))

    whole = batches(0, 0)
    for first, workers in ((3, 0), (0, 2), (2, 1)):
        for found, expected in zip(batches(first, workers), whole[first:], strict=True):
            assert found.rows.tolist() == expected.rows.tolist()
            assert found.texts == expected.texts
            assert torch.equal(found.pixels, expected.pixels)


def test_an_image_is_decoded_once_and_again_when_it_changes(items, tmp_path, monkeypatch):
    opened = []
    from impart.train.pretrain import decoded

    load = decoded.load_image
    monkeypatch.setattr(
        decoded, "load_image", lambda image, **options: (opened.append(image), load(image, **options))[1]
    )
    events = list(DecodedRun(tmp_path, 64, PREPROCESS).fill(items[:10], cropped=True))
    assert len(opened) == 10
    assert (events[-1].done, events[-1].total, events[-1].failed) == (10, 10, 1)
    again = DecodedRun(tmp_path, 64, PREPROCESS).copies(items[:12], cropped=True)
    assert len(opened) == 13  # two new ones, and the damaged one is tried again
    assert (again.rows >= 0).sum() == 11
    path = tmp_path / "changing.png"
    Image.new("RGB", (60, 60), "red").save(path)
    item = ListedImage(Pair(image=path, text="a", location=str(path)), ["a"])
    run = DecodedRun(tmp_path, 64, PREPROCESS)
    first = run.copies([item], cropped=True)
    Image.new("RGB", (70, 60), "blue").save(path)
    second = run.copies([item], cropped=True)
    assert first.pixels[first.rows[0], 0, 0].tolist() == [255, 0, 0]
    assert second.pixels[second.rows[0], 0, 0].tolist() == [0, 0, 255]
    assert second.size(0) == (70, 60)


def test_cutting_is_the_bicubic_filter_of_pil():
    rng = np.random.default_rng(1)
    pixels = np.stack(
        [np.array(Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((64, 64))) for _ in range(4)]
    )
    boxes = np.array([[0, 0, 64, 64], [3.5, 10.2, 50.1, 60], [20, 0, 60.5, 33.3], [1, 2, 63, 61.0]])
    flips = np.array([False, True, False, True])
    found = cut_views(pixels, boxes, flips, 40)
    for row in range(4):
        expected = np.array(Image.fromarray(pixels[row]).resize((40, 40), Image.Resampling.BICUBIC, box=boxes[row]))
        expected = expected[:, ::-1] if flips[row] else expected
        assert np.abs(found[row].permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1


def test_copies_are_read_much_faster_than_a_tower_learns(items, tmp_path):
    data = _dataset(items, tmp_path)
    rows = np.arange(256) % 40
    data.batch(rows, 0)
    best = min(_seconds(lambda: data.batch(rows, 1)) for _ in range(5))
    assert 256 / best > 1500, f"{256 / best:.0f} images per second of CPU time"


def _seconds(run):
    began = time.process_time()
    run()
    return time.process_time() - began


def test_copies_smaller_than_the_input_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="decode_once_px is 40: at least 48"):
        DecodedRun(tmp_path, 40, PREPROCESS)


def test_an_image_that_cannot_be_read_gives_its_reason(items, tmp_path):
    copies = result_of(DecodedRun(tmp_path, 64, PREPROCESS).fill(items[4:6], cropped=True))
    assert copies.rows[1] == -1
    assert copies.reasons[1]
