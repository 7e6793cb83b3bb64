"""Column store: appended, mapped, shared, cut to complete rows after a kill."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

from impart.errors import TrainingError
from impart.train.prepare.columns import Column, ColumnStore, column_key

LAYOUT = {"vectors": Column(np.float16, (3,)), "states": Column(np.float16, (2,), ragged=True)}
KEYS = [column_key(str(number)) for number in range(6)]


def _values(numbers):
    return {
        "vectors": [np.full(3, number) for number in numbers],
        "states": [np.full((number, 2), number) for number in numbers],
    }


def _open(folder, **options):
    return ColumnStore(folder, "rows", LAYOUT, **options)


def _filled(folder, count=6, **options):
    store = _open(folder, **options)
    for number in range(count):
        store.append([KEYS[number]], _values([number]), [f"{number:04}"] if options else ())
    return store


def _check(store, count):
    rows = store.rows(KEYS)
    assert rows.tolist() == [*range(count), *[-1] * (len(KEYS) - count)]
    assert len(store) == count
    assert store.column("vectors")[:, 0].tolist() == list(range(count))
    states, offsets = store.column("states"), store.offsets("states")
    assert offsets.tolist() == [0, *np.cumsum(np.arange(count)).tolist()]
    for row in range(count):
        own = states[offsets[row] : offsets[row + 1]]
        assert own.shape == (row, 2)
        assert (own == row).all()


def test_rows_are_found_by_key_and_mapped(tmp_path):
    _check(_filled(tmp_path), 6)
    store = _open(tmp_path)
    _check(store, 6)
    assert isinstance(store.column("vectors"), np.memmap)
    assert store.missing([*KEYS, column_key("new"), KEYS[0], column_key("new")]) == [6]


def test_an_empty_store_has_empty_columns(tmp_path):
    store = _open(tmp_path / "made")
    _check(store, 0)
    assert store.column("vectors").shape == (0, 3)
    store.append([], {"vectors": np.zeros((0, 3)), "states": []})
    assert len(store) == 0


def test_notes_are_kept_beside_the_keys(tmp_path):
    store = _filled(tmp_path, note=4)
    assert store.notes(np.array([5, 0])) == ["0005", "0000"]
    with pytest.raises(AssertionError, match="length"):
        store.append([column_key("other")], _values([1]), ["too long"])


@pytest.mark.parametrize("file", ["rows.keys", "rows.vectors", "rows.states", "rows.states.ends"])
@pytest.mark.parametrize("lost", [1, 9])
def test_a_damaged_tail_is_cut_and_written_again(tmp_path, file, lost):
    _filled(tmp_path)
    path = tmp_path / file
    whole = path.stat().st_size
    with path.open("r+b") as opened:
        opened.truncate(whole - lost)
    store = _open(tmp_path)
    left = len(store)
    assert 3 <= left < 6
    _check(store, left)
    for number in range(left, 6):
        store.append([KEYS[number]], _values([number]))
    _check(store, 6)
    assert path.stat().st_size == whole


def test_bytes_beyond_the_last_key_are_cut(tmp_path):
    _filled(tmp_path)
    for file in ("rows.vectors", "rows.states", "rows.states.ends"):
        with (tmp_path / file).open("ab") as opened:
            opened.write(b"torn row of a killed writer")
    store = _open(tmp_path)
    store.append([column_key("new")], _values([6]))
    assert store.column("vectors")[6].tolist() == [6, 6, 6]
    assert store.column("states")[-6:].tolist() == [[6, 6]] * 6


def test_several_writers_share_a_store(tmp_path):
    def fill(number):
        store = _open(tmp_path)
        for _ in range(5):
            store.append([KEYS[number]], _values([number]))
        return store

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(fill, range(6)))
    store = _open(tmp_path)
    assert len(store) == 30
    assert store.column("vectors")[store.rows(KEYS)][:, 0].tolist() == list(range(6))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="file"):
        _open(tmp_path / "file")
