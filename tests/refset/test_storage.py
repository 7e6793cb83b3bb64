"""Rows on disk: their digest is checked when a set is opened, and a damaged copy is written again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from helpers.colour_references import colour_set
from impart.errors import ReferenceSetError
from impart.refset import storage
from impart.refset.refset import ReferenceSet
from impart.retrieval.znorm import ZNorm


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A set of ten pairs with background statistics, on disk."""
    references = colour_set()
    rng = np.random.default_rng(0)
    background = rng.standard_normal((50, references.retrieval_embeddings.shape[1])).astype(np.float32)
    return references.with_znorm(ZNorm.of(background)).save(tmp_path / "colours.refset")


def flip(file: Path, find: bytes) -> None:
    """Change one bit of the bytes found in a file; its size stays."""
    content = bytearray(file.read_bytes())
    content[content.index(find)] ^= 1
    file.write_bytes(content)


def rows_file(folder: Path) -> Path:
    return next(folder.glob("pairs-*.arrow"))


@pytest.mark.parametrize("what", ["image", "retrieval", "text"])
def test_a_changed_bit_is_found(folder: Path, what: str) -> None:
    whole = ReferenceSet.open(folder)
    find = b"magenta" if what == "text" else storage.vectors(whole.data, what)[4].tobytes()
    flip(rows_file(folder), find)
    with pytest.raises(ReferenceSetError, match=rf"{rows_file(folder)}.*other rows.*Build the set again, or restore"):
        ReferenceSet.open(folder)


def test_changed_background_statistics_are_found(folder: Path) -> None:
    file = next(folder.glob("cohort-*.npy"))
    flip(file, file.read_bytes()[-4:])
    with pytest.raises(ReferenceSetError, match=rf"{file} is damaged"):
        ReferenceSet.open(folder).znorm  # noqa: B018 - read when first needed


def test_a_damaged_copy_is_written_again(folder: Path) -> None:
    whole = ReferenceSet.open(folder).named("kept")
    texts, background = whole.texts, whole.znorm
    copy = whole.save(folder.with_name("copy"))
    flip(rows_file(copy), b"magenta")
    next(copy.glob("cohort-*.npy")).write_bytes(b"")
    whole.save(copy)
    assert ReferenceSet.open(copy).texts == texts
    assert ReferenceSet.open(copy).znorm.digest == background.digest


def test_the_digest_of_a_large_file_is_computed_when_it_changed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, computed = storage.fingerprint_of, []
    monkeypatch.setattr(storage, "fingerprint_of", lambda *a, **k: computed.append(1) or real(*a, **k))
    monkeypatch.setattr(storage, "CHECKED_EACH_TIME", 0)
    for _ in range(3):
        ReferenceSet.open(folder)
    assert len(computed) == 1
    flip(rows_file(folder), b"magenta")
    with pytest.raises(ReferenceSetError, match="other rows"):
        ReferenceSet.open(folder)
    assert len(computed) == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("fingerprint", "../../../../home/someone"),
        ("fingerprint", "g" * 64),
        ("data", "../pairs-0123456789abcdef.arrow"),
        ("cohort", "/etc/passwd"),
        ("index", {"kind": "../hnsw"}),
        ("index", []),
        ("storage", "float64"),
        ("count", "ten"),
    ],
)
def test_a_manifest_names_nothing_outside_its_folder(folder: Path, key: str, value: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ReferenceSetError, match=rf"manifest\.json.*\b{key}\b"):
        ReferenceSet.open(folder)


def test_the_reason_of_an_error_without_a_number_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("Error writing bytes to file: No space left on device")  # as PyArrow does

    references = ReferenceSet.open(folder)
    monkeypatch.setattr(ReferenceSet, "_save_znorm", full)
    with pytest.raises(ReferenceSetError, match="No space left on device"):
        references.save(folder.with_name("copy.refset"))
