"""Completeness: whether the whole video was decoded, until when its last frame is shown, and what was left out.

A video that ends before the declared end is either cut short, or its last frame is shown until then. FFmpeg reports
neither. A file is cut short only where the container proves it: bytes that it declares are missing, its last packet is
incomplete, reading failed, or the last packets cannot be decoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av

from impart.video.decode.streams import Choice, container_end_s
from impart.video.decode.structure import HAS_READER, IN_FRAGMENT, TS, has_second_film, missing_at_end
from impart.video.decode.timestamps import DAY_S, HOUR_S, Tally

__all__ = ["Ending", "ending_of", "further_streams", "packets_in_words", "second_film"]


@dataclass(frozen=True)
class Ending:
    """The end of what was decoded of a video, on the file's clock.

    Attributes:
        end_s: until when the last frame is shown.
        declared_s: the declared end of a video that is not whole; None = it is whole, or nothing is declared.
        problem: why this is not the whole video, or None.
    """

    end_s: float
    declared_s: float | None
    problem: str | None


def ending_of(
    path: Path,
    container: av.container.InputContainer,
    stream: av.VideoStream,
    tally: Tally,
    *,
    origin_s: float,
    last_s: float,
    end_s: float,
) -> Ending:
    """Judge a file of which all that can be read was read.

    Args:
        origin_s: start of the container.
        last_s, end_s: time and end of the last frame, by its own duration.
    """
    declared_s = None if tally.jumps else container_end_s(container, stream)
    if declared_s is not None and declared_s > last_s:
        end_s = min(end_s, declared_s)  # with B-frames, MP4 stores steps of the decoding time as durations
    expected_s = max(tally.sound_end_s, end_s) if declared_s is None else declared_s
    short = end_s < expected_s - max(0.5, 0.02 * (expected_s - origin_s))
    missing = tally.gave_up or _missing(path, container.format.name)
    if missing is None and container.format.name not in HAS_READER:
        if tally.cut_packet:
            missing = "the file ends in the middle of a packet"
        elif short and tally.sound_end_s < expected_s - 0.5:
            missing = "the file ends there"
    if missing is None and short and tally.damaged_last:
        missing = tally.reason
    if missing == IN_FRAGMENT:
        declared_s = None
    if missing and (short or declared_s is None):
        whole = "" if declared_s is None else f" of {declared_s - origin_s:.1f} s"
        return Ending(end_s, declared_s, f"stopped at {end_s - origin_s:.1f} s{whole}: {missing}")
    longest_s = last_s + (HOUR_S if declared_s is None else DAY_S)
    held_s = tally.sound_end_s
    if declared_s is not None and declared_s > held_s - 1:  # sound may be padded
        held_s = declared_s
    return Ending(max(end_s, held_s) if held_s <= longest_s else end_s, None, _damage(tally))


def further_streams(container: av.container.InputContainer, choice: Choice, tally: Tally) -> tuple[str, ...]:
    """Name the video streams that were left out, in words. A stream that continues the decoded one is not counted."""
    left_out = list(choice.further)
    if container.format.name == TS:
        left_out = [stream for stream in left_out if stream.id in tally.parallel]
    if not left_out:
        return ()
    return (f"{len(left_out)} further video stream{'' if len(left_out) == 1 else 's'} left out (--stream chooses)",)


def second_film(path: Path, format_name: str) -> tuple[str, ...]:
    """Name a second film behind the first, in words. No player shows it."""
    try:
        found = has_second_film(path, format_name)
    except OSError:  # `ending_of` reports it
        return ()
    return ("a second film behind the first is left out (join films by a tool, not byte by byte)",) if found else ()


def packets_in_words(tally: Tally) -> str:
    """Format the number of packets that could not be decoded."""
    return f"{tally.damaged} damaged packet" + ("" if tally.damaged == 1 else "s")


def _missing(path: Path, format_name: str) -> str | None:
    try:
        return missing_at_end(path, format_name)
    except OSError as error:
        return error.strerror or str(error)


def _damage(tally: Tally) -> str | None:
    parts = []
    if tally.damaged:
        parts.append(f"{packets_in_words(tally)} skipped: {tally.reason}")
    if tally.damaged_frames:
        parts.append(f"{tally.damaged_frames} damaged frame{'' if tally.damaged_frames == 1 else 's'} concealed")
    if tally.read_error:
        parts.append(f"a part could not be read: {tally.read_error}")
    return "; ".join(parts) or None
