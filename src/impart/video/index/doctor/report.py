"""Reports of checks of an index or of a reference set."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

__all__ = ["Damage", "Needs", "CheckReport"]

Needs: TypeAlias = Literal["nothing", "index", "videos", "person"]
"""Needs of the repair of a file: nothing, since nothing in force is lost; what the index has; the video files; or
something that a person gives again, such as a reference set."""


@dataclass(frozen=True, kw_only=True)
class Damage:
    """A damaged or missing file.

    Attributes:
        file: its path.
        wrong: what is wrong with it.
        needs: what its repair needs.
        remedy: what follows for the person.
        videos: those it concerns, where they are known.
        rows: those of a table that are lost; 0 = none, or not known.
    """

    file: Path
    wrong: str
    needs: Needs
    remedy: str = ""
    videos: tuple[Path, ...] = ()
    rows: int = 0


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """Result of a check.

    Attributes:
        folder: of the index, or of the reference set.
        damage: damaged files, by path.
        lacking: indexed videos that lack rows; searches leave them out.
        lost_records: videos whose own rows are lost; their paths are in `lost_paths` where they are known.
        versions: of each table, the numbers of its whole versions, newest first.
        files, size_bytes: what was checked.
        not_recorded: files without a checksum; they were read instead.
        elapsed_s: time of the check.
    """

    folder: Path
    damage: tuple[Damage, ...] = ()
    lacking: tuple[Path, ...] = ()
    lost_records: int = 0
    lost_paths: tuple[Path, ...] = ()
    versions: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    files: int = 0
    size_bytes: int = 0
    not_recorded: int = 0
    elapsed_s: float = 0.0

    @property
    def whole(self) -> bool:
        """Whether nothing is damaged and no video lacks rows."""
        return not (self.damage or self.lacking or self.lost_records)

    def as_dict(self) -> dict[str, Any]:
        """Convert to the JSON object of `impart doctor --format json`."""
        return {"whole": self.whole, **dataclasses.asdict(self)}
