"""Players: start the person's player at a moment of a video, without waiting for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from impart.errors import DataError
from impart.video.search.hits import timecode

__all__ = ["PLAYERS", "open_at"]

SHORT_S = 0.3  # a player that fails does so within this time

PLAYERS: dict[str, Callable[[str, float], list[str]]] = {
    "mpv": lambda file, at_s: [f"--start={at_s:.3f}", "--", file],
    "vlc": lambda file, at_s: [f"--start-time={at_s:.3f}", file],
    "ffplay": lambda file, at_s: ["-loglevel", "error", "-autoexit", "-ss", f"{at_s:.3f}", "-i", file],
}
"""Players that take a start time, in order of preference, with their arguments."""

_ELSEWHERE = {
    "vlc": (
        "/Applications/VLC.app/Contents/MacOS/VLC",
        r"C:\Program Files\VideoLAN\VLC\vlc.exe",
        r"C:\Program Files (x86)\VideoLAN\VLC\vlc.exe",
    ),
    "mpv": ("/Applications/mpv.app/Contents/MacOS/mpv",),
}
_QUICKTIME = """on run {target, seconds}
tell application "QuickTime Player"
activate
set film to open POSIX file target
set current time of film to (seconds as real)
play film
end tell
end run"""
_OPENERS = {"darwin": "open", "linux": "xdg-open"}


def open_at(path: Path, time_s: float, *, photo: bool = False) -> str:
    """Start a player at a time of a video: mpv, VLC, ffplay, QuickTime, or else the system's own, from the start.

    Args:
        photo: open it as an image, with the system's own viewer.

    Returns:
        A sentence that tells what was started.

    Raises:
        DataError: the file is gone, no player is found, or it ends at once with an error; names the remedy.
    """
    if not path.is_file():
        raise DataError(f"cannot open {path}: no such file")
    file = os.path.abspath(path)  # noqa: PTH100 - a link stays a link
    if not photo:
        for name, arguments in PLAYERS.items():
            program = _program(name)
            if program is not None:
                _start([program, *arguments(file, time_s)], file)
                return f"{name} plays {path.name} from {timecode(time_s)}"
        if sys.platform == "darwin" and shutil.which("osascript"):
            _start(["osascript", "-e", _QUICKTIME, file, f"{time_s:.3f}"], file)
            return f"QuickTime Player plays {path.name} from {timecode(time_s)}"
    hint = "" if photo else f", from its start: go to {timecode(time_s)}, or install mpv or VLC, which start there"
    if sys.platform == "win32":
        os.startfile(file)
        return f"opened {path.name} with the system's program{hint}"
    opener = shutil.which(_OPENERS.get(sys.platform, "xdg-open"))
    if opener is None:
        raise DataError(f"no player was found for {path} at {timecode(time_s)}: install mpv, VLC or ffplay")
    _start([opener, file], file)
    return f"opened {path.name} with the system's program{hint}"


def _program(name: str) -> str | None:
    found = shutil.which(name)
    if found is not None:
        return found
    return next((place for place in _ELSEWHERE.get(name, ()) if Path(place).is_file()), None)


def _start(command: Sequence[str], file: str) -> None:
    """Start a program of its own, which this one does not wait for.

    Raises:
        DataError: it cannot be started, or ends at once with an error.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise DataError(f"cannot start {command[0]}: {error.strerror or error}") from error
    try:
        code = process.wait(timeout=SHORT_S)
    except subprocess.TimeoutExpired:
        process.returncode = 0  # it plays on; Python would warn that nobody waits for it
        return
    if code:
        raise DataError(f"{Path(command[0]).name} ended with exit code {code}: it cannot play {file} here")
