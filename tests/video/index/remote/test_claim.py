"""One machine writes at a time."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from impart.errors import IndexLockedError
from impart.video.index.durable.lock import is_locked, write_lock
from impart.video.index.remote import claim as claims
from impart.video.index.remote.claim import Claim
from impart.video.index.remote.location import place_of
from impart.video.index.remote.mirror import Mirror, mirror_of
from impart.video.index.store import Store


def mirror_at(folder: Path) -> Mirror:
    mirror = mirror_of(folder)
    assert mirror is not None
    return mirror


@pytest.fixture
def two(url: str, on_machine: Callable[[str], None]) -> tuple[Path, Path]:
    """Folders of two machines of one index."""
    on_machine("there")
    there = place_of(url)
    on_machine("here")
    return place_of(url), there


def test_another_machine_is_refused_while_one_writes(two: tuple[Path, Path]) -> None:
    here, there = two
    with write_lock(here):
        assert is_locked(there)
        said = r"s3://films/.*\(on .*, process \d+, since 2\d{3}-"
        with pytest.raises(IndexLockedError, match=said), write_lock(there):
            pass
    assert not is_locked(there)
    with write_lock(there):
        assert is_locked(here)


def test_names_are_taught_while_another_machine_indexes(two: tuple[Path, Path]) -> None:
    from impart.video.names.store import names_lock

    here, there = two
    with write_lock(here), names_lock(there):
        pass


def test_a_killed_writer_blocks_its_own_machine_not_at_all_and_others_for_a_while(
    two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = two
    killed = Claim(mirror_at(here), "writer")
    killed._put()  # and nothing more: as after a kill
    with pytest.raises(IndexLockedError, match="If it was killed, its lock ends 60 s after that"), write_lock(there):
        pass
    with write_lock(here):
        pass
    killed._put()
    monkeypatch.setattr(claims, "STALE_S", 0.0)
    with write_lock(there):
        assert list(mirror_at(there).bucket.list("locks/writer")[0]) == [Claim(mirror_at(there), "writer")._name]


def test_who_lost_the_lock_writes_no_more(two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = two
    store = Store(here)
    with write_lock(here):
        with store.errors("write to"):
            pass
        with monkeypatch.context() as later:  # it slept for a minute, and another machine went on
            held = claims._HELD[f"{os.fspath(here)} writer"]
            later.setattr(claims, "STALE_S", 0.0)
            with write_lock(there):
                held._renewed = (held._renewed[0] - 1000, held._renewed[1] - 1000)
                lost = pytest.raises(IndexLockedError, match="lost the lock of the index s3://films")
                with lost, store.errors("write to"):
                    raise AssertionError("nothing is written")
        with pytest.raises(IndexLockedError, match="lost the lock"), store.errors("write to"):
            raise AssertionError("nothing is written")


def test_a_writer_that_was_late_goes_on_where_nobody_took_its_lock(two: tuple[Path, Path]) -> None:
    here, _ = two
    with write_lock(here):
        held = claims._HELD[f"{os.fspath(here)} writer"]
        held._renewed = (held._renewed[0] - 1000, held._renewed[1] - 1000)
        claims.check_claim(here)
        assert claims._since(held._renewed) < 5


def test_a_claim_is_renewed(two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    here, _ = two
    monkeypatch.setattr(claims, "RENEW_S", 0.1)
    with write_lock(here):
        held = claims._HELD[f"{os.fspath(here)} writer"]
        first = held._renewed
        time.sleep(0.4)
        assert held._renewed > first
        assert json.loads(mirror_at(here).bucket.read(held._name)[0])["process"] > 0
    assert not [thread for thread in threading.enumerate() if thread.name == "impart-claim"]


def test_of_many_that_begin_at_once_one_writes_at_a_time(
    url: str, on_machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = []
    for number in range(4):
        on_machine(f"machine {number}")
        folders.append(place_of(url))
    writing, most, done = [0], [0], []
    guard = threading.Lock()

    def write(folder: Path) -> None:
        with write_lock(folder, wait_s=20):
            with guard:
                writing[0] += 1
                most[0] = max(most[0], writing[0])
            time.sleep(0.05)
            with guard:
                writing[0] -= 1
        done.append(folder)

    threads = [threading.Thread(target=write, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert len(done) == 4
