"""Read sentences with the moments of a video that they describe, from the annotation files as published."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from impart.evaluate.datasets.annotations import Malformed, read_json, read_lines, read_table, records
from impart.evaluate.datasets.reader import DataSetInfo, Reader
from impart.evaluate.datasets.types import MomentSet
from impart.evaluate.datasets.videos.captions import ACTIVITYNET, ACTIVITYNET_FILES, DIDEMO, DIDEMO_FILES
from impart.evaluate.datasets.videos.files import MomentRow, moment_set, open_annotation

__all__ = ["READERS"]

QVHIGHLIGHTS = DataSetInfo(
    name="qvhighlights",
    title="QVHighlights",
    splits=("val", "train", "test"),
    files=(
        "highlight_val_release.jsonl (highlight_train_release.jsonl, highlight_test_with_gt.jsonl)",
        "videos named bP5KfdFJzC4_660.0_810.0.mp4",
    ),
    home="https://github.com/jayleicn/moment_detr/tree/main/data",
)
CHARADES = DataSetInfo(
    name="charades-sta",
    title="Charades-STA",
    splits=("test", "train"),
    files=("charades_sta_test.txt", "Charades_v1_test.csv (optional, for the durations)", "videos named 3MSZA.mp4"),
    home="https://github.com/jiyanggao/TALL (videos: https://prior.allenai.org/projects/charades)",
)

QVHIGHLIGHTS_FILES = {split: (f"highlight_{split}_release.jsonl",) for split in QVHIGHLIGHTS.splits} | {
    "test": ("highlight_test_with_gt.jsonl", "highlight_test_release.jsonl")
}
CHARADES_FILES = {split: (f"charades_sta_{split}.txt",) for split in CHARADES.splits}

CLIP_S = 2.0  # QVHighlights rates clips of two seconds
RATERS = 3
DAY_S = 86400.0
CHUNK_S = 5.0  # DiDeMo's annotators chose from chunks of five seconds
_CHARADES_LINE = re.compile(r"(?P<video>\S+)\s+(?P<start>\d+\.?\d*)\s+(?P<end>\d+\.?\d*)\s*##(?P<sentence>.*)")


@dataclass
class SpanRepair:
    """Swaps moments that run backwards, clips them to the video, and counts these repairs.

    >>> SpanRepair().repair([(12.0, 3.0), (11.0, 15.0)], duration_s=10.0)
    ((3.0, 10.0),)
    """

    repaired: int = 0
    empty: int = 0

    def repair(self, moments: Iterable[tuple[float, float]], *, duration_s: float) -> tuple[tuple[float, float], ...]:
        """Return the moments with a length inside the video; a duration of NaN is unknown."""
        repaired = (self._repair(start_s, end_s, duration_s) for start_s, end_s in moments)
        return tuple(moment for moment in repaired if moment is not None)

    def _repair(self, start_s: float, end_s: float, duration_s: float) -> tuple[float, float] | None:
        low, high = max(0.0, min(start_s, end_s)), max(start_s, end_s)
        if duration_s > 0.0:  # False for NaN
            high = min(high, duration_s)
        if not low < high:
            self.empty += 1
            return None
        self.repaired += (low, high) != (start_s, end_s)
        return low, high

    def notes(self) -> tuple[str, ...]:
        """Return a note per kind of repair that was made."""
        notes = []
        if self.repaired:
            notes.append(f"moments repaired that ran backwards or past an end of the video: {self.repaired}")
        if self.empty:
            notes.append(f"moments left out that have no length inside the video: {self.empty}")
        return tuple(notes)


def open_qvhighlights(path: Path, split: str | None = None) -> MomentSet:
    """Open QVHighlights (Lei et al. 2021): one or more moments per sentence, and three ratings per 2 s clip.

    The answers of the test split are public since March 2026, in a file of their own. Clips outside the moments have
    saliency 0.
    """
    split, folder, file = open_annotation(QVHIGHLIGHTS, path, split, QVHIGHLIGHTS_FILES)
    bad, spans = Malformed(file, "json with qid, query, duration, vid, relevant_windows"), SpanRepair()
    rows = []
    for line, text in read_lines(file):
        try:
            entry = json.loads(text)
            duration_s = float(entry["duration"])
            if not 0.0 < duration_s < DAY_S:
                raise ValueError(f"a duration of {duration_s} s")
            windows = [(float(start_s), float(end_s)) for start_s, end_s in entry["relevant_windows"]]
            row = MomentRow(
                video=str(entry["vid"]),
                query=str(entry["query"]),
                query_id=str(entry["qid"]),
                spans=spans.repair(windows, duration_s=duration_s),
                duration_s=duration_s,
                saliency=_saliency(entry, duration_s),
            )
        except KeyError as error:
            bad.add(line, f"no {error.args[0]}")
        except (ValueError, TypeError, IndexError) as error:  # json.JSONDecodeError is a ValueError
            bad.add(line, str(error))
        else:
            rows.append(row)
    if not rows and split == "test" and bad.found:
        raise QVHIGHLIGHTS.missing(f"{file} has no answers: highlight_test_with_gt.jsonl has them")
    return moment_set(f"qvhighlights/{split}", folder, rows, notes=(*bad.notes(), *spans.notes()))


def _saliency(entry: dict[str, Any], duration_s: float) -> npt.NDArray[np.float64] | None:
    """Return the ratings (clips, raters) of an entry, or None without ratings."""
    if "saliency_scores" not in entry:
        return None
    scores = np.zeros((math.ceil(duration_s / CLIP_S), RATERS))
    for clip, ratings in zip(entry["relevant_clip_ids"], entry["saliency_scores"], strict=True):
        scores[clip] = ratings
    return scores


def open_charades(path: Path, split: str | None = None) -> MomentSet:
    """Open Charades-STA (Gao et al. 2017): lines `VID start end##sentence`, one moment per sentence."""
    split, folder, file = open_annotation(CHARADES, path, split, CHARADES_FILES)
    durations_s = _charades_durations(folder.optional(f"Charades_v1_{split}.csv"))
    bad, spans = Malformed(file, "VID start end##sentence"), SpanRepair()
    rows = []
    for line, text in read_lines(file):
        match = _CHARADES_LINE.fullmatch(text.strip())
        if match is None:
            bad.add(line, f"{text[:40]!r} has another form")
            continue
        video, sentence = match["video"], match["sentence"]
        duration_s = durations_s.get(video, math.nan)
        moments = spans.repair([(float(match["start"]), float(match["end"]))], duration_s=duration_s)
        rows.append(MomentRow(video, sentence, str(line), moments, duration_s))
    return moment_set(f"charades-sta/{split}", folder, rows, notes=(*bad.notes(), *spans.notes()))


def _charades_durations(table: Path | None) -> dict[str, float]:
    """Read the duration in seconds of every video; one malformed row is ignored, without a note."""
    if table is None:
        return {}
    bad = Malformed(table, "the columns id and length")
    durations_s = {}
    for line, row in read_table(table, ["id", "length"]):
        try:
            durations_s[row["id"]] = float(row["length"])
        except ValueError:
            bad.add(line, f"length {row['length']!r} is not a number")
    bad.notes()  # raises DataError for several malformed rows
    return durations_s


def open_didemo_moments(path: Path, split: str | None = None) -> MomentSet:
    """Open DiDeMo (Hendricks et al. 2017): the distinct moments of its four or more annotators, most votes first.

    A moment that only one annotator chose counts too. Recalls are therefore higher than with the official score, the
    mean over the best three annotators. Chunks are 5 s; the last chunk of a video may be shorter.
    """
    split, folder, file = open_annotation(DIDEMO, path, split, DIDEMO_FILES)
    bad = Malformed(file, "objects with video, description, times and annotation_id", unit="entry")
    rows = []
    for number, entry in records(read_json(file, list), ("video", "description", "times", "annotation_id"), bad):
        try:
            votes = Counter((int(first), int(last)) for first, last in entry["times"])
        except (TypeError, ValueError):
            bad.add(number, f"times {entry['times']!r} are not pairs of chunks")
            continue
        chosen = sorted(votes, key=lambda chunks: (-votes[chunks], chunks))
        spans = tuple((CHUNK_S * first, CHUNK_S * (last + 1)) for first, last in chosen if 0 <= first <= last)
        rows.append(
            MomentRow(str(entry["video"]), str(entry["description"]), str(entry["annotation_id"]), spans, math.nan)
        )
    return moment_set(f"didemo-moments/{split}", folder, rows, notes=bad.notes())


def open_activitynet_moments(path: Path, split: str | None = None) -> MomentSet:
    """Open ActivityNet Captions (Krishna et al. 2017): one moment per sentence of a video."""
    split, folder, file = open_annotation(ACTIVITYNET, path, split, ACTIVITYNET_FILES)
    bad, spans = Malformed(file, "video: {duration, timestamps, sentences}", unit="entry"), SpanRepair()
    rows = []
    for number, (video, entry) in enumerate(read_json(file, dict).items(), start=1):
        try:
            duration_s = float(entry["duration"])
            moments = [(float(start_s), float(end_s)) for start_s, end_s in entry["timestamps"]]
            pairs = list(zip(moments, entry["sentences"], strict=True))
        except KeyError as error:
            bad.add(number, f"{video} has no {error.args[0]}")
        except (TypeError, ValueError) as error:
            bad.add(number, f"{video}: {error}")
        else:
            for index, (moment, sentence) in enumerate(pairs):
                repaired = spans.repair([moment], duration_s=duration_s)
                rows.append(MomentRow(video, str(sentence), f"{video}#{index}", repaired, duration_s))
    aliases = {row.video: row.video.removeprefix("v_") for row in rows}
    notes = (*bad.notes(), *spans.notes())
    return moment_set(f"activitynet-moments/{split}", folder, rows, notes=notes, aliases=aliases)


READERS: tuple[Reader, ...] = (
    QVHIGHLIGHTS.reader("moments", open_qvhighlights),
    CHARADES.reader("moments", open_charades),
    replace(DIDEMO, name="didemo-moments").reader("moments", open_didemo_moments),
    replace(ACTIVITYNET, name="activitynet-moments").reader("moments", open_activitynet_moments),
)
