"""Embedding store: rows are computed once, kills lose one batch, unreadable images are left out. And the listing."""

from __future__ import annotations

import io
import tarfile
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="training needs the extra `train`")

from helpers.clips import solid
from helpers.tiny_encoder import COLOURS, TinyEncoder
from impart.errors import TrainingError
from impart.refset.pairs import Pair, read_pairs
from impart.retrieval.near_duplicates import perceptual_hash
from impart.train.events import result_of
from impart.train.prepare.embeddings import EmbeddedImages, EmbeddingStore
from impart.train.prepare.pairs import Failures, list_images
from impart.train.settings import PairsFrom


@pytest.fixture
def folder(tmp_path):
    where = tmp_path / "data"
    (where / "images").mkdir(parents=True)
    for name in COLOURS:
        _image(name).save(where / "images" / f"{name}.png")
    rows = [
        f"images/{name}.png,{text},{'val' if name == 'cyan' else 'train'}"
        for name in COLOURS
        for text in (name, f"a {name} thing")
    ]
    (where / "captions.csv").write_text("file,text,split\n" + "\n".join(rows) + "\n")
    return where


def _image(name):
    return Image.fromarray(solid(name))


def _pairs(folder):
    return [image.pair for image in list_images([PairsFrom(path=".")], folder, Failures())]


def test_rows_equal_the_encoders_and_are_computed_once(folder, tmp_path):
    encoder, pairs = TinyEncoder(), _pairs(folder)
    store = EmbeddingStore(tmp_path / "store", encoder, batch=4)
    found = result_of(store.images(pairs))
    expected = encoder.encode_images([solid(name) for name in COLOURS])
    assert np.allclose(store.image[found.rows], expected.embeddings, atol=1e-3)
    assert np.allclose(store.retrieval[found.rows], expected.retrieval, atol=1e-3)
    rows = result_of(store.texts(["red", "blue", "red"]))
    assert rows[0] == rows[2] != rows[1]
    assert np.allclose(store.text[rows], encoder.encode_texts(["red", "blue", "red"]), atol=1e-3)
    fresh = TinyEncoder()
    again = EmbeddingStore(tmp_path / "store", fresh, batch=4)
    assert np.array_equal(result_of(again.images(pairs)).rows, found.rows)
    assert fresh.images_encoded == 0
    other = EmbeddingStore(tmp_path / "store", TinyEncoder(seed=1))
    assert other.folder != store.folder
    assert len(other.image) == 0


def test_a_replaced_image_is_computed_again(folder, tmp_path):
    pairs = _pairs(folder)
    result_of(EmbeddingStore(tmp_path / "store", TinyEncoder()).images(pairs))
    Image.new("RGB", (40, 40), (1, 2, 3)).save(folder / "images" / "red.png")
    encoder = TinyEncoder()
    result_of(EmbeddingStore(tmp_path / "store", encoder).images(pairs))
    assert encoder.images_encoded == 1


def test_a_stopped_run_continues_after_its_complete_rows(folder, tmp_path):
    pairs = _pairs(folder)
    store = EmbeddingStore(tmp_path / "store", TinyEncoder(), batch=3)
    for event in store.images(pairs):
        if event.done >= 6:
            break  # two batches are written
    with (store.folder / "pictures.image").open("ab") as file:
        file.write(b"torn row of a killed writer")
    with (store.folder / "pictures.keys").open("r+b") as file:
        file.truncate(5 * 98 + 40)  # the sixth key was being written
    encoder = TinyEncoder()
    resumed = EmbeddingStore(tmp_path / "store", encoder, batch=3)
    found = result_of(resumed.images(pairs))
    assert encoder.images_encoded == len(pairs) - 5
    expected = TinyEncoder().encode_images([solid(name) for name in COLOURS])
    assert np.allclose(resumed.image[found.rows], expected.embeddings, atol=1e-3)
    assert np.allclose(resumed.retrieval[found.rows], expected.retrieval, atol=1e-3)


def test_several_runs_may_fill_one_store_at_the_same_time(tmp_path):
    rng = np.random.default_rng(0)
    pairs = []
    for number in range(40):
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)).save(path)
        pairs.append(Pair(image=path, text="", location=str(path)))
    encoder = TinyEncoder()

    def fill(order):
        store = EmbeddingStore(tmp_path / "store", encoder, batch=1)
        found = result_of(store.images([pairs[number] for number in order]))
        return store.image[found.rows][np.argsort(order)]

    orders = [rng.permutation(40) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        filled = list(pool.map(fill, orders))
    expected = encoder.encode_images([Image.open(pair.image_key) for pair in pairs]).embeddings
    for image in filled:
        assert np.allclose(image, expected, atol=1e-3)


def test_unreadable_images_are_reported_and_left_out(folder, tmp_path):
    (folder / "images" / "green.png").unlink()
    (folder / "images" / "blue.png").write_bytes(b"no image")
    pairs = _pairs(folder)
    found = result_of(EmbeddingStore(tmp_path / "store", TinyEncoder()).images(pairs))
    assert isinstance(found, EmbeddedImages)
    assert [path for path, _ in found.failures] == ["images/green.png", "images/blue.png"]
    assert "missing" in found.failures[0][1]
    assert len(found.rows) == len(found.hashes) == len(COLOURS) - 2
    assert [i for i, place in enumerate(found.usable) if place < 0] == [1, 2]
    assert [place for place in found.usable if place >= 0] == list(range(len(COLOURS) - 2))


def test_listing_joins_captions_selects_rows_and_reports_empty_texts(folder):
    with (folder / "captions.csv").open("a") as file:
        file.write("images/red.png,red,train\nimages/red.png,,train\n")
    failures = Failures()
    images = list_images([PairsFrom(path="captions.csv", where={"split": "train"})], folder, failures)
    assert len(images) == len(COLOURS) - 1
    assert images[0].texts == ["red", "a red thing"]
    assert failures.items == [("images/red.png", "the text is empty")]
    with pytest.raises(TrainingError, match="nowhere"):
        list_images([PairsFrom(path="captions.csv", where={"nowhere": "train"})], folder, failures)
    with pytest.raises(TrainingError, match="--data"):
        list_images([PairsFrom(path="absent")], folder, failures)
    with pytest.raises(TrainingError, match="--data"):
        list_images([PairsFrom(path="absent/*")], folder, failures)


def test_a_corrupt_shard_is_reported_and_the_others_are_read(tmp_path):
    shards = tmp_path / "shards"
    shards.mkdir()
    for number in range(2):
        with tarfile.open(shards / f"{number:05}.tar", "w") as tar:
            for name in ("red", "blue"):
                buffer = io.BytesIO()
                _image(name).save(buffer, "PNG")
                for suffix, content in (("png", buffer.getvalue()), ("txt", name.encode())):
                    member = tarfile.TarInfo(f"{name}{number}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    (shards / "00002.tar").write_bytes(b"not a tar file at all" * 100)
    failures = Failures()
    images = list_images([PairsFrom(path="shards")], tmp_path, failures)
    assert [image.texts for image in images] == [["blue"], ["red"]] * 2 or len(images) == 4
    assert len(failures) == 1
    assert "00002.tar" in failures.items[0][0]
    failures.write(tmp_path / "failures.csv")
    assert (tmp_path / "failures.csv").read_text().splitlines()[0] == "path,reason"
    found = result_of(EmbeddingStore(tmp_path / "store", TinyEncoder()).images([p.pair for p in images]))
    assert len(found.rows) == 4


def test_where_selects_rows_of_parquet_too(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    from impart.refset.pairs import Columns

    table = pa.table({"image": ["a.png", "b.png"], "text": ["a", "b"], "split": ["train", "val"]})
    pq.write_table(table, tmp_path / "pairs.parquet")
    pairs = list(read_pairs(tmp_path / "pairs.parquet", columns=Columns(where={"split": "val"})))
    assert [(pair.path, pair.text) for pair in pairs] == [("b.png", "b")]
    assert isinstance(pairs[0], Pair)


def test_an_encoder_without_retrieval_of_its_own_stores_one_vector(folder, tmp_path):
    class Plain(TinyEncoder):
        @property
        def traits(self):
            kept = super().traits
            return SimpleNamespace(
                **{**{n: getattr(kept, n) for n in ("id", "dim")}, "own_retrieval": False, "retrieval_dim": kept.dim}
            )

    store = EmbeddingStore(tmp_path / "store", Plain())
    found = result_of(store.images(_pairs(folder)))
    assert np.array_equal(store.retrieval[found.rows], store.image[found.rows])
    assert not (store.folder / "pictures.retrieval").exists()


def test_perceptual_hashes_are_kept_and_older_stores_lack_them(tmp_path):
    rng = np.random.default_rng(0)
    pairs = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.png"
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((64, 64)).save(path)
        pairs.append(Pair(image=path, text=name, path=path.name, location=str(path)))
    flat = tmp_path / "flat.png"
    _image("red").save(flat)
    pairs.insert(1, Pair(image=flat, text="red", path="flat.png", location=str(flat)))
    store = EmbeddingStore(tmp_path / "store", TinyEncoder())
    expected = [perceptual_hash(Image.open(pair.image)) for pair in pairs]
    assert result_of(store.images(pairs)).phashes == expected
    assert [bool(one) for one in expected] == [True, False, True]
    again = EmbeddingStore(tmp_path / "store", TinyEncoder())
    assert result_of(again.images(pairs[::-1])).phashes == expected[::-1]
    for file in again.folder.glob("phash.*"):
        file.unlink()
    assert result_of(EmbeddingStore(tmp_path / "store", TinyEncoder()).images(pairs)).phashes == ["", "", ""]
