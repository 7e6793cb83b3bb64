"""The embedding store: computed once, survives kills, bad pictures cost themselves. And the listing before it."""

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
from impart.train.prepare.embeddings import EmbeddedPictures, EmbeddingStore
from impart.train.prepare.pairs import Failures, list_pictures
from impart.train.settings import PairsFrom


@pytest.fixture
def folder(tmp_path):
    where = tmp_path / "data"
    (where / "pictures").mkdir(parents=True)
    for name in COLOURS:
        _picture(name).save(where / "pictures" / f"{name}.png")
    rows = [
        f"pictures/{name}.png,{text},{'val' if name == 'cyan' else 'train'}"
        for name in COLOURS
        for text in (name, f"a {name} thing")
    ]
    (where / "captions.csv").write_text("file,text,split\n" + "\n".join(rows) + "\n")
    return where


def _picture(name):
    return Image.fromarray(solid(name))


def _result(events):
    *_, last = events
    return last


def _pairs(folder):
    return [picture.pair for picture in list_pictures([PairsFrom(path=".")], folder, Failures())]


def test_rows_hold_what_the_encoder_gives_and_nothing_is_computed_twice(folder, tmp_path):
    encoder, pairs = TinyEncoder(), _pairs(folder)
    store = EmbeddingStore(tmp_path / "store", encoder, batch=4)
    found = _result(store.pictures(pairs))
    expected = encoder.encode_images([solid(name) for name in COLOURS])
    assert np.allclose(store.image[found.rows], expected.embeddings, atol=1e-3)
    assert np.allclose(store.retrieval[found.rows], expected.retrieval, atol=1e-3)
    rows = _result(store.texts(["red", "blue", "red"]))
    assert rows[0] == rows[2] != rows[1]
    assert np.allclose(store.text[rows], encoder.encode_texts(["red", "blue", "red"]), atol=1e-3)
    fresh = TinyEncoder()
    again = EmbeddingStore(tmp_path / "store", fresh, batch=4)
    assert np.array_equal(_result(again.pictures(pairs)).rows, found.rows)
    assert fresh.images_encoded == 0
    other = EmbeddingStore(tmp_path / "store", TinyEncoder(seed=1))
    assert other.folder != store.folder
    assert len(other.image) == 0


def test_a_replaced_picture_is_computed_again(folder, tmp_path):
    pairs = _pairs(folder)
    _result(EmbeddingStore(tmp_path / "store", TinyEncoder()).pictures(pairs))
    Image.new("RGB", (40, 40), (1, 2, 3)).save(folder / "pictures" / "red.png")
    encoder = TinyEncoder()
    _result(EmbeddingStore(tmp_path / "store", encoder).pictures(pairs))
    assert encoder.images_encoded == 1


def test_stopped_anywhere_it_goes_on(folder, tmp_path):
    pairs = _pairs(folder)
    store = EmbeddingStore(tmp_path / "store", TinyEncoder(), batch=3)
    for event in store.pictures(pairs):
        if event.done >= 6:
            break  # two batches are on disk
    with (store.folder / "pictures.image").open("ab") as file:
        file.write(b"torn row of a killed writer")
    with (store.folder / "pictures.keys").open("r+b") as file:
        file.truncate(5 * 98 + 40)  # the sixth key was being written
    encoder = TinyEncoder()
    resumed = EmbeddingStore(tmp_path / "store", encoder, batch=3)
    found = _result(resumed.pictures(pairs))
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
        found = _result(store.pictures([pairs[number] for number in order]))
        return store.image[found.rows][np.argsort(order)]

    orders = [rng.permutation(40) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        filled = list(pool.map(fill, orders))
    expected = encoder.encode_images([Image.open(pair.picture) for pair in pairs]).embeddings
    for image in filled:
        assert np.allclose(image, expected, atol=1e-3)


def test_bad_pictures_are_counted_named_and_left_out(folder, tmp_path):
    (folder / "pictures" / "green.png").unlink()
    (folder / "pictures" / "blue.png").write_bytes(b"no picture")
    pairs = _pairs(folder)
    found = _result(EmbeddingStore(tmp_path / "store", TinyEncoder()).pictures(pairs))
    assert isinstance(found, EmbeddedPictures)
    assert [path for path, _ in found.failures] == ["pictures/green.png", "pictures/blue.png"]
    assert "missing" in found.failures[0][1]
    assert len(found.rows) == len(found.hashes) == len(COLOURS) - 2
    assert [i for i, place in enumerate(found.usable) if place < 0] == [1, 2]
    assert [place for place in found.usable if place >= 0] == list(range(len(COLOURS) - 2))


def test_listing_joins_captions_selects_rows_and_names_what_is_empty(folder):
    with (folder / "captions.csv").open("a") as file:
        file.write("pictures/red.png,red,train\npictures/red.png,,train\n")
    failures = Failures()
    pictures = list_pictures([PairsFrom(path="captions.csv", where={"split": "train"})], folder, failures)
    assert len(pictures) == len(COLOURS) - 1
    assert pictures[0].texts == ["red", "a red thing"]
    assert failures.items == [("pictures/red.png", "the text is empty")]
    with pytest.raises(TrainingError, match="nowhere"):
        list_pictures([PairsFrom(path="captions.csv", where={"nowhere": "train"})], folder, failures)
    with pytest.raises(TrainingError, match="--data"):
        list_pictures([PairsFrom(path="absent")], folder, failures)
    with pytest.raises(TrainingError, match="--data"):
        list_pictures([PairsFrom(path="absent/*")], folder, failures)


def test_a_corrupt_shard_is_listed_and_the_others_go_on(tmp_path):
    shards = tmp_path / "shards"
    shards.mkdir()
    for number in range(2):
        with tarfile.open(shards / f"{number:05}.tar", "w") as tar:
            for name in ("red", "blue"):
                buffer = io.BytesIO()
                _picture(name).save(buffer, "PNG")
                for suffix, content in (("png", buffer.getvalue()), ("txt", name.encode())):
                    member = tarfile.TarInfo(f"{name}{number}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    (shards / "00002.tar").write_bytes(b"not a tar file at all" * 100)
    failures = Failures()
    pictures = list_pictures([PairsFrom(path="shards")], tmp_path, failures)
    assert [picture.texts for picture in pictures] == [["blue"], ["red"]] * 2 or len(pictures) == 4
    assert len(failures) == 1
    assert "00002.tar" in failures.items[0][0]
    failures.write(tmp_path / "failures.csv")
    assert (tmp_path / "failures.csv").read_text().splitlines()[0] == "path,reason"
    found = _result(EmbeddingStore(tmp_path / "store", TinyEncoder()).pictures([p.pair for p in pictures]))
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
    found = _result(store.pictures(_pairs(folder)))
    assert np.array_equal(store.retrieval[found.rows], store.image[found.rows])
    assert not (store.folder / "pictures.retrieval").exists()
