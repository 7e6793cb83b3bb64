"""Moment retrieval: predicted windows of a video, scored against the windows that a sentence describes.

`score_predictions` scores predictions of any method. `read_predictions` reads them in the submission format of
QVHighlights. `predict_moments` predicts as `impart search` finds moments (`impart.video.search.spans.moments`), with an
encoder alone. `frame_peaks` is a plain baseline.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from impart.config import IndexSettings
from impart.encoders.base import Encoder, Float32, l2_normalise
from impart.errors import DataError
from impart.evaluate.cache import EmbeddingCache
from impart.evaluate.datasets.types import MomentSet
from impart.evaluate.embed import Progress, embed_texts
from impart.evaluate.embed_videos import EmbeddedVideo, Frames, embed_videos, frames_in_words
from impart.evaluate.result import Result
from impart.metrics import bootstrap
from impart.metrics.spans import IOUS, VERY_GOOD, average_precisions, hit_at_1, top_iou
from impart.video.search.rank.candidates import Scores
from impart.video.search.spans.moments import join_alike, split_scenes
from impart.video.search.spans.scored import ScoredParts

__all__ = [
    "CLIP_S",
    "MAX_WINDOWS",
    "Predictions",
    "Window",
    "frame_peaks",
    "moment_baseline",
    "predict_moments",
    "read_predictions",
    "score_files",
    "score_predictions",
]

Float64 = npt.NDArray[np.float64]
Window: TypeAlias = tuple[float, float, float]
"""Start (s), end (s), score; higher is better."""

Method: TypeAlias = Literal["search", "frame peaks"]

MAX_WINDOWS = 10
"""Windows per query that count: those with the highest scores; of equal scores the first given (as in QVHighlights)."""
CLIP_S = 2.0
"""Length of the clips with saliency ratings in QVHighlights."""
SMOOTH_S = 3.0
_R1 = (0.3, 0.5, 0.7)
_STEP_S = 0.25


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predicted windows and saliency per query id.

    Attributes:
        windows: query id -> windows; a query without windows is unanswered.
        saliency: query id -> one score per 2 s clip; empty if none is predicted.
        settings: of the method, for reports.
        counts: for reports, such as the number of unreadable videos.
        notes: on what was left out.
    """

    windows: Mapping[str, Sequence[Window]]
    saliency: Mapping[str, Float64] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def score_predictions(
    predictions: Predictions | Mapping[str, Sequence[Window]], dataset: MomentSet, *, label: str = "predictions"
) -> Result:
    """Score predicted windows against the right ones.

    Args:
        predictions: for the queries of the set; others are counted and ignored. The `MAX_WINDOWS` best windows per
            query count; windows of equal scores are ranked in the order given. A query without prediction scores 0.
        dataset: the right windows. Queries without a right window are left out.
        label: name of the method in reports.

    Returns:
        `R1@0.3`, `R1@0.5`, `R1@0.7` and `mIoU` (the best-scored window), `mAP` (IoU 0.5 to 0.95), `mAP@0.5`,
        `mAP@0.75`, and `HIT@1` (over the rated queries) if the set has ratings of clips and saliency is predicted.

    Raises:
        DataError: no query of the set is answered.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> import impart
        >>> dataset = impart.evaluate.MomentSet(
        ...     name="days",
        ...     videos=(Path("a.mp4"),),
        ...     queries=("a dog runs",),
        ...     query_ids=("7",),
        ...     owners=np.array([0]),
        ...     spans=(((2.0, 6.0),),),
        ...     durations_s=np.array([10.0]),
        ... )
        >>> impart.evaluate.score_predictions({"7": [(2.0, 4.0, 0.9)]}, dataset).figures["mIoU"]
        0.5
    """
    given = predictions if isinstance(predictions, Predictions) else Predictions(windows=predictions)
    asked = [number for number, spans in enumerate(dataset.spans) if spans]
    answered = [number for number in asked if given.windows.get(dataset.query_ids[number])]
    if not answered:
        raise DataError(f"none of the {len(asked)} queries of {dataset.name!r} is answered: check the ids (qid)")
    names = [*(f"R1@{least:g}" for least in _R1), "mIoU", "mAP", "mAP@0.5", "mAP@0.75"]
    values = np.zeros((len(asked), len(names)))
    for row, number in enumerate(asked):
        right = dataset.spans[number]
        windows = _best(given.windows.get(dataset.query_ids[number], ()))
        if not len(windows):
            continue
        overlap = top_iou(windows[:, :2], windows[:, 2], right)
        ap = average_precisions(windows[:, :2], windows[:, 2], right)
        reached = [float(overlap >= least - 1e-9) for least in _R1]
        values[row] = [*reached, overlap, ap.mean(), ap[IOUS.index(0.5)], ap[IOUS.index(0.75)]]
    per_item = {name: values[:, column] for column, name in enumerate(names)}
    clusters = dataset.owners[asked]
    figures = {name: float(column.mean()) for name, column in per_item.items()}
    resampled: dict[str, Float64] = {}
    rated, hits = _hits(given, dataset, asked)
    if rated.any():
        figures["HIT@1"] = float(hits[rated].mean())
        drawn = bootstrap.draws(clusters)[:, rated]
        with np.errstate(invalid="ignore"):  # a draw without rated queries has no figure
            resampled["HIT@1"] = bootstrap.means(hits[rated], drawn)
    known = set(dataset.query_ids)
    foreign = sum(query_id not in known for query_id in given.windows)
    notes = [*dataset.notes, *given.notes]
    if foreign:
        notes.append(f"{foreign} predictions are for queries that are not in the set")
    return Result(
        task="moments",
        dataset=dataset.name,
        encoder=label,
        figures=figures,
        items=tuple(dataset.query_ids[number] for number in asked),
        per_item=per_item,
        clusters=clusters,
        resampled=resampled,
        counts={
            "queries": len(asked),
            "videos": len(np.unique(clusters)),
            "unanswered": len(asked) - len(answered),
            **({"rated queries": int(rated.sum())} if rated.any() else {}),
            **given.counts,
        },
        settings={"windows that count": MAX_WINDOWS, **given.settings},
        notes=tuple(notes),
    )


def read_predictions(file: Path | str) -> Predictions:
    """Read predictions in the format of a QVHighlights submission: one JSON object per line.

    Its keys are `qid`, `pred_relevant_windows` (a list of [start s, end s, score]) and, optionally,
    `pred_saliency_scores` (one number per 2 s clip).

    Raises:
        DataError: the file cannot be read, or a line has another format.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import impart
        >>> file = Path(tempfile.mkdtemp()) / "mine.jsonl"
        >>> _ = file.write_text('{"qid": 7, "pred_relevant_windows": [[2, 4, 0.9]]}')
        >>> impart.evaluate.read_predictions(file).windows
        {'7': [(2.0, 4.0, 0.9)]}
    """
    file = Path(file)
    windows: dict[str, list[Window]] = {}
    saliency: dict[str, Float64] = {}
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the predictions {file}: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            query_id = str(entry["qid"])
            found = [(float(one[0]), float(one[1]), float(one[2])) for one in entry["pred_relevant_windows"]]
            scores = np.array(entry.get("pred_saliency_scores") or [], dtype=np.float64)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            form = '{"qid": 1, "pred_relevant_windows": [[start, end, score]], "pred_saliency_scores": [...]}'
            raise DataError(f"{file}, line {number}: {error!r}; expected {form}") from error
        if query_id in windows:
            raise DataError(f"{file}, line {number}: the query {query_id} is answered twice")
        if scores.ndim != 1 or not (np.isfinite(scores).all() and np.isfinite(np.array(found)).all()):
            raise DataError(f"{file}, line {number}: times and scores must be finite numbers")
        windows[query_id] = found
        if len(scores):
            saliency[query_id] = scores
    return Predictions(windows=windows, saliency=saliency, settings={"predictions": file.name})


def score_files(files: Sequence[Path], dataset: MomentSet) -> list[Result]:
    """Score files of predictions. The label is the file's name, or its path if two files have the same name."""
    unique = len({file.stem for file in files}) == len(files)
    return [
        score_predictions(read_predictions(file), dataset, label=file.stem if unique else str(file)) for file in files
    ]


def moment_baseline(
    encoder: Encoder,
    dataset: MomentSet,
    *,
    frames: Frames = None,
    cache: EmbeddingCache | None = None,
    label: str | None = None,
    batch: int = 32,
    on_progress: Progress | None = None,
) -> Result:
    """Score the windows of `predict_moments`; the arguments are those of `predict_moments` and `score_predictions`."""
    predicted = predict_moments(encoder, dataset, frames=frames, cache=cache, batch=batch, on_progress=on_progress)
    return score_predictions(predicted, dataset, label=label or encoder.traits.id)


def predict_moments(
    encoder: Encoder,
    dataset: MomentSet,
    *,
    frames: Frames = None,
    cache: EmbeddingCache | None = None,
    batch: int = 32,
    on_progress: Progress | None = None,
    method: Method = "search",
) -> Predictions:
    """Predict the spans of each video that its sentences describe, by the rule of the search.

    The proposals are scenes and their neighbours (`impart.video.search.spans.moments`). No correction for hubs is made.

    Args:
        encoder: plain or augmented; a frame's score is the cosine of v (or v') with the sentence.
        dataset: queries and videos.
        frames: settings of the decoder, None = the defaults; or a function that yields the frames of a video.
        cache: of embeddings; None = no cache.
        batch: frames per forward pass.
        on_progress: called with the videos done.
        method: `search`, or the baseline `frame peaks`.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from PIL import Image
        >>> import impart
        >>> def frames(path):
        ...     for second in range(10):
        ...         colour = "red" if 2 <= second < 6 else "blue"
        ...         yield second, second + 1.0, np.asarray(Image.new("RGB", (64, 64), colour))
        >>> dataset = impart.evaluate.MomentSet(
        ...     name="days",
        ...     videos=(Path("a.mp4"),),
        ...     queries=("red",),
        ...     query_ids=("7",),
        ...     owners=np.array([0]),
        ...     spans=(((2.0, 6.0),),),
        ...     durations_s=np.array([10.0]),
        ... )
        >>> predicted = impart.evaluate.predict_moments(impart.load_encoder("mini"), dataset, frames=frames)
        >>> [round(bound) for bound in predicted.windows["7"][0][:2]]
        [2, 6]
    """
    texts = embed_texts(encoder, dataset.queries, cache=cache)  # (m, D)
    windows: dict[str, list[Window]] = {}
    saliency: dict[str, Float64] = {}
    lost: list[str] = []
    partial: list[str] = []
    for video in embed_videos(encoder, dataset.videos, frames, cache=cache, batch=batch, on_progress=on_progress):
        if video.unreadable is not None:
            lost.append(f"left out: {dataset.videos[video.number]}: {video.unreadable}")
            continue
        if video.problem is not None:
            partial.append(f"read in part: {dataset.videos[video.number]}: {video.problem}")
        asked = np.flatnonzero(dataset.owners == video.number)
        found = _spans(video, texts[asked]) if method == "search" else None
        for row, query in enumerate(asked):
            scores = (video.embeddings @ texts[query]).astype(np.float64)  # (f,)
            windows[dataset.query_ids[query]] = found[row] if found else frame_peaks(video.spans, scores)
            saliency[dataset.query_ids[query]] = _clip_scores(video.spans, scores)
    settings = {"method": method, "frames": frames_in_words(encoder, frames)}
    if method == "frame peaks":
        settings["smoothed over"] = f"{SMOOTH_S:g} s"
    counts = {"unreadable": len(lost), "read in part": len(partial)}
    notes = (*lost, *partial)
    return Predictions(windows=windows, saliency=saliency, settings=settings, counts=counts, notes=notes)


def _spans(video: EmbeddedVideo, texts: Float32) -> list[list[Window]]:
    """Find the spans of a video for texts (T, D): T lists of windows, best first.

    A cut is where the retrieval embeddings of two frames differ; frames between the sampled ones are not known here.
    """
    start_s, end_s = video.spans[:, 0], video.spans[:, 1]
    cosines = np.einsum("fr,fr->f", video.retrieval[:-1], video.retrieval[1:])  # (f - 1,) of frames to the next
    scenes = np.append(0, 1 + np.flatnonzero(cosines < IndexSettings().cut_threshold))
    parts = split_scenes(scenes, np.array([0, len(start_s)]), start_s, end_s)
    shown_s = np.maximum(end_s - start_s, 1e-6)[:, None]
    means = l2_normalise(np.add.reduceat(video.embeddings * shown_s, parts.bounds[:-1]).astype(np.float32))  # (P, D)
    units = join_alike(parts, means, np.maximum(np.rint(shown_s[:, 0] * 1000), 1).astype(np.int32))
    answers = []
    for text in texts:
        curve = video.embeddings @ text  # (f,)
        scored = ScoredParts(
            parts=parts,
            means=means,
            query=text,
            scores=Scores(units.means @ text),
            units=units,
            hubness=None,
            frames=curve.__getitem__,
        )
        (found,) = scored.spans_of([0], most=MAX_WINDOWS, least=-math.inf)
        answers.append([(float(start_s[one.first]), float(end_s[one.stop - 1]), one.score) for one in found])
    return answers


def frame_peaks(
    spans: Float64, scores: Float64, *, smooth_s: float = SMOOTH_S, most: int = MAX_WINDOWS
) -> list[Window]:
    """Find windows around the peaks of the frames' scores.

    Scores are sampled on a grid of quarter seconds and averaged over `smooth_s`. The highest free time is a peak. Its
    window extends while the scores are above the middle between their median and the peak. It does not overlap earlier
    windows, and its score is that of the peak. This repeats until there are `most` windows, or no free time above the
    median.

    Args:
        spans: (f, 2) start and end of each frame's display, s.
        scores: (f,).
        smooth_s: width of the moving average.
        most: highest number of windows.

    Returns:
        Windows, best first.

    >>> spans = np.array([[float(second), second + 1.0] for second in range(8)])
    >>> frame_peaks(spans, np.array([0, 0, 0, 1, 1, 0, 0, 0.0]), smooth_s=0.25)
    [(3.0, 5.0, 1.0)]
    """
    times, grid = _grid(spans, scores)
    width = max(1, 2 * round(smooth_s / _STEP_S / 2) + 1) if smooth_s > _STEP_S else 1
    curve = _moving_average(grid, width)
    middle = float(np.median(curve))
    free = np.ones(len(curve), dtype=bool)
    windows: list[Window] = []
    while len(windows) < most and free.any():
        peak = int(np.where(free, curve, -np.inf).argmax())
        if curve[peak] <= middle and windows:
            break
        inside = free & (curve >= (curve[peak] + middle) / 2)
        first = peak - int(np.append(inside[peak::-1], False).argmin()) + 1
        stop = peak + int(np.append(inside[peak:], False).argmin())
        windows.append((float(times[first]), float(times[stop]), float(curve[peak])))
        free[first:stop] = False
    return windows


def _grid(spans: Float64, scores: Float64) -> tuple[Float64, Float64]:
    """Return the edges (g + 1,) of a time grid, and the score (g,) of the frame in the middle of each cell."""
    begin, end = float(spans[0, 0]), float(spans[-1, 1])
    cells = max(1, math.ceil((end - begin) / _STEP_S - 1e-6))
    edges = np.minimum(begin + _STEP_S * np.arange(cells + 1), end)
    shown = np.searchsorted(spans[:, 0], (edges[:-1] + edges[1:]) / 2, side="right") - 1
    return edges, scores[np.maximum(shown, 0)]


def _moving_average(values: Float64, width: int) -> Float64:
    """Average over `width` (odd) values, over fewer at the ends."""
    kernel = np.ones(width)
    total = np.convolve(values, kernel, mode="full")[width // 2 : width // 2 + len(values)]
    count = np.convolve(np.ones(len(values)), kernel, mode="full")[width // 2 : width // 2 + len(values)]
    return np.asarray(total / count)


def _clip_scores(spans: Float64, scores: Float64) -> Float64:
    """Average the scores per 2 s clip, from the start."""
    edges, grid = _grid(spans, scores)
    clip = (edges[:-1] // CLIP_S).astype(np.int64)
    total, count = np.bincount(clip, weights=grid), np.bincount(clip)
    return np.asarray(np.divide(total, count, out=np.full(len(count), scores.min()), where=count > 0))


def _best(windows: Sequence[Window]) -> Float64:
    """Select the best windows (at most `MAX_WINDOWS`, 3), best first; equal scores keep their order."""
    table = np.array(windows, dtype=np.float64).reshape(-1, 3)
    return np.asarray(table[np.argsort(-table[:, 2], kind="stable")[:MAX_WINDOWS]])


def _hits(given: Predictions, dataset: MomentSet, asked: Sequence[int]) -> tuple[npt.NDArray[np.bool_], Float64]:
    """Return which queries have rated clips (q,), and whether the best predicted clip is a highlight (q,)."""
    hits, rated = np.zeros(len(asked)), np.zeros(len(asked), dtype=bool)
    if dataset.saliency is None or not given.saliency:
        return rated, hits
    for row, number in enumerate(asked):
        ratings = dataset.saliency[number]
        if ratings is not None:
            rated[row] = True
            predicted = given.saliency.get(dataset.query_ids[number], np.zeros(0))
            hits[row] = hit_at_1(predicted, ratings, least=VERY_GOOD)
    return rated, hits
