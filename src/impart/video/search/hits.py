"""Hits: the results of a search, with their time span, score and reference pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from impart.errors import QueryError
from impart.video.index.store import Kind

__all__ = ["Hit", "Moment", "Reason", "parse_moment", "timecode"]


@dataclass(frozen=True, kw_only=True)
class Reason:
    """A reference pair that was blended into a hit's best segment; pairs with weights below 0.0005 are left out.

    Attributes:
        text, source: of the pair.
        weight_img, weight_txt: weights of its image and text embedding in the sum; the segment's own weight is 1.
        similarity: cosine of the retrieval embeddings of segment and pair; NaN where the video was replaced meanwhile.
    """

    text: str
    source: str
    weight_img: float
    weight_txt: float
    similarity: float


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A span of a video that a query describes.

    Attributes:
        start_s, end_s: of the span.
        score: as of a hit.
        best_s: start of its best segment.
    """

    start_s: float
    end_s: float
    score: float
    best_s: float


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One result of a search.

    Attributes:
        rank: from 1.
        start_s, end_s: of the scene with `group="scene"`, else of the best segment.
        score: a cosine; for a text query, less the hubness. Scores of different models cannot be compared.
        best_s: start of the best segment.
        scene_start_s, scene_end_s: of the scene that contains `best_s`.
        video_s: length of the video; 0 for a photo.
        kind: `video` or `photo`.
        names: taught names that raised its score.
        moments: further spans of the same video, best first.
        also_at: other files with the same content, copies and hard links, sorted; they are no hits of their own.
        why: reference pairs that were blended into that segment, largest weight first; empty unless asked for.
    """

    rank: int
    path: Path
    start_s: float
    end_s: float
    score: float
    video_id: str
    best_s: float
    scene_start_s: float
    scene_end_s: float
    video_s: float
    kind: Kind = "video"
    names: tuple[str, ...] = ()
    moments: tuple[Moment, ...] = ()
    also_at: tuple[Path, ...] = ()
    why: tuple[Reason, ...] = ()

    @property
    def timecode(self) -> str:
        return timecode(self.start_s)

    @property
    def length_s(self) -> float:
        return self.end_s - self.start_s


def timecode(seconds: float) -> str:
    """Format seconds as HH:MM:SS.mmm.

    >>> timecode(3723.0456)
    '01:02:03.046'
    """
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"


def parse_moment(moment: str) -> tuple[str, float]:
    """Parse `path@time`; the time is seconds, MM:SS or HH:MM:SS, each with a fraction.

    >>> parse_moment("films/a@b.mp4@01:02.5")
    ('films/a@b.mp4', 62.5)

    Raises:
        QueryError: there is no valid time.
    """
    file, at, clock = moment.rpartition("@")
    try:
        if not at or not file:
            raise ValueError("no time")
        seconds = 0.0
        for part in clock.split(":"):
            seconds = seconds * 60 + float(part)
    except ValueError as error:
        raise QueryError(f"{moment!r} has no time: write path@seconds or path@MM:SS, as in clip.mp4@12.5") from error
    return file, seconds
