"""Hits: the results of a search, with their time span, score and reference pairs."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from impart.errors import DecodeError, ImpartWarning
from impart.video.index.store import Kind

if TYPE_CHECKING:
    from impart.video.search.snapshot import Snapshot

__all__ = ["Hit", "Moment", "NearCopy", "Reason", "span_times", "timecode"]


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
class NearCopy:
    """A span of another video that shows the same as a hit, such as a trimmed or re-encoded copy.

    Attributes:
        start_s, end_s: of the span; score: as of a hit.
    """

    path: Path
    start_s: float
    end_s: float
    score: float


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


def span_times(segments: range, snapshot: Snapshot, *, exact: bool) -> tuple[float, float]:
    """Return start and end (s) of neighbouring segments of one video; at the bounds of a scene, those of the scene.

    Args:
        exact: decode the frames around bounds at cuts, for the time of the first frame behind the cut. A video that
            cannot be read keeps its bounds, with a warning.
    """
    first, last = segments[0], segments[-1]
    start_s, end_s = float(snapshot.start_s[first]), float(snapshot.end_s[last])
    scene, behind = int(snapshot.scene_of[first]), int(snapshot.scene_of[last])
    if snapshot.scenes[scene] == first:
        start_s = float(snapshot.scene_start_s[scene])
    if last + 1 in (len(snapshot), *snapshot.scenes[behind + 1 : behind + 2].tolist()):
        end_s = float(snapshot.scene_end_s[behind])
    if exact:
        start_s, end_s = _cut(first, snapshot) or start_s, _cut(last + 1, snapshot) or end_s
    return start_s, end_s


def _cut(segment: int, snapshot: Snapshot) -> float | None:
    """Find the time (s) of the cut before the first segment of a scene; None where there is no cut."""
    from impart.video.scenes.exact import exact_cut  # imports the decoder

    if segment in snapshot.offsets or snapshot.scenes[snapshot.scene_of[segment]] != segment:
        return None
    path, decode = snapshot.paths[int(snapshot.video_of[segment])], snapshot.manifest.decode
    start_s = float(snapshot.start_s[segment])
    try:
        return exact_cut(path, max(0.0, start_s - 2 / decode.fps), start_s, stream=decode.stream)
    except (DecodeError, OSError) as error:
        warnings.warn(f"cannot refine the bounds in {path}: {error}", ImpartWarning, stacklevel=2)
        return None


def timecode(seconds: float) -> str:
    """Format seconds as HH:MM:SS.mmm.

    >>> timecode(3723.0456)
    '01:02:03.046'
    """
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"
