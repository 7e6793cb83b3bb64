"""Messages between the server and the process of a job: one JSON object per line.

From the server: first the request, then orders: `{"order": "pause"}`, `resume`, `cancel`, `stop`. From the process: its
events, `{"type": "VideoDone", ...}`, and `paused`, `stopped`, `finished`, `error`. Names of files that are no UTF-8
have surrogates, which JSON escapes.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, cast

from impart.video.index import events
from impart.video.index.events import Event

__all__ = ["event_of", "line_of", "message_of"]

_PATHS = ("path", "old_path", "original")


def line_of(message: dict[str, Any] | Event) -> bytes:
    r"""Write a message, or an event of the library, as a line.

    >>> line_of(events.VideoRemoved(path=Path("a.mp4")))
    b'{"type": "VideoRemoved", "path": "a.mp4"}\n'
    """
    if not isinstance(message, dict):
        fields = {field.name: getattr(message, field.name) for field in dataclasses.fields(message)}
        message = {"type": type(message).__name__, **fields}
    return json.dumps(message, default=str).encode("ascii") + b"\n"


def message_of(line: bytes) -> dict[str, Any]:
    """Read a line.

    Raises:
        ValueError: it is no message.
    """
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError(f"no message: {line[:80]!r}")
    return message


def event_of(message: dict[str, Any]) -> Event | None:
    """Make the event of the library that a message is; None where it is another message.

    >>> event_of(message_of(line_of(events.VideoRemoved(path=Path("a.mp4"))))).path.name
    'a.mp4'
    """
    kind = getattr(events, str(message.get("type")), None)
    if not dataclasses.is_dataclass(kind) or not isinstance(kind, type):
        return None
    fields: dict[str, Any] = {name: value for name, value in message.items() if name != "type"}
    fields |= {name: Path(fields[name]) for name in _PATHS if name in fields}
    if "notes" in fields:
        fields["notes"] = tuple(fields["notes"])
    return cast("Event", kind(**fields))
