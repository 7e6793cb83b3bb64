"""Migrations of an index: a process that is killed between any two steps leaves an index that the next run migrates."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from helpers.damage import Library, found_videos, make_library
from impart.errors import VideoIndexError
from impart.video.index import manifest as manifests
from impart.video.index.doctor.check import check_index
from impart.video.index.index import VideoIndex
from impart.video.index.manifest import MANIFESTS
from impart.video.index.store import VIDEOS, Store, schemas
from impart.video.index.writer import Writer

ADDED = ["kind", "recorded_at", "scene_start_s", "scene_end_s", "scene_kinds"]


class KilledError(BaseException):
    """Stands for a signal that ends the process: nothing catches it."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return make_library(tmp_path_factory.mktemp("migration"), everything=False)


@pytest.fixture
def older(made: Library, tmp_path: Path) -> Path:
    """An index without the columns that were added after version 0.1.0, without checksums and copy of the manifest."""
    index = Path(shutil.copytree(made.index, tmp_path / "library.impart"))
    Store(index).table(VIDEOS).drop_columns(ADDED)
    for name in ("checksums.txt", "manifest.copy.json"):
        (index / name).unlink()
    shutil.rmtree(index / "cache")
    return index


def killing(function: Callable[..., Any], calls: Iterator[int], *, at: int, after: bool) -> Callable[..., Any]:
    """Wrap a function: its call number `at` is killed before it begins, or after it has ended."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        here = next(calls) == at
        if here and not after:
            raise KilledError
        result = function(*arguments, **keywords)
        if here:
            raise KilledError
        return result

    return call


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", ["columns", "manifest", "failures", "checksums"])
def test_a_start_that_is_killed_is_repeated(
    older: Path, step: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name = {
        "columns": (Store, "add_columns"),
        "manifest": (manifests, "write_atomic"),
        "failures": (Writer, "_read_failures"),
        "checksums": (Writer, "_clean_up"),
    }[step]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killing(getattr(owner, name), iter(range(9)), at=0, after=after))
        with pytest.raises(KilledError), Writer(Store(older)):
            pass
    names = ["blue.mp4", "green.mp4", "magenta.jpg", "red.mp4", "yellow.jpg"]
    assert found_videos(VideoIndex.open(older)) == names, "it is searched meanwhile"
    for _ in range(2):
        with Writer(Store(older)) as writer:
            assert len(writer.videos) == len(names)
            assert schemas(writer.manifest)[VIDEOS].names == writer.store.table(VIDEOS).schema.names
    contents = {(older / name).read_bytes() for name in MANIFESTS}
    assert len(contents) == 1
    assert check_index(older).whole
    assert found_videos(VideoIndex.open(older)) == names


@pytest.mark.parametrize("kill", range(5))
def test_a_migration_of_the_schema_that_is_killed_is_repeated(
    older: Path, kill: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps, from schema 1 to 3; killed before or after each change of a table and each write of a manifest."""
    calls: list[str] = []

    def mark(step: str) -> None:
        calls.append(step)
        if len(calls) == kill + 1:
            raise KilledError

    def migrate(folder: Path, values: dict[str, Any]) -> dict[str, Any]:
        mark("before")
        table = Store(folder).table(VIDEOS)
        with suppress(ValueError, RuntimeError):  # as a migration must: it was done before the kill
            table.add_columns({f"new_{values['schema']}": "1"})
        mark("after")
        return values

    monkeypatch.setattr(manifests, "SCHEMA", 3)
    monkeypatch.setattr(manifests, "MIGRATIONS", {1: migrate, 2: migrate})
    with pytest.raises(VideoIndexError, match="migrate it with impart index"):
        check_index(older)
    with suppress(KilledError), Writer(Store(older)):
        pass
    kill = -1
    with Writer(Store(older)) as writer:
        assert writer.manifest.schema == 3
        assert {"new_1", "new_2"} <= set(writer.store.table(VIDEOS).schema.names)
        assert len(writer.videos) == 5
    assert [json.loads((older / name).read_bytes())["schema"] for name in MANIFESTS] == [3, 3]
    assert check_index(older).whole
