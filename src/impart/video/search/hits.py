"""Hits: the results of a search, with their time span, score and reference pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from impart.errors import QueryError
from impart.video.index.store import Kind

__all__ = ["Hit", "Moment", "NearCopy", "Reason", "parse_moment", "timecode"]


@dataclass(frozen=True, kw_only=True)
class Reason:
    """A reference pair that was blended into a hit's best segment; pairs with weights below 0.0005 are left out.

    Attributes:
        text, source: of the pair.
        weight_img, weight_txt: weights of its image and text embedding in the sum; the segment's own weight is 1. Of
            solved references `weight_txt` is the amount, of either sign, that the pair adds to the product of the
            segment with the text of the name that they predict together.
        similarity: cosine of the retrieval embeddings of segment and pair; NaN where the video was replaced meanwhile.
        row: of the pair in the reference set.
    """

    text: str
    source: str
    weight_img: float
    weight_txt: float
    similarity: float
    row: int = -1


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
class NearCopy:
    """A span of another video that shows the same as a hit, such as a trimmed or re-encoded copy.

    Attributes:
        start_s, end_s: of the span; score, kind: as of a hit.
    """

    path: Path
    start_s: float
    end_s: float
    score: float
    kind: Kind = "video"


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One result of a search.

    Attributes:
        rank: from 1.
        start_s, end_s: of the best moment, of the scene with `group="scene"`, of the best segment with `by="frame"` or
            `group="frame"`.
        score: a cosine; for a text query, less the hubness. Scores of different models cannot be compared.
        best_s: start of the best segment.
        scene_start_s, scene_end_s: of the scene that contains `best_s`.
        video_s: length of the video; 0 for a photo.
        kind: `video` or `photo`.
        recorded_at: Unix time (s) at which it was recorded, by the file itself; None = unknown.
        names: taught names that raised its score.
        strong: whether it is among the good hits, see `impart.video.search.cutoff`; of the best 100 alone.
        steps: the spans of a sequence (`Query.then`), in the order of time.
        moments: further spans of the same video, best first.
        near_copies: spans of other videos that show the same; they are no hits of their own.
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
    recorded_at: float | None = None
    names: tuple[str, ...] = ()
    strong: bool = True
    steps: tuple[Moment, ...] = ()
    moments: tuple[Moment, ...] = ()
    near_copies: tuple[NearCopy, ...] = ()
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
