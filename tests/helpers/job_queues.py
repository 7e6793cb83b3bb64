"""Job queues on small libraries: real child processes with the tiny encoder, which may be slow or crash.

queue = make_queue(index, films, pause_s=0.05)       # every batch of frames takes that long
index_process(pause_s)                                # the command of such a process
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.tiny_encoder import TinyEncoder
from impart.config import EncoderSettings, Settings
from impart.serve.jobs.children.index import main
from impart.serve.jobs.queue import JobQueue
from impart.serve.jobs.settings import JobSettings
from impart.video.index.index import VideoIndex

__all__ = ["SlowEncoder", "index_process", "make_queue", "run_index_process"]

TESTS = Path(__file__).parent.parent


class SlowEncoder(TinyEncoder):
    """Pauses before each batch of frames; ends its process at an orange frame where it is told to crash."""

    def __init__(self, pause_s: float = 0.0, *, crash: bool = False) -> None:
        super().__init__()
        self._pause_s, self._crash = pause_s, crash

    def encode_images(self, images: Any) -> Any:
        if self.images_encoded:  # a run begins with one blank image
            time.sleep(self._pause_s)
        if self._crash and any(tuple(image[0, 0].round(-1)) == (250, 130, 0) for image in images):
            os.abort()
        return super().encode_images(images)


def run_index_process(pause_s: float, crash: bool) -> None:
    """Serve one indexing request with a slow encoder."""

    def opens(folder: Path, *, device: str, threads: int) -> VideoIndex:
        settings = Settings(encoder=EncoderSettings(batch=4))
        return VideoIndex.open(folder, SlowEncoder(pause_s, crash=crash), settings=settings)

    main(opens)


def index_process(pause_s: float = 0.0, *, crash: bool = False) -> list[str]:
    """Make the command of a process for `run_index_process`."""
    script = (
        f"import sys; sys.path.insert(0, {str(TESTS)!r})\n"
        f"from helpers.job_queues import run_index_process\nrun_index_process({pause_s}, {crash})"
    )
    return [sys.executable, "-P", "-c", script]


def make_queue(
    index: Path,
    *roots: Path,
    pause_s: float = 0.0,
    crash: bool = False,
    on_indexed: Callable[[], None] = lambda: None,
    **settings: Any,
) -> JobQueue:
    """Make a queue whose indexing jobs use the tiny encoder, by default at the usual priority: others run tests too."""
    opened = VideoIndex.open(index, TinyEncoder())
    return JobQueue(
        index,
        records=lambda: {record.video_id: record for record in opened.videos()},
        exports=index.parent / "exports",
        roots=roots,
        settings=JobSettings(**{"nice": 0, **settings}),
        commands={"index": index_process(pause_s, crash=crash)},
        on_indexed=on_indexed,
    )
