"""Sentences with the moments of a video that they describe, from the annotation files as they are published."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from impart.evaluate.datasets.annotations import Malformed, read_json, read_lines, read_table, records
from impart.evaluate.datasets.reader import Published, Reader
from impart.evaluate.datasets.types import MomentSet
from impart.evaluate.datasets.videos.captions import ACTIVITYNET, ACTIVITYNET_FILES, DIDEMO, DIDEMO_FILES
from impart.evaluate.datasets.videos.files import MomentRow, Spans, VideoFolder, chosen_split, moment_set

__all__ = ["READERS"]

QVHIGHLIGHTS = Published(
    name="qvhighlights",
    title="QVHighlights",
    splits=("val", "train"),
    files=("highlight_val_release.jsonl (highlight_train_release.jsonl)", "videos named bP5KfdFJzC4_660.0_810.0.mp4"),
    home="https://github.com/jayleicn/moment_detr/tree/main/data",
)
CHARADES = Published(
    name="charades-sta",
    title="Charades-STA",
    splits=("test", "train"),
    files=("charades_sta_test.txt", "Charades_v1_test.csv (for the lengths, if at hand)", "videos named 3MSZA.mp4"),
    home="https://github.com/jiyanggao/TALL (videos: https://prior.allenai.org/projects/charades)",
)

QVHIGHLIGHTS_FILES = {split: f"highlight_{split}_release.jsonl" for split in QVHIGHLIGHTS.splits}
CHARADES_FILES = {split: f"charades_sta_{split}.txt" for split in CHARADES.splits}

CLIP_S = 2.0  # QVHighlights rates clips of two seconds
RATERS = 3
DAY_S = 86400.0
CHUNK_S = 5.0  # DiDeMo's annotators chose among chunks of five seconds
_CHARADES_LINE = re.compile(r"(?P<video>\S+)\s+(?P<start>\d+\.?\d*)\s+(?P<end>\d+\.?\d*)\s*##(?P<sentence>.*)")


def open_qvhighlights(path: Path, split: str | None = None) -> MomentSet:
    """QVHighlights (Lei et al. 2021): one or more moments a sentence, and three people's ratings of every 2 s clip.

    The test split has no public answers. Clips outside the moments have saliency 0.
    """
    split = chosen_split(QVHIGHLIGHTS, path, split, QVHIGHLIGHTS_FILES)
    folder = VideoFolder(path, QVHIGHLIGHTS)
    file = folder.annotation(QVHIGHLIGHTS_FILES[split])
    bad, mender = Malformed(file, "json with qid, query, duration, vid, relevant_windows"), Spans()
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
                spans=_mended(windows, duration_s, mender),
                duration_s=duration_s,
                saliency=_saliency(entry, duration_s),
            )
        except KeyError as error:
            bad.add(line, f"no {error.args[0]}")
        except (ValueError, TypeError, IndexError) as error:  # json.JSONDecodeError is a ValueError
            bad.add(line, str(error))
        else:
            rows.append(row)
    return moment_set(f"qvhighlights/{split}", folder, rows, notes=(*bad.notes(), *mender.notes()))


def _saliency(entry: dict[str, Any], duration_s: float) -> npt.NDArray[np.float64] | None:
    if "saliency_scores" not in entry:
        return None
    scores = np.zeros((math.ceil(duration_s / CLIP_S), RATERS))
    for clip, ratings in zip(entry["relevant_clip_ids"], entry["saliency_scores"], strict=True):
        scores[clip] = ratings
    return scores


def open_charades(path: Path, split: str | None = None) -> MomentSet:
    """Charades-STA (Gao et al. 2017): `VID start end##sentence`, one moment a sentence."""
    split = chosen_split(CHARADES, path, split, CHARADES_FILES)
    folder = VideoFolder(path, CHARADES)
    file = folder.annotation(CHARADES_FILES[split])
    lengths = _charades_lengths(folder.optional(f"Charades_v1_{split}.csv"))
    bad, mender = Malformed(file, "VID start end##sentence"), Spans()
    rows = []
    for line, text in read_lines(file):
        match = _CHARADES_LINE.fullmatch(text.strip())
        if match is None:
            bad.add(line, f"{text[:40]!r} is not of the form")
            continue
        video, sentence = match["video"], match["sentence"]
        duration_s = lengths.get(video, math.nan)
        spans = _mended([(float(match["start"]), float(match["end"]))], duration_s, mender)
        rows.append(MomentRow(video, sentence, str(line), spans, duration_s))
    return moment_set(f"charades-sta/{split}", folder, rows, notes=(*bad.notes(), *mender.notes()))


def _charades_lengths(table: Path | None) -> dict[str, float]:
    if table is None:
        return {}
    bad = Malformed(table, "the columns id and length")
    lengths = {}
    for line, row in read_table(table, ["id", "length"]):
        try:
            lengths[row["id"]] = float(row["length"])
        except ValueError:
            bad.add(line, f"length {row['length']!r} is no number")
    bad.notes()  # a video without a length has NaN, which says it
    return lengths


def open_didemo_moments(path: Path, split: str | None = None) -> MomentSet:
    """DiDeMo (Hendricks et al. 2017): the distinct moments that its four or more annotators chose, most votes first.

    A moment that only one annotator chose counts too, so recalls here are higher than by the official score, which
    averages over the best three annotators. Chunks are 5 s; the last one of a video may be shorter than that.
    """
    split = chosen_split(DIDEMO, path, split, DIDEMO_FILES)
    folder = VideoFolder(path, DIDEMO)
    file = folder.annotation(DIDEMO_FILES[split])
    bad = Malformed(file, "objects with video, description, times and annotation_id", unit="entry")
    rows = []
    for number, entry in records(read_json(file, list), ("video", "description", "times", "annotation_id"), bad):
        try:
            votes = Counter((int(first), int(last)) for first, last in entry["times"])
        except (TypeError, ValueError):
            bad.add(number, f"times {entry['times']!r} are no pairs of chunks")
            continue
        chosen = sorted(votes, key=lambda chunks: (-votes[chunks], chunks))
        spans = tuple((CHUNK_S * first, CHUNK_S * (last + 1)) for first, last in chosen if 0 <= first <= last)
        rows.append(
            MomentRow(str(entry["video"]), str(entry["description"]), str(entry["annotation_id"]), spans, math.nan)
        )
    return moment_set(f"didemo-moments/{split}", folder, rows, notes=bad.notes())


def open_activitynet_moments(path: Path, split: str | None = None) -> MomentSet:
    """ActivityNet Captions (Krishna et al. 2017): each sentence of a video with its one moment."""
    split = chosen_split(ACTIVITYNET, path, split, ACTIVITYNET_FILES)
    folder = VideoFolder(path, ACTIVITYNET)
    file = folder.annotation(ACTIVITYNET_FILES[split])
    bad, mender = Malformed(file, "video: {duration, timestamps, sentences}", unit="entry"), Spans()
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
            rows += [
                MomentRow(video, str(sentence), f"{video}#{index}", _mended([moment], duration_s, mender), duration_s)
                for index, (moment, sentence) in enumerate(pairs)
            ]
    aliases = {row.video: row.video.removeprefix("v_") for row in rows}
    notes = (*bad.notes(), *mender.notes())
    return moment_set(f"activitynet-moments/{split}", folder, rows, notes=notes, aliases=aliases)


def _mended(moments: list[tuple[float, float]], duration_s: float, mender: Spans) -> tuple[tuple[float, float], ...]:
    mended = (mender.mend(start_s, end_s, duration_s) for start_s, end_s in moments)
    return tuple(moment for moment in mended if moment is not None)


READERS: tuple[Reader, ...] = (
    QVHIGHLIGHTS.reader("moments", open_qvhighlights),
    CHARADES.reader("moments", open_charades),
    replace(DIDEMO, name="didemo-moments").reader("moments", open_didemo_moments),
    replace(ACTIVITYNET, name="activitynet-moments").reader("moments", open_activitynet_moments),
)
"""What `impart.evaluate.datasets.registry` offers by name."""
