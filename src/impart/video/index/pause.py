"""Pause: a file in the index folder that makes every indexing run wait, whoever started it, until it is removed.

A file works on every system, outlives a restart, and is seen by all processes that index.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

from impart.errors import VideoIndexError
from impart.files import now, write_json_atomic
from impart.video.index.events import Event, RunPaused
from impart.video.index.remote.mirror import publishing, refreshed

__all__ = ["PAUSED", "is_paused", "obeying", "pause", "resume"]

PAUSED = "paused.json"
_CHECK_S = 1.0
_ASK_S = 5.0  # of an index on object storage
_Result = TypeVar("_Result")


def pause(index: Path) -> None:
    """Make the runs of an index wait, from their next batch of frames on.

    Raises:
        VideoIndexError: the folder cannot be written.
    """
    try:
        with publishing(index, PAUSED):
            write_json_atomic(index / PAUSED, {"since": now()})
    except OSError as error:
        raise VideoIndexError(f"cannot write {index / PAUSED}: {error.strerror or error}") from error


def resume(index: Path) -> bool:
    """Let the runs of an index go on. Returns whether it was paused.

    Raises:
        VideoIndexError: the folder cannot be written.
    """
    try:
        refreshed(index, whole=True)
        with publishing(index, PAUSED):
            (index / PAUSED).unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise VideoIndexError(f"cannot remove {index / PAUSED}: {error.strerror or error}") from error
    return True


def is_paused(index: Path) -> bool:
    """Whether the runs of an index wait."""
    refreshed(index, max_age_s=_ASK_S)
    return (index / PAUSED).exists()


def obeying(index: Path, steps: Generator[Event, None, _Result]) -> Generator[Event, None, _Result]:
    """Carry out the steps of a run; wait between two of them while the index is paused.

    Yields:
        The events of the steps, and one `RunPaused` per second of waiting, so that a consumer may stop the run.

    Returns:
        The result of the steps.
    """
    try:
        while True:
            began = time.monotonic()
            while is_paused(index):
                yield RunPaused(paused_s=time.monotonic() - began)
                time.sleep(_CHECK_S)
            try:
                event = next(steps)
            except StopIteration as end:
                result: _Result = end.value
                return result
            yield event
    finally:
        steps.close()
