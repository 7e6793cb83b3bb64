"""Process of an indexing job: `python -m impart.serve.jobs.children.index`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from impart.config import Device
from impart.serve.jobs.children.control import Control, serve_request
from impart.video.index.events import RunPaused, VideoAbsent, VideoDone, VideoFailed, VideoStarted
from impart.video.index.index import VideoIndex

__all__ = ["main", "open_index"]


def open_index(folder: Path, *, device: Device, threads: int) -> VideoIndex:
    """Open the index with its own settings, those of the environment, and a device and threads for its encoder."""
    from impart.config import Settings
    from impart.video.index.manifest import IndexManifest

    start = None
    if IndexManifest.exists(folder):
        manifest = IndexManifest.load(folder)
        start = Settings(decode=manifest.decode, index=manifest.index)
    flags = {"encoder.device": device if device != "auto" else None, "encoder.threads": threads or None}
    return VideoIndex.open(folder, settings=Settings.load(None, flags=flags, start=start))


def main(opens: Callable[..., VideoIndex] = open_index) -> None:
    """Serve one request.

    Args:
        opens: opens the index; tests give another function.
    """

    def work(request: dict[str, Any], control: Control) -> None:
        _index(opens(Path(request["index"]), device=request["device"], threads=request["threads"]), request, control)

    serve_request(work)


def _index(index: VideoIndex, request: dict[str, Any], control: Control) -> None:
    events = index.add(
        request["paths"], within=request["roots"], prune=request["prune"], retry_failed=request["retry_failed"]
    )
    in_progress = False
    with closing(events):  # type: ignore[type-var]
        for event in events:
            control.send(event)
            if isinstance(event, VideoStarted):
                in_progress = True
            elif isinstance(event, VideoDone | VideoFailed | VideoAbsent):
                in_progress = False
            order = control.checkpoint()
            if order == "cancel" or (order == "stop" and (not in_progress or isinstance(event, RunPaused))):
                control.send({"type": "stopped"})
                return
    control.send({"type": "finished"})


if __name__ == "__main__":
    main()
