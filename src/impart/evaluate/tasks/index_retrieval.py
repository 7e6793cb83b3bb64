"""Retrieval in a video index: the rank of each caption's video, as `impart search` ranks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from impart.config import By
from impart.errors import DataError
from impart.evaluate.datasets.annotations import read_table
from impart.evaluate.result import Result
from impart.evaluate.tasks.retrieval import caption_keys
from impart.metrics import bootstrap, ranking
from impart.video.index.index import VideoIndex
from impart.video.search.query import Query

__all__ = ["index_retrieval"]


def index_retrieval(index: Path, table: Path, *, by: By, split: str | None = None) -> list[Result]:
    """Rank each caption's video among all videos of an index.

    Args:
        index: folder of the index.
        table: csv with the columns `file` and `caption` (or `text`). Files are matched by name. Names that the index
            lacks, or has in several folders, are left out.
        by: whether a video is scored by the mean of its frames, by its best moment or by its best frame.
        split: only rows with this value in the column `split`.

    Returns:
        Text to video with the index's encoder alone, and with the reference set of the index, if it has one.

    Raises:
        DataError: no file of the table is in the index.
    """
    opened = VideoIndex.open(index, create=False)
    videos = opened.videos()
    names = [Path(video.path).name for video in videos]
    once = [name for name, count in Counter(names).items() if count == 1]
    numbers = {name: number for number, name in enumerate(once)}
    rows = [
        (Path(row["file"]).name, row.get("caption") or row.get("text") or "")
        for _, row in read_table(table, ["file"])
        if split is None or row.get("split") == split
    ]
    known = [(name, text) for name, text in rows if name in numbers]
    if not known:
        raise DataError(
            f"none of the files of {table} is in the index {index} under a unique name: index them, or check the names"
        )
    absent = {name for name, _ in rows} - numbers.keys()
    several = len(absent & set(names))
    owners = np.array([numbers[name] for name, _ in known], dtype=np.int64)
    about = opened.stats()
    wanted = {name for name, _ in known}
    notes = [f"left out: {several} file names that several videos of the index have"] if several else []
    partial = [video for video in videos if video.problem and Path(video.path).name in wanted]
    notes += [f"read in part: {video.path}: {video.problem}" for video in partial]
    results = []
    for augment in [False, True] if about.references else [False]:
        ranks = np.array(_ranks(opened, known, by=by, augment=augment, last=len(names)), dtype=np.int64)
        results.append(
            Result(
                task="text to video",
                dataset=index.name,
                encoder=f"{about.encoder_id}+{about.references}" if augment else about.encoder_id,
                figures=ranking.rank_figures(ranks),
                items=caption_keys(tuple(numbers), owners),
                per_item=ranking.rank_values(ranks),
                clusters=owners,
                resampled={"median rank": bootstrap.medians(ranks, bootstrap.draws(owners))},
                lower_is_better=ranking.LOWER_IS_BETTER,
                counts={
                    "queries": len(ranks),
                    "items": len(names),
                    "files not in the index": len(absent) - several,
                    "read in part": len(partial),
                },
                settings={"index": str(index), "by": by},
                notes=tuple(notes),
            )
        )
    return results


def _ranks(index: VideoIndex, known: Sequence[tuple[str, str]], *, by: By, augment: bool, last: int) -> list[int]:
    """Rank of each caption's video, behind videos of equal score; the last rank if the search does not return it."""
    asked = [Query(text=text) for _, text in known]
    found = index.search_many(asked, top=last, group="video", by=by, augment=augment, fold_copies=False, spans=False)
    ranks = []
    for (name, _), hits in zip(known, found, strict=True):
        own = next((hit.score for hit in hits if hit.path.name == name), None)
        ranks.append(last if own is None else sum(hit.score >= own for hit in hits))
    return ranks
