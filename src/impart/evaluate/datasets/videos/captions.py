"""Read videos with captions, for text-to-video retrieval, from the annotation files as published.

The videos may be in any sub-folder. Missing videos are left out and counted in the notes.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from impart.errors import DataError
from impart.evaluate.datasets.annotations import (
    Malformed,
    read_bytes,
    read_json,
    read_lines,
    read_table,
    records,
    table_name,
)
from impart.evaluate.datasets.plain_pickle import load_plain_pickle
from impart.evaluate.datasets.reader import OWN_FILES, DataSetInfo, Reader
from impart.evaluate.datasets.types import VideoSet
from impart.evaluate.datasets.videos.files import CaptionRow, VideoFolder, open_annotation, video_set

__all__ = ["READERS"]

MSRVTT = DataSetInfo(
    name="msrvtt",
    title="MSR-VTT",
    splits=("1ka", "test", "validate", "train"),
    files=(
        "MSRVTT_JSFUSION_test.csv (split 1ka), or MSRVTT_data.json, or test_videodatainfo.json and "
        "train_val_videodatainfo.json (the others)",
        "videos named video7020.mp4",
    ),
    home="https://github.com/ArrowLuo/CLIP4Clip#data-preparing",
)
MSVD = DataSetInfo(
    name="msvd",
    title="MSVD",
    splits=("test", "val", "train"),
    files=(
        "test_list.txt",
        "raw-captions.pkl",
        "videos named -4wsuPCjDBc_5_15.avi, or vid1.avi with youtube_mapping.txt",
    ),
    home="https://www.cs.utexas.edu/~ml/clamp/videoDescription/ (lists and captions: "
    "https://github.com/ArrowLuo/CLIP4Clip#data-preparing)",
)
DIDEMO = DataSetInfo(
    name="didemo",
    title="DiDeMo",
    splits=("test", "val", "train"),
    files=("test_data.json", "videos named as its field `video`, with any suffix"),
    home="https://github.com/LisaAnne/LocalizingMoments",
)
ACTIVITYNET = DataSetInfo(
    name="activitynet",
    title="ActivityNet Captions",
    splits=("val_1", "val_2", "train"),
    files=("val_1.json (val_2.json, train.json)", "videos named v_uqiMw7tQ1Cc.mp4"),
    home="https://cs.stanford.edu/people/ranjaykrishna/densevid/ (videos: http://activity-net.org/download.html)",
)
LSMDC = DataSetInfo(
    name="lsmdc",
    title="LSMDC",
    splits=("test", "val", "train"),
    files=(
        "LSMDC16_challenge_1000_publictect.csv (val: LSMDC16_annos_val.csv, train: LSMDC16_annos_training.csv)",
        "videos named 1004_Juno_00.00.32.306-00.00.40.807.avi",
    ),
    home="https://sites.google.com/site/describingmovies/download",
)
CONDENSED_MOVIES = DataSetInfo(
    name="condensed-movies",
    title="Condensed Movies",
    splits=("all", "test", "val", "train"),
    files=("clips.csv", "descriptions.csv", "split.csv (for a split other than all)", "videos named <videoid>.mkv"),
    home="https://github.com/m-bain/CondensedMovies",
)
CAPTIONS = DataSetInfo(
    name="video-captions",
    title="A table of captioned videos",
    splits=(),
    files=(
        "captions.csv with the columns file and caption (or text), and optionally split, start_s, end_s",
        "the videos",
    ),
    home=OWN_FILES,
)


MSRVTT_FILES = {
    "1ka": ("MSRVTT_JSFUSION_test.csv",),
    "test": ("MSRVTT_data.json", "test_videodatainfo.json"),
    "validate": ("MSRVTT_data.json", "train_val_videodatainfo.json"),
    "train": ("MSRVTT_data.json", "train_val_videodatainfo.json"),
}
"""The second names are those of the archives of the challenge, the first those of later copies with all splits."""
MSVD_FILES = {split: (f"{split}_list.txt",) for split in MSVD.splits}
DIDEMO_FILES = {split: (f"{split}_data.json",) for split in DIDEMO.splits}
ACTIVITYNET_FILES = {split: (f"{split}.json",) for split in ACTIVITYNET.splits}
LSMDC_FILES = {
    "test": ("LSMDC16_challenge_1000_publictect.csv",),
    "val": ("LSMDC16_annos_val.csv",),
    "train": ("LSMDC16_annos_training.csv",),
}


def open_msrvtt(path: Path, split: str | None = None) -> VideoSet:
    """Open MSR-VTT: the 1,000 pairs of the split 1kA (Yu et al. 2018), or an official split with all captions."""
    split, folder, file = open_annotation(MSRVTT, path, split, MSRVTT_FILES)
    if split == "1ka":
        bad = Malformed(file, "key,vid_key,video_id,sentence")
        rows = []
        for line, row in read_table(file, ["key", "vid_key", "video_id", "sentence"]):
            if row["video_id"]:
                rows.append(CaptionRow(row["video_id"], row["sentence"]))
            else:
                bad.add(line, "no video_id")
        return video_set("msrvtt/1ka", folder, rows, notes=bad.notes())
    data = read_json(file, dict)
    bad = Malformed(file, "videos with video_id and split, sentences with video_id and caption", unit="entry")
    videos = {
        str(video["video_id"])
        for _, video in records(data.get("videos"), ("video_id", "split"), bad)
        if video["split"] == split
    }
    sentences = records(data.get("sentences"), ("video_id", "caption"), bad)
    captions = [
        CaptionRow(str(row["video_id"]), str(row["caption"])) for _, row in sentences if row["video_id"] in videos
    ]
    return video_set(f"msrvtt/{split}", folder, captions, notes=bad.notes())


def open_msvd(path: Path, split: str | None = None) -> VideoSet:
    """Open MSVD: every caption is a query (about 40 per video)."""
    split, folder, video_list = open_annotation(MSVD, path, split, MSVD_FILES)
    listed = [line.strip() for _, line in read_lines(video_list)]
    file = folder.annotation("raw-captions.pkl")
    captions = _plain_captions(file)
    bad = Malformed(file, "captions of the video, each a list of words", unit="video")
    rows = []
    for number, video in enumerate(listed, start=1):
        texts = captions.get(video)
        try:
            if not isinstance(texts, list | tuple):
                raise TypeError
            rows += [CaptionRow(video, _text(text)) for text in texts]
        except TypeError:
            bad.add(number, f"{video} has no captions, or captions of another form")
    mapping = folder.optional("youtube_mapping.txt")
    pairs = [line.split() for _, line in read_lines(mapping)] if mapping else []
    aliases = {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
    return video_set(f"msvd/{split}", folder, rows, notes=bad.notes(), aliases=aliases)


def _plain_captions(file: Path) -> dict[str, Any]:
    """Load the captions of every video, each a list of words; texts of Python 2 are bytes."""
    value = load_plain_pickle(read_bytes(file), where=str(file))
    if not isinstance(value, dict):
        raise DataError(f"{file} contains a {type(value).__name__}, expected captions by video: download it again")
    return {_text(video): captions for video, captions in value.items()}


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, str):
        return value
    return " ".join(_text(word) for word in value)  # TypeError if it is not a list of words


def open_didemo(path: Path, split: str | None = None) -> VideoSet:
    """Open DiDeMo for paragraph retrieval: the descriptions of a video, in the order of the file, are one caption."""
    split, folder, file = open_annotation(DIDEMO, path, split, DIDEMO_FILES)
    bad = Malformed(file, "objects with video and description", unit="entry")
    paragraphs: dict[str, list[str]] = {}
    for _, entry in records(read_json(file, list), ("video", "description"), bad):
        paragraphs.setdefault(str(entry["video"]), []).append(str(entry["description"]).strip())
    rows = [CaptionRow(video, " ".join(texts)) for video, texts in paragraphs.items()]
    return video_set(f"didemo/{split}", folder, rows, notes=bad.notes())


def open_activitynet(path: Path, split: str | None = None) -> VideoSet:
    """Open ActivityNet Captions for paragraph retrieval: the sentences of a video, in order, are one caption."""
    split, folder, file = open_annotation(ACTIVITYNET, path, split, ACTIVITYNET_FILES)
    bad = Malformed(file, "video: {duration, timestamps, sentences}", unit="entry")
    rows = []
    for number, (video, entry) in enumerate(read_json(file, dict).items(), start=1):
        sentences = entry.get("sentences") if isinstance(entry, dict) else None
        if isinstance(sentences, list) and sentences:
            rows.append(CaptionRow(video, " ".join(str(sentence).strip() for sentence in sentences)))
        else:
            bad.add(number, f"{video} has no sentences")
    aliases = {row.video: row.video.removeprefix("v_") for row in rows}
    return video_set(f"activitynet/{split}", folder, rows, notes=bad.notes(), aliases=aliases)


def open_lsmdc(path: Path, split: str | None = None) -> VideoSet:
    """Open LSMDC: one sentence per clip; the test split is the 1,000 clips of the 2016 challenge."""
    split, folder, file = open_annotation(LSMDC, path, split, LSMDC_FILES)
    bad = Malformed(file, "clip, start, end, start extracted, end extracted and sentence, separated by tabs")
    rows = []
    for line, text in read_lines(file, fallback="cp1252"):
        cells = text.split("\t")
        if len(cells) == 6:
            rows.append(CaptionRow(cells[0].strip(), cells[5]))
        else:
            bad.add(line, f"{len(cells)} columns")
    return video_set(f"lsmdc/{split}", folder, rows, notes=bad.notes())


def open_condensed_movies(path: Path, split: str | None = None) -> VideoSet:
    """Open Condensed Movies: one description per clip; `split.csv` assigns movies to splits."""
    split = CONDENSED_MOVIES.split(split)
    folder = VideoFolder(path, CONDENSED_MOVIES)
    clips = folder.annotation("clips.csv")
    table = folder.annotation("descriptions.csv")
    movies = {row["videoid"]: row["imdbid"] for _, row in read_table(clips, ["videoid", "imdbid"])}
    if split != "all":
        divided = read_table(folder.annotation("split.csv"), ["imdbid", "split"])
        inside = {row["imdbid"] for _, row in divided if row["split"] == split}
        movies = {video: movie for video, movie in movies.items() if movie in inside}
    bad = Malformed(table, "imdbid,videoid,description")
    rows, strange = [], 0
    for line, row in read_table(table, ["imdbid", "videoid", "description"]):
        if not row["videoid"]:
            bad.add(line, "no videoid")
        elif row["videoid"] in movies:
            rows.append(CaptionRow(row["videoid"], row["description"]))
        elif split == "all":
            strange += 1
    notes = (f"descriptions left out whose clips clips.csv does not list: {strange}",) if strange else ()
    return video_set(f"condensed-movies/{split}", folder, rows, notes=(*bad.notes(), *notes))


def open_captions(path: Path, split: str | None = None) -> VideoSet:
    """Open a csv with the columns `file` and `caption` (or `text`), and optionally `split`, `start_s` and `end_s`.

    A video may have several rows; rows of one file with different times are different items.
    """
    if path.is_file():
        table, folder = path, VideoFolder(path, CAPTIONS)
    else:
        folder = VideoFolder(path, CAPTIONS)
        table = folder.annotation("captions.csv")
    bad = Malformed(table, "file,caption")
    rows = []
    for line, row in read_table(table, ["file"]):
        caption = row.get("caption") or row.get("text") or ""
        if split is not None and row.get("split") != split:
            continue
        try:
            span = _span(row.get("start_s", ""), row.get("end_s", ""))
        except ValueError:
            bad.add(line, f"start_s {row.get('start_s')!r} and end_s {row.get('end_s')!r} are not ascending times")
            continue
        if row["file"]:
            rows.append(CaptionRow(row["file"], caption, span))
        else:
            bad.add(line, "no file")
    if not rows and not bad.found:
        raise DataError(f"{table} has no row" + (f" with split {split!r}" if split else ""))
    return video_set(table_name(table, split), folder, rows, notes=bad.notes())


def _span(start: str, end: str) -> tuple[float, float] | None:
    if not start and not end:
        return None
    start_s, end_s = float(start), float(end)
    if not (0.0 <= start_s < end_s < math.inf):
        raise ValueError
    return start_s, end_s


READERS: tuple[Reader, ...] = (
    MSRVTT.reader("videos", open_msrvtt),
    MSVD.reader("videos", open_msvd),
    DIDEMO.reader("videos", open_didemo),
    ACTIVITYNET.reader("videos", open_activitynet),
    LSMDC.reader("videos", open_lsmdc),
    CONDENSED_MOVIES.reader("videos", open_condensed_movies),
    CAPTIONS.reader("videos", open_captions),
)
