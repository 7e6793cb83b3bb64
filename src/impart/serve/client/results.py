"""Answers of a server as results of the library.

Paths are the texts that the server shows: of a file whose name is no UTF-8, they are not its path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from impart.video.index.stats import IndexStats
from impart.video.index.store import Kind
from impart.video.names.report import NameReport
from impart.video.names.taught import Added, NameInfo
from impart.video.scenes.scene import Scene
from impart.video.search.hits import Hit, Moment, NearCopy, Reason

__all__ = [
    "ServedEvent",
    "ServedFailure",
    "ServedVideo",
    "added_of",
    "hit_of",
    "name_of",
    "reason_of",
    "scene_of",
    "stats_of",
    "video_of",
]


@dataclass(frozen=True, kw_only=True)
class ServedVideo:
    """A video or photo of a served index: what `VideoRecord` has, as far as the server tells it.

    Attributes:
        path: as the server shows it.
        duration_s: seconds; 0 for a photo.
        scenes: number of scenes.
        recorded_at: Unix time (s); None = unknown.
        problem: why only a part could be read; None for a whole video.
        playable: `direct`, or `preview` where browsers are not expected to play the file.
    """

    video_id: str
    path: Path
    kind: Kind
    duration_s: float
    width: int
    height: int
    codec: str
    container: str
    fps: float
    scenes: int
    size_bytes: int
    recorded_at: float | None
    indexed_at: float
    problem: str | None
    playable: str


@dataclass(frozen=True, kw_only=True)
class ServedFailure:
    """A file that could not be indexed, or not completely.

    Attributes:
        kind: `failed`; `partial`, read up to a point; or `incomplete`, its rows are lost.
        failed_at: Unix time (s); None = unknown.
    """

    path: Path
    kind: str
    reason: str
    attempts: int | None
    failed_at: float | None


@dataclass(frozen=True, kw_only=True)
class ServedEvent:
    """An event of a job of the server.

    Attributes:
        number: from 1.
        kind: `snapshot` and `done` have the whole job, `progress`, `status`, `video` and `failure` what has changed.
        data: as JSON has it.
    """

    number: int
    kind: str
    data: Mapping[str, Any]


def hit_of(out: Mapping[str, Any]) -> Hit:
    """Make a hit of its JSON."""
    same = (
        "rank", "start_s", "end_s", "score", "video_id", "best_s", "scene_start_s", "scene_end_s", "video_s", "kind",
        "recorded_at", "strong",
    )  # fmt: skip
    return Hit(
        path=Path(out["path"]),
        names=tuple(out["names"]),
        steps=tuple(_moment(one) for one in out["steps"]),
        moments=tuple(_moment(one) for one in out["moments"]),
        near_copies=tuple(_near_copy(one) for one in out["near_copies"]),
        also_at=tuple(Path(one) for one in out["also_at"]),
        why=tuple(reason_of(one) for one in out["why"]),
        **{name: out[name] for name in same},
    )


def reason_of(out: Mapping[str, Any]) -> Reason:
    """Make a reason of its JSON."""
    same = ("text", "source", "weight_img", "weight_txt", "row")
    similarity = float("nan") if out["similarity"] is None else out["similarity"]
    return Reason(similarity=similarity, **{name: out[name] for name in same})


def scene_of(out: Mapping[str, Any]) -> Scene:
    """Make a scene of its JSON; its vector is empty, since the server does not tell it."""
    names = ("number", "start_s", "end_s", "kind", "best_s")
    return Scene(vector=np.zeros(0, np.float32), **{name: out[name] for name in names})


def video_of(out: Mapping[str, Any]) -> ServedVideo:
    """Make a video of its JSON."""
    told = {name: out[name] for name in ServedVideo.__dataclass_fields__ if name != "path"}
    return ServedVideo(path=Path(out["path"]), **told)


def stats_of(out: Mapping[str, Any]) -> IndexStats:
    """Make the statistics of their JSON; `blending` is None, since the server tells it by `/references`."""
    told = {name: out[name] for name in IndexStats.__dataclass_fields__ if name != "blending"}
    return IndexStats(blending=None, **told)


def name_of(out: Mapping[str, Any]) -> NameInfo:
    """Make a name of its JSON; hashes are the first 16 digits, and thumbnails are files of the server."""
    return NameInfo(
        name=out["name"],
        images=len(out["images"]),
        in_force=out["in_force"],
        sources=tuple(image["source"] for image in out["images"]),
        hashes=tuple(image["image_id"] for image in out["images"]),
        thumbnails=(None,) * len(out["images"]),
        report=None if out["report"] is None else _report(out["report"]),
    )


def added_of(out: Mapping[str, Any]) -> Added:
    """Make the result of teaching a name of its JSON."""
    return Added(
        added={out["name"]: out["added"]} if out["added"] else {},
        known=tuple((out["name"], source) for source in out["known"]),
        failed=tuple((one["source"], one["reason"]) for one in out["failed"]),
        notes=tuple(out["notes"]),
        reports=tuple(_report(one) for one in out["reports"]),
    )


def _report(out: Mapping[str, Any]) -> NameReport:
    images = out["images"]
    return NameReport(
        name=out["name"],
        sources=tuple(image["source"] for image in images),
        in_force=np.array([image["in_force"] for image in images], bool),
        found=np.array([image["found"] for image in images], bool),
        remarks=tuple(out["remarks"]),
    )


def _moment(out: Mapping[str, Any]) -> Moment:
    return Moment(**{name: out[name] for name in ("start_s", "end_s", "score", "best_s")})


def _near_copy(out: Mapping[str, Any]) -> NearCopy:
    return NearCopy(path=Path(out["path"]), **{name: out[name] for name in ("start_s", "end_s", "score", "kind")})
