"""Worker process of the decoder: `python -m impart.video.decode.worker`.

A damaged file may crash FFmpeg or make it hang. In a process of its own this costs one process and one file. It may
also declare images of any size: on Linux, the process limits its own memory (`DecodeSettings.memory_gb`).

Requests are read from standard input, one JSON object per line. Messages are written to standard output, each a length,
a JSON header and the bytes of the image:

    request   {"id": 7, "path": "a.mp4", "short_side_px": 224, "settings": {"fps": 4.0, ...}}
    message   uint32 little endian, JSON {"kind": "segment", "id": 7, "size": 267456, ...}, `size` bytes

Kinds: `ready` once, then for each request any number of `segment` and `alive`, and one `finished` or `failed`.
The end of standard input ends the process: its parent has closed it or died.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from impart.config import DecodeSettings
from impart.errors import DecodeError
from impart.video.decode.content import is_photo
from impart.video.decode.sampler import DecodedSegment, DecodeFinished, sample_video

if sys.platform == "linux":  # Windows has no such module; macOS ignores the limit
    import resource

__all__ = ["limit_memory", "main", "memory_reason", "read_message", "write_message"]

ALIVE_S = 1.0  # pause after which an `alive` message is sent
LENGTH = struct.Struct("<I")
GB = 2**30


def write_message(pipe: IO[bytes], header: dict[str, Any], payload: bytes | memoryview = b"") -> None:
    """Write one message and flush it."""
    head = json.dumps({**header, "size": len(payload)}).encode("ascii")
    pipe.write(LENGTH.pack(len(head)) + head)
    pipe.write(payload)
    pipe.flush()


def read_message(pipe: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """Read one message; None where the pipe ends (also in the middle of one)."""
    length = pipe.read(LENGTH.size)
    if len(length) < LENGTH.size:
        return None
    wanted = LENGTH.unpack(length)[0]
    head = pipe.read(wanted)
    if len(head) < wanted:
        return None
    header: dict[str, Any] = json.loads(head)
    payload = pipe.read(header["size"])
    return None if len(payload) < header["size"] else (header, payload)


def limit_memory(memory_gb: float) -> None:
    """Limit the memory that this process takes from now on; does nothing but on Linux.

    What it has taken already, such as what a library did not free after an earlier file, does not count. Mapped files
    and the code of libraries do not count either. macOS accepts the limit and ignores it; Windows has none.

    Args:
        memory_gb: in GiB; 0 = no limit.
    """
    if sys.platform != "linux":
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = resource.RLIM_INFINITY
    if memory_gb:
        taken = int(Path("/proc/self/statm").read_text("ascii").split()[5]) * resource.getpagesize()
        wanted = taken + int(memory_gb * GB)
    if hard != resource.RLIM_INFINITY:
        wanted = hard if wanted == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))


def memory_reason(memory_gb: float) -> str:
    """Name the reason of a file that exceeds the limit."""
    if not memory_gb:
        return "needs more memory to decode than there is"
    return f"needs more than {memory_gb:g} GB of memory to decode (decode.memory_gb sets the limit)"


def main() -> None:
    """Serve requests until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both processes; the parent ends this one
    # Text that a library prints to standard output must not get between the messages.
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    try:
        write_message(pipe, {"kind": "ready"})
        while True:
            _serve(pipe, requests.get())
    except OSError:  # the parent closed the pipe
        os._exit(0)


def _read_requests(requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    # Not sys.stdin: a thread that waits in it makes Python abort at exit, which hides the first error.
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as stdin:
        for line in stdin:
            requests.put(json.loads(line))
    os._exit(0)  # from this thread, so that it also ends a decoder that hangs


def _serve(pipe: IO[bytes], request: dict[str, Any]) -> None:
    last_message_s = time.monotonic()

    def alive(time_s: float) -> None:
        nonlocal last_message_s
        now_s = time.monotonic()
        if now_s - last_message_s >= ALIVE_S:
            last_message_s = now_s
            write_message(pipe, {"kind": "alive", "id": request["id"], "time_s": time_s})

    settings = DecodeSettings(**request["settings"])
    limit_memory(settings.memory_gb)
    found = _sample(request, settings, on_progress=alive)
    while True:
        try:
            item = next(found)
        except StopIteration:
            return
        except (DecodeError, MemoryError) as error:
            if isinstance(error, DecodeError) and not isinstance(error.__cause__, MemoryError):
                failed = {"reason": error.reason, "lasting": error.lasting}
            else:
                failed = {"reason": memory_reason(settings.memory_gb), "lasting": True}
        except Exception as error:  # noqa: BLE001 - whatever one file raises is that file's failure
            failed = {"reason": f"cannot be decoded: {type(error).__name__}: {error}", "lasting": True}
        else:
            last_message_s = time.monotonic()
            _write_item(pipe, request["id"], item)
            continue
        write_message(pipe, {"kind": "failed", "id": request["id"], **failed})
        return


def _sample(
    request: dict[str, Any], settings: DecodeSettings, *, on_progress: Callable[[float], None]
) -> Iterator[DecodedSegment | DecodeFinished]:
    """Decode a photo or a video; whatever is raised, it is from the first item on."""
    path = Path(request["path"])
    try:
        photo = path.is_file() and is_photo(path)
    except OSError:
        photo = False  # as a video, the reason is named
    if photo:
        from impart.video.decode.photo import sample_photo  # Pillow: not needed for videos, and it takes time

        yield from sample_photo(path, settings=settings, short_side_px=request["short_side_px"])
        return
    yield from sample_video(path, settings=settings, short_side_px=request["short_side_px"], on_progress=on_progress)


def _write_item(pipe: IO[bytes], number: int, item: DecodedSegment | DecodeFinished) -> None:
    if isinstance(item, DecodedSegment):
        height, width = item.image.shape[:2]
        header = {"start_s": item.start_s, "end_s": item.end_s, "weight": item.weight, "shape": [height, width]}
        header["still"] = item.still
        write_message(pipe, {"kind": "segment", "id": number, **header}, item.image.data.cast("B"))
    else:
        finished = dataclasses.asdict(item)
        del finished["path"]  # the parent has it; a name may have bytes that JSON has not
        write_message(pipe, {"kind": "finished", "id": number, **finished})


if __name__ == "__main__":
    main()
