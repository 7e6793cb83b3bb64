"""Where evaluation meets video: how frames are read for a task, and how the search of an index is measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from impart.cli.progress import progress

if TYPE_CHECKING:
    from impart.cli.eval.runs import Run
    from impart.config import By, Fit
    from impart.encoders.base import Encoder, Float32
    from impart.evaluate.datasets.types import MomentSet, VideoSet
    from impart.evaluate.embed_videos import FrameReader
    from impart.evaluate.models import EvaluatedModel
    from impart.evaluate.result import Result
    from impart.video.index.index import VideoIndex

__all__ = ["find_moments", "find_videos", "score_files", "search_index"]


def find_videos(run: Run, dataset: VideoSet, *, fps: float, fit: Fit, query_bank: bool, image_queries: bool) -> None:
    """Text to video and video to text, for every model; and image to video, where asked for."""
    from impart.evaluate.tasks.video_retrieval import image_to_video, video_retrieval

    for model in _cleaned(run, dataset, fps, fit):
        options = {"frames": _frames(model.encoder, fps, fit), "label": model.label, **run.common}
        task = partial(video_retrieval, model.encoder, dataset, query_bank=query_bank, **options)
        run.measure(model, dataset.name, task)
        if image_queries:
            run.measure(model, dataset.name, partial(image_to_video, model.encoder, dataset, **options))


def find_moments(run: Run, dataset: MomentSet, *, fps: float, fit: Fit) -> None:
    """The baseline's windows of every model, held against the right ones."""
    from impart.evaluate.tasks.moments import predict_moments, score_predictions

    def baseline(model: EvaluatedModel, on_progress: object = None) -> Result:
        frames = _frames(model.encoder, fps, fit)
        predicted = predict_moments(
            model.encoder,
            dataset,
            frames=frames,
            on_progress=on_progress,  # type: ignore[arg-type]
            **run.common,
        )
        return score_predictions(predicted, dataset, label=model.label)

    for model in _cleaned(run, dataset, fps, fit):
        run.measure(model, dataset.name, partial(baseline, model))


def score_files(run: Run, dataset: MomentSet, files: Sequence[Path]) -> None:
    """Predictions made elsewhere, held against the right windows; each is called by its file's name."""
    from impart.evaluate.tasks.moments import read_predictions, score_predictions

    for file in files:
        label = file.stem if len({one.stem for one in files}) == len(files) else str(file)
        run.results.append(score_predictions(read_predictions(file), dataset, label=label))


def _cleaned(run: Run, dataset: VideoSet | MomentSet, fps: float, fit: Fit) -> Iterator[EvaluatedModel]:
    """The models without references that show a frame of the videos."""
    import numpy as np

    from impart.evaluate.embed_videos import embed_videos

    def frames_of_all(base: Encoder) -> tuple[Float32, Sequence[str]]:
        with progress(f"{base.traits.id} on {dataset.name}") as show:
            found = embed_videos(base, dataset.videos, _frames(base, fps, fit), on_progress=show, **run.common)
            parts = [video.retrieval for video in found]
        none = np.zeros((0, base.traits.retrieval_dim), np.float32)
        return np.concatenate([none, *parts]), ()

    yield from run.cleaned(dataset.name, retrieval=frames_of_all)


def _frames(encoder: Encoder, fps: float, fit: Fit) -> FrameReader:
    """How a video is read for an encoder."""
    from impart.video.decode.sampler import sampled_frames

    return partial(sampled_frames, short_side_px=encoder.traits.image_size_px, fps=fps, fit=fit)


def search_index(index: Path, table: Path, *, by: By, split: str | None = None) -> list[Result]:
    """Rank every caption's own video among all videos of an index.

    Args:
        index: folder of the index.
        table: csv with the columns `file` and `caption` (or `text`); files are met by name, those that the index lacks
            or has several times in different folders, are left out.
        by: whether a video is scored by the mean of its frames or by its best moment.
        split: only rows whose column `split` says this.

    Returns:
        The index's encoder alone; and with the reference set in force, where there is one.

    Raises:
        DataError: no file of the table is in the index.
    """
    import numpy as np

    from impart.errors import DataError
    from impart.evaluate.datasets.annotations import read_table
    from impart.evaluate.result import Result
    from impart.evaluate.tasks.retrieval import caption_keys
    from impart.metrics import bootstrap, ranking
    from impart.video.index.index import VideoIndex

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
            f"none of the files that {table} names is in the index {index}, by a name that is there once: index them, "
            "or check the names"
        )
    absent = {name for name, _ in rows} - numbers.keys()
    several = len(absent & set(names))
    owners = np.array([numbers[name] for name, _ in known], dtype=np.int64)
    about = opened.stats()
    asked = {name for name, _ in known}
    notes = [f"left out: {several} file names that several videos of the index have"] if several else []
    partial = [video for video in videos if video.problem and Path(video.path).name in asked]
    notes += [f"read in part: {video.path}: {video.problem}" for video in partial]
    total = len(names)
    result = []
    for augment in [False, True] if about.references else [False]:
        ranks = np.array(_ranks(opened, known, by=by, augment=augment, last=total), dtype=np.int64)
        result.append(
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
                    "items": total,
                    "files not in the index": len(absent) - several,
                    "read in part": len(partial),
                },
                settings={"index": str(index), "by": by},
                notes=tuple(notes),
            )
        )
    return result


def _ranks(opened: VideoIndex, known: Sequence[tuple[str, str]], *, by: By, augment: bool, last: int) -> list[int]:
    """Rank of each caption's video, behind those that score the same; the last where the search does not return it."""
    from impart.video.search.query import Query

    queries = [Query(text=text) for _, text in known]
    found = opened.search_many(queries, top=last, group="video", by=by, augment=augment)
    ranks = []
    for (name, _), hits in zip(known, found, strict=True):
        own = next((hit.score for hit in hits if hit.path.name == name), None)
        ranks.append(last if own is None else sum(hit.score >= own for hit in hits))
    return ranks
