"""Worker process of media: `python -m impart.serve.media.worker.main`.

A damaged file may crash FFmpeg or make it hang. In a process of its own this costs one request, and not the server.

Requests are read from standard input, one JSON object per line; answers are messages of `impart.video.decode.worker`:

    request   {"task": "frame", "source": {...}, "time_s": 12.5, "width_px": 320}
              {"task": "preview", "source": {...}, "start_s": 1, "end_s": 9, "target": "a.mp4"}
    message   "ready" once, then per request any number of "alive", and one "done" or "failed"

The end of standard input ends the process, and so does a long time without a request.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from impart.errors import ImpartError
from impart.serve.media.worker.images import frame_webp
from impart.serve.media.worker.source import MediaSource
from impart.serve.media.worker.transcode import UNWRITABLE, write_preview
from impart.video.decode.worker import ALIVE_S, write_message

__all__ = ["IDLE", "main"]

IDLE = 75
"""Exit code of a process that had no request for long."""


def main(*, nice: int, idle_s: float) -> None:
    """Serve requests until standard input ends.

    Args:
        nice: how much lower the priority is than that of the server.
        idle_s: time without a request after which the process ends.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the server ends this one
    if nice and hasattr(os, "nice"):
        with suppress(OSError):
            os.nice(nice)
    # Text that a library prints to standard output must not get between the messages.
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    try:
        write_message(pipe, {"kind": "ready"})
        while True:
            _serve(pipe, requests.get(timeout=idle_s))
    except queue.Empty:
        os._exit(IDLE)
    except OSError:  # the server closed the pipe
        os._exit(0)


def _read_requests(requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as stdin:
        for line in stdin:
            requests.put(json.loads(line))
    os._exit(0)  # from this thread, so that it also ends a decoder that hangs


def _serve(pipe: IO[bytes], request: dict[str, Any]) -> None:
    content = b""
    try:
        source = MediaSource.from_json(request["source"])
        if request["task"] == "frame":
            content = frame_webp(source, request["time_s"], width_px=request["width_px"])
        else:
            _preview(pipe, source, request)
    except ImpartError as error:
        write_message(pipe, {"kind": "failed", "reason": str(error)})
    except Exception as error:  # noqa: BLE001 - whatever one file raises is the failure of this request
        reason = f"{request['source']['path']} cannot be decoded: {type(error).__name__}: {error}"
        unwritable = isinstance(error, OSError) and error.errno in UNWRITABLE
        if unwritable:
            reason = str(error)
        write_message(pipe, {"kind": "failed", "reason": reason, "unwritable": unwritable})
    else:
        write_message(pipe, {"kind": "done"}, content)


def _preview(pipe: IO[bytes], source: MediaSource, request: dict[str, Any]) -> None:
    last_s = time.monotonic()

    def alive() -> None:
        nonlocal last_s
        if time.monotonic() - last_s >= ALIVE_S:
            last_s = time.monotonic()
            write_message(pipe, {"kind": "alive"})

    write_preview(
        source.path,
        request["start_s"],
        request["end_s"],
        Path(request["target"]),
        jumps=source.jumps,
        on_progress=alive,
    )


if __name__ == "__main__":
    main(nice=int(sys.argv[1]), idle_s=float(sys.argv[2]))
