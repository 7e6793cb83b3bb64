"""A reference set on disk: round trip, merging, and a process killed while saving."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from helpers.tiny_encoder import COLOURS, TinyEncoder
from impart.blending.encoder import settings_of
from impart.config import VanillaSettings
from impart.errors import EncoderMismatchError, ReferenceSetError
from impart.refset.refset import ReferenceSet
from impart.retrieval import nearest
from impart.retrieval.znorm import ZNorm


def colours(*names: str) -> list[tuple[np.ndarray, str]]:
    return [(np.full((4, 4, 3), COLOURS[name], np.uint8), name) for name in names]


@pytest.fixture
def some(tiny: TinyEncoder) -> ReferenceSet:
    return ReferenceSet.build(colours("red", "green", "blue"), tiny, name="some", source="paint", licence="CC0")


def test_round_trip(some: ReferenceSet, tiny: TinyEncoder, tmp_path: Path) -> None:
    some.save(tmp_path / "set")
    back = ReferenceSet.open(tmp_path / "set")
    assert back.fingerprint == some.fingerprint
    assert back.table.equals(some.table)
    assert back.table.column_names == ["id", "text", "source", "licence", "hash", "path", "phash"]
    for name in ("image_embeddings", "text_embeddings", "retrieval_embeddings"):
        vectors = getattr(back, name)
        assert vectors.dtype == np.float32
        np.testing.assert_array_equal(vectors, getattr(some, name))
    np.testing.assert_allclose(back.text_embeddings, tiny.encode_texts(["red", "green", "blue"]), atol=1e-3)
    assert back.manifest.sources == ({"source": "paint", "licence": "CC0", "pairs": 3},)
    assert (back.encoder_id, back.encoder_fingerprint) == ("tiny", tiny.fingerprint)
    assert json.loads((tmp_path / "set" / "manifest.json").read_text())["count"] == 3


def test_float32_is_kept_exactly(tiny: TinyEncoder, tmp_path: Path) -> None:
    exact = ReferenceSet.build(colours("red"), tiny, storage="float32")
    exact.save(tmp_path)
    np.testing.assert_array_equal(ReferenceSet.open(tmp_path).text_embeddings, tiny.encode_texts(["red"]))


def test_the_fingerprint_depends_on_rows_and_not_on_batches(tiny: TinyEncoder, some: ReferenceSet) -> None:
    pairs = colours("red", "green", "blue")
    assert ReferenceSet.build(pairs, tiny, batch=1, source="paint", licence="CC0").fingerprint == some.fingerprint
    assert ReferenceSet.build(pairs[:2], tiny, source="paint", licence="CC0").fingerprint != some.fingerprint
    renamed = [pairs[0], pairs[1], (pairs[2][0], "azure")]
    assert ReferenceSet.build(renamed, tiny, source="paint", licence="CC0").fingerprint != some.fingerprint


def test_merge_and_add_drop_duplicates(some: ReferenceSet, tiny: TinyEncoder) -> None:
    more = ReferenceSet.build(colours("blue", "yellow"), tiny)
    merged = some.merge(more)
    assert merged.texts == ("red", "green", "blue", "yellow")
    assert merged.manifest.duplicates == 1
    assert merged.table["id"].to_pylist() == ["0", "1", "2", "3"]
    np.testing.assert_array_equal(merged.image_embeddings[3], more.image_embeddings[1])
    assert some.add(colours("blue", "yellow"), tiny).fingerprint == merged.fingerprint
    assert len(some) == 3


def test_same_image_with_another_text_is_not_a_duplicate(some: ReferenceSet, tiny: TinyEncoder) -> None:
    image = colours("red")[0][0]
    both = some.add([(image, "a red wall"), (image, "red")], tiny)
    assert both.texts == ("red", "green", "blue", "a red wall")
    assert both.images.tolist() == [0, 1, 2, 0]


def test_another_encoder_is_refused_with_both_names(some: ReferenceSet) -> None:
    other = TinyEncoder(7)
    with pytest.raises(EncoderMismatchError, match=r"'tiny'.*'tiny:7'"):
        some.merge(ReferenceSet.build(colours("red"), other))
    with pytest.raises(EncoderMismatchError, match=r"'tiny'.*'tiny:7'"):
        some.add(colours("red"), other)


def test_prototypes_without_images(tmp_path: Path) -> None:
    vectors = np.eye(16, dtype=np.float32)[:5]
    made = ReferenceSet.from_arrays(
        list("abcde"), image=vectors, text=vectors, retrieval=vectors, encoder_id="e", encoder_fingerprint="f"
    )
    made.save(tmp_path)
    back = ReferenceSet.open(tmp_path)
    assert back.images.tolist() == [0, 1, 2, 3, 4]
    assert back.search(vectors[2:3], 2).ids[0, 0] == 2
    assert len(made.merge(made)) == 5


def test_image_numbers_by_hash(some: ReferenceSet) -> None:
    hashes = some.table["hash"].to_pylist()
    assert some.image_numbers([hashes[2], "", "unknown"]).tolist() == [2, -1, -1]


def test_damaged_and_missing_sets_are_refused(tmp_path: Path, some: ReferenceSet) -> None:
    with pytest.raises(ReferenceSetError, match="impart refset build"):
        ReferenceSet.open(tmp_path)
    some.save(tmp_path)
    next(tmp_path.glob("*.arrow")).write_bytes(b"short")
    with pytest.raises(ReferenceSetError, match="Build the set again"):
        ReferenceSet.open(tmp_path)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema": 1', '"schema": 99'))
    with pytest.raises(ReferenceSetError, match="schema 99"):
        ReferenceSet.open(tmp_path)
    manifest.write_text("{")
    with pytest.raises(ReferenceSetError, match="cannot be read"):
        ReferenceSet.open(tmp_path)


@pytest.mark.parametrize("key", ["sources", "count"])
def test_a_manifest_that_lacks_a_key_is_incomplete(tmp_path: Path, some: ReferenceSet, key: str) -> None:
    some.save(tmp_path / "set")
    manifest = tmp_path / "set" / "manifest.json"
    content = json.loads(manifest.read_text())
    del content[key]
    manifest.write_text(json.dumps(content))
    with pytest.raises(ReferenceSetError, match=rf"manifest.json lacks {key}.*Build the set again"):
        ReferenceSet.open(tmp_path / "set")


def test_blending_settings_that_lack_a_key_are_refused(some: ReferenceSet) -> None:
    stored = dataclasses.asdict(VanillaSettings(target=0.3))
    assert settings_of(some.with_vanilla(stored)) == VanillaSettings(target=0.3)
    del stored["target"]
    with pytest.raises(ReferenceSetError, match=r"cannot be read .*impart refset tune"):
        settings_of(some.with_vanilla(stored))


def test_saving_over_a_set_leaves_one_table(some: ReferenceSet, tiny: TinyEncoder, tmp_path: Path) -> None:
    some.save(tmp_path)
    some.add(colours("white"), tiny).save(tmp_path)
    assert len(list(tmp_path.glob("*.arrow"))) == 1
    assert len(ReferenceSet.open(tmp_path)) == 4


def test_killed_while_saving_keeps_a_whole_set(tmp_path: Path) -> None:
    """A process that saves two sets in turn is killed at ten moments; the folder always opens as one of the two."""
    script = tmp_path / "saver.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, numpy as np
            from impart.refset.refset import ReferenceSet
            def make(count):
                v = np.random.default_rng(count).standard_normal((count, 64)).astype(np.float32)
                return ReferenceSet.from_arrays([str(i) for i in range(count)], image=v, text=v, retrieval=v,
                                                encoder_id="e", encoder_fingerprint="f")
            sets = [make(2000), make(3000)]
            sets[0].save(sys.argv[1])
            print("ready", flush=True)
            while True:
                for one in sets:
                    one.save(sys.argv[1])
            """
        )
    )
    folder = tmp_path / "set"
    for attempt in range(10):
        process = subprocess.Popen([sys.executable, str(script), str(folder)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.003 * attempt)
        process.kill()
        process.wait()
        process.stdout.close()
        left = ReferenceSet.open(folder)
        assert len(left) in (2000, 3000)
        assert len(left.image_embeddings) == len(left)


def test_an_approximate_index_is_stored_and_a_damaged_one_is_built_again(
    tiny: TinyEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "EXACT_BELOW", 0)
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8), f"noise {i}") for i in range(300)]
    made = ReferenceSet.build(pairs, tiny, path=tmp_path / "set", index="hnsw")
    assert made.manifest.index["kind"] == "hnsw"
    assert made.manifest.index["recall"] > 0.9
    kept = next((tmp_path / "set").glob("*.hnsw"))
    want = made.search(made.retrieval_embeddings[:20], 5).ids
    np.testing.assert_array_equal(
        ReferenceSet.open(tmp_path / "set").search(made.retrieval_embeddings[:20], 5).ids, want
    )
    made.save(tmp_path / "copy")
    assert len(list((tmp_path / "copy").glob("*.hnsw"))) == 1
    kept.write_bytes(b"damaged")
    np.testing.assert_array_equal(
        ReferenceSet.open(tmp_path / "set").search(made.retrieval_embeddings[:20], 5).ids, want
    )
    made.merge(ReferenceSet.build(pairs[:1], tiny)).save(tmp_path / "set")
    assert len(list((tmp_path / "set").iterdir())) == 3


def test_a_small_set_of_an_earlier_version_is_searched_exactly(some: ReferenceSet, tmp_path: Path) -> None:
    some.save(tmp_path)
    path = tmp_path / "manifest.json"
    stored = json.loads(path.read_text())
    stored["index"] = {"kind": "ivf", "recall": 0.04, "sample": 3, "parameters": {"lists": 3, "probes": 1}}
    path.write_text(json.dumps(stored))
    again = ReferenceSet.open(tmp_path)
    assert (again.index.kind, again.manifest.index["recall"]) == ("exact", 1)
    again.save(tmp_path / "copy")
    assert not list((tmp_path / "copy").glob("*.ivf"))


def test_without_rows_keeps_settings_and_znorm(some: ReferenceSet, tiny: TinyEncoder, tmp_path: Path) -> None:
    background = ZNorm.of(np.eye(8, dtype=np.float32))
    given = some.with_znorm(background).with_vanilla({"k": 2})
    left = given.without([1])
    assert left.texts == ("red", "blue")
    np.testing.assert_array_equal(left.retrieval_embeddings, some.retrieval_embeddings[[0, 2]])
    assert left.manifest.vanilla == {"k": 2}
    assert left.given_znorm is not None
    assert left.given_znorm.digest == background.digest
    assert left.manifest.sources == ({"source": "paint", "licence": "CC0", "pairs": 2},)
    rebuilt = ReferenceSet.build(colours("red", "blue"), tiny, source="paint", licence="CC0")
    assert left.data.drop_columns("path").equals(rebuilt.data.drop_columns("path"))
    assert left.fingerprint not in (some.fingerprint, some.without([0]).fingerprint)
    assert some.without([]) is some
    assert len(some) == 3
    left.save(tmp_path / "left")
    assert ReferenceSet.open(tmp_path / "left").texts == ("red", "blue")


def test_keys_and_files_on_disk_are_those_of_version_0_1_0(some: ReferenceSet, tmp_path: Path) -> None:
    given = some.with_znorm(ZNorm.of(np.eye(8, dtype=np.float32)))
    given.save(tmp_path)
    (statistics,) = tmp_path.glob("cohort-*.npy")
    content = json.loads((tmp_path / "manifest.json").read_text())
    assert content["cohort"] == statistics.name
    assert "znorm" not in content
    assert given.manifest.as_dict().keys() == content.keys()
    opened = ReferenceSet.open(tmp_path)
    assert opened.manifest.znorm == statistics.name
    assert opened.znorm.digest == given.znorm.digest


def test_without_all_rows_is_an_empty_set(some: ReferenceSet, tiny: TinyEncoder) -> None:
    empty = some.without(range(3))
    assert len(empty) == 0
    plain = tiny.encode_images([np.full((4, 4, 3), 200, np.uint8)])
    assert (empty.search(plain.retrieval, 2).ids == -1).all()


def test_take_rows_in_the_order_given(some: ReferenceSet) -> None:
    given = some.with_znorm(ZNorm.of(np.eye(8, dtype=np.float32))).with_vanilla({"k": 2})
    taken = given.take([2, 0])
    assert taken.texts == ("blue", "red")
    np.testing.assert_array_equal(taken.image_embeddings, some.image_embeddings[[2, 0]])
    assert taken.table["id"].to_pylist() == ["0", "1"]
    assert taken.manifest.vanilla == {"k": 2}
    assert taken.given_znorm is not None
    assert taken.take([1]).data.equals(some.without([1, 2]).data)
    assert len(some.take([])) == 0


def test_take_rows_with_the_texts_of_others(some: ReferenceSet) -> None:
    wrong = some.take([0, 1, 2], texts_of=[0, 2, 1])
    assert wrong.texts == ("red", "blue", "green")
    np.testing.assert_array_equal(wrong.text_embeddings, some.text_embeddings[[0, 2, 1]])
    np.testing.assert_array_equal(wrong.retrieval_embeddings, some.retrieval_embeddings)
    assert wrong.manifest.settings["other_texts"] == 2
    assert wrong.fingerprint != some.fingerprint
