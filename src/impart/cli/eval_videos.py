"""Where evaluation meets video indexes, which know nothing of each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from impart.evaluate.outcome import Outcome

__all__ = ["search_index"]


def search_index(index: Path, table: Path, *, by: str, split: str | None = None) -> list[Outcome]:
    """Rank every caption's own video among all videos of an index.

    Args:
        index: folder of the index.
        table: csv with the columns `file` and `caption` (or `text`); files are met by name, those that the index lacks
            are left out.
        by: `mean` or `best`: how a video is scored.
        split: only rows whose column `split` says this.

    Returns:
        The index's encoder alone; and with the reference set in force, where there is one.

    Raises:
        DataError: no file of the table is in the index.
    """
    import numpy as np

    from impart.errors import DataError
    from impart.evaluate.datasets.annotations import read_table
    from impart.evaluate.metrics import bootstrap, ranking
    from impart.evaluate.outcome import Outcome
    from impart.evaluate.retrieval import caption_keys
    from impart.video.index import VideoIndex

    opened = VideoIndex.open(index, create=False)
    numbers: dict[str, int] = {}
    for video in opened.videos():
        numbers.setdefault(Path(video.path).name, len(numbers))
    rows = [
        (Path(row["file"]).name, row.get("caption") or row.get("text") or "")
        for _, row in read_table(table, ["file"])
        if split is None or row.get("split") == split
    ]
    known = [(name, text) for name, text in rows if name in numbers]
    if not known:
        raise DataError(f"none of the files that {table} names is in the index {index}: index them, or check the names")
    absent = len({name for name, _ in rows} - numbers.keys())
    owners = np.array([numbers[name] for name, _ in known], dtype=np.int64)
    about = opened.stats()
    total = len(opened.videos())
    result = []
    for augment in [False, True] if about.references else [False]:
        ranks = np.array(_ranks(opened, known, by=by, augment=augment, last=total), dtype=np.int64)
        result.append(
            Outcome(
                task="text to video",
                dataset=index.name,
                encoder=f"{about.encoder_id}+{about.references}" if augment else about.encoder_id,
                figures=ranking.rank_figures(ranks),
                items=caption_keys(tuple(numbers), owners),
                per_item=ranking.rank_values(ranks),
                clusters=owners,
                resampled={"median rank": bootstrap.medians(ranks, bootstrap.draws(owners))},
                lower_is_better=ranking.LOWER_IS_BETTER,
                counts={"queries": len(ranks), "items": total, "files not in the index": absent},
                settings={"index": str(index), "by": by},
            )
        )
    return result


def _ranks(opened: object, known: Sequence[tuple[str, str]], *, by: str, augment: bool, last: int) -> list[int]:
    """Rank of each caption's video; the last one where the search does not return it."""
    from impart.video.index import VideoIndex
    from impart.video.search import Query

    assert isinstance(opened, VideoIndex)
    queries = [Query(text=text) for _, text in known]
    found = opened.search_many(queries, top=last, by=by, augment=augment)  # type: ignore[arg-type]
    return [
        next((hit.rank for hit in hits if Path(hit.path).name == name), last)
        for (name, _), hits in zip(known, found, strict=True)
    ]
