"""The catalogue: sorted and filtered quickly, and read behind the requests."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_server import write_library
from impart.errors import VideoIndexError
from impart.serve.library import catalogue as module
from impart.serve.library.catalogue import Catalogue, CatalogueReader, Filters, Key
from impart.video.index.store import Store, VideoRecord


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> VideoRecord:
    return Store(write_library(tmp_path_factory.mktemp("library"))).videos()[0]


def many(record: VideoRecord, count: int) -> Iterator[VideoRecord]:
    for i in range(count):
        path = Path(f"/films/{i // 100}/{i}.mp4")
        yield dataclasses.replace(record, video_id=f"{i:016x}", path=path, duration_s=float(i))


def page(catalogue: Catalogue, wanted: Filters, after: Key | None) -> list[str]:
    found = catalogue.listed("length", wanted, descending=True, after=after)
    return [record.path.name for _, record in itertools.islice(found, 24)]


def test_thirty_thousand_videos_are_paged_quickly(record: VideoRecord) -> None:
    catalogue, wanted = Catalogue("1", many(record, 30_000)), Filters(q="77.mp4")
    began = time.process_time()
    assert page(catalogue, wanted, None)[0] == "29977.mp4"
    assert len(catalogue.folders) == 301
    first_s, began = time.process_time() - began, time.process_time()
    for _ in range(20):
        assert page(catalogue, wanted, (20_000.0, ""))[0] == "19977.mp4"
        assert catalogue.count(wanted) == 300
    assert first_s < 2.0
    assert (time.process_time() - began) / 20 < 0.05


class SlowStore:
    """A store whose videos are read when the test lets them."""

    def __init__(self, records: list[VideoRecord]) -> None:
        self.records, self.number = records, 1
        self.go_on = threading.Event()
        self.error: VideoIndexError | None = None

    def state(self) -> str:
        return str(self.number)

    def retry(self, read: Any) -> Any:
        return read()

    def videos(self) -> list[VideoRecord]:
        self.go_on.wait(20)
        if self.error is not None:
            raise self.error
        return self.records[: self.number]


@pytest.fixture
def store(record: VideoRecord) -> SlowStore:
    return SlowStore(list(many(record, 3)))


@pytest.fixture
def reader(store: SlowStore) -> Iterator[CatalogueReader]:
    made = CatalogueReader(store)  # type: ignore[arg-type]
    yield made
    store.go_on.set()
    made.close()


def test_the_one_before_is_returned_until_the_newest_is_read(
    store: SlowStore, reader: CatalogueReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 0.02)
    store.go_on.set()
    assert len(reader.get()) == 1
    store.go_on.clear()
    store.number = 2
    began = time.monotonic()
    assert [len(reader.get()) for _ in range(3)] == [1, 1, 1]
    assert time.monotonic() - began < 2
    store.go_on.set()
    assert len(reader.get(newest=True)) == 2
    assert len(reader.get()) == 2


def test_the_newest_is_that_of_the_last_commit_also_if_one_is_being_read(
    store: SlowStore, reader: CatalogueReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 0.02)
    store.go_on.set()
    reader.get()
    store.go_on.clear()
    store.number = 2
    assert len(reader.get()) == 1  # begins to read
    store.number = 3
    threading.Timer(0.1, store.go_on.set).start()
    newest = reader.get(newest=True)
    assert (newest.state, len(newest)) == ("3", 3)


def test_an_error_is_told_and_tried_again(store: SlowStore, reader: CatalogueReader) -> None:
    store.go_on.set()
    store.error = VideoIndexError("damaged")
    with pytest.raises(VideoIndexError, match="damaged"):
        reader.get()
    store.error = None
    assert len(reader.get()) == 1
