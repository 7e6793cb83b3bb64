"""Readers of sentences with moments, on small files in the official formats; the videos are empty files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from impart.errors import DataError
from impart.evaluate.datasets import open_set
from impart.evaluate.datasets.types import MomentSet, VideoSet
from impart.evaluate.datasets.videos.moments import (
    READERS,
    open_activitynet_moments,
    open_charades,
    open_didemo_moments,
    open_qvhighlights,
)


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


QV: dict[str, Any] = {
    "qid": 8737,
    "query": "A family is playing basketball together on a green court outside.",
    "duration": 126,
    "vid": "bP5KfdFJzC4_660.0_810.0",
    "relevant_windows": [[0, 4], [10, 12]],
    "relevant_clip_ids": [0, 1, 5],
    "saliency_scores": [[4, 1, 1], [4, 2, 3], [0, 0, 0]],
}


def test_qvhighlights(tmp_path: Path) -> None:
    other = {**QV, "qid": 9, "query": "A shoe", "vid": "gone_0.0_150.0", "duration": 150}
    same = {**QV, "qid": 10, "query": "A court ", "relevant_windows": [[120, 126]]}
    write(tmp_path / "highlight_val_release.jsonl", "".join(json.dumps(row) + "\n" for row in (QV, other, same)))
    write(tmp_path / "videos" / "bP5KfdFJzC4_660.0_810.0.mp4", "")
    dataset = open_qvhighlights(tmp_path)
    assert dataset.name == "qvhighlights/val"
    assert dataset.query_ids == ("8737", "10")
    assert dataset.queries[1] == "A court"
    assert dataset.owners.tolist() == [0, 0]
    assert dataset.spans == (((0.0, 4.0), (10.0, 12.0)), ((120.0, 126.0),))
    assert dataset.durations_s.tolist() == [126.0]
    assert dataset.saliency is not None
    first = dataset.saliency[0]
    assert first is not None
    assert first.shape == (63, 3)
    assert first[:2].tolist() == [[4, 1, 1], [4, 2, 3]]
    assert not first[2:].any()
    assert dataset.notes == ("missing videos left out: 1 of 2 (gone_0.0_150.0)",)


def test_the_test_split_of_qvhighlights_has_answers_in_a_file_of_its_own(tmp_path: Path) -> None:
    hidden = json.dumps({key: QV[key] for key in ("qid", "query", "duration", "vid")}) + "\n"
    write(tmp_path / "highlight_test_release.jsonl", hidden)
    write(tmp_path / "bP5KfdFJzC4_660.0_810.0.mp4", "")
    with pytest.raises(DataError, match=r"highlight_test_release\.jsonl has no answers: highlight_test_with_gt\.jsonl"):
        open_qvhighlights(tmp_path, "test")
    write(tmp_path / "highlight_test_with_gt.jsonl", json.dumps(QV) + "\n")
    dataset = open_qvhighlights(tmp_path, "test")
    assert (dataset.name, dataset.spans) == ("qvhighlights/test", (((0.0, 4.0), (10.0, 12.0)),))


def test_qvhighlights_without_answers(tmp_path: Path) -> None:
    hidden = json.dumps({key: QV[key] for key in ("qid", "query", "duration", "vid")}) + "\n"
    file = write(tmp_path / "highlight_val_release.jsonl", json.dumps(QV) + "\n" + hidden)
    write(tmp_path / "bP5KfdFJzC4_660.0_810.0.mp4", "")
    assert open_qvhighlights(tmp_path).notes == (
        "left out as malformed: 1 line (highlight_val_release.jsonl, line 2: no relevant_windows)",
    )
    write(file, hidden * 2)
    with pytest.raises(DataError, match=r"highlight_val_release\.jsonl, line 1: no relevant_windows, and 1 more"):
        open_qvhighlights(tmp_path)
    write(file, json.dumps({**QV, "duration": float("inf")}) + "\n" + "[]\n")
    with pytest.raises(DataError, match=r"line 1: a duration of inf s, and 1 more"):
        open_qvhighlights(tmp_path)
    write(file, "{\n{}\n")
    with pytest.raises(DataError, match=r"line 1: .*expected json with qid"):
        open_qvhighlights(tmp_path)


CHARADES = """3MSZA 24.3 30.4##person turn a light on.
3MSZA 24.3 30.4##person flipped the light switch near the door.
AMT7R 0.0 11.2##a person is putting a book on a shelf.
"""


def test_charades(tmp_path: Path) -> None:
    write(tmp_path / "charades_sta_test.txt", CHARADES)
    for video in ("3MSZA", "AMT7R"):
        write(tmp_path / "Charades_v1_480" / f"{video}.mp4", "")
    dataset = open_charades(tmp_path)
    assert dataset.queries[0] == "person turn a light on."
    assert dataset.query_ids == ("1", "2", "3")
    assert dataset.owners.tolist() == [0, 0, 1]
    assert dataset.spans == (((24.3, 30.4),), ((24.3, 30.4),), ((0.0, 11.2),))
    assert np.isnan(dataset.durations_s).all()
    assert dataset.saliency is None
    assert dataset.notes == ()
    header = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
    row = "{},HJZG,Hallway,6,7,Yes,script,door;light,descr,c104 24.50 30.40;c141 0.00 5.20,{}\n"
    write(tmp_path / "Charades_v1_test.csv", header + row.format("3MSZA", "30.0") + row.format("AMT7R", "11.50"))
    dataset = open_charades(tmp_path)
    assert dataset.durations_s.tolist() == [30.0, 11.5]
    assert dataset.spans[0] == ((24.3, 30.0),)
    assert dataset.notes == ("moments repaired that ran backwards or past an end of the video: 2",)


def test_charades_malformed(tmp_path: Path) -> None:
    file = write(tmp_path / "charades_sta_test.txt", CHARADES + "no times here\n")
    write(tmp_path / "3MSZA.mp4", "")
    dataset = open_charades(tmp_path)
    assert len(dataset.queries) == 2
    assert "charades_sta_test.txt, line 4: 'no times here' has another form" in dataset.notes[0]
    write(file, "no times here\n" * 2)
    with pytest.raises(DataError, match=r"charades_sta_test\.txt, line 1: .*expected VID start end##sentence"):
        open_charades(tmp_path)


def test_didemo_moments(tmp_path: Path) -> None:
    entry = {"num_segments": 6, "dl_link": "https://www.flickr.com/video_download.gne?id=1", "video": "1@N0_2.mov"}
    data = [
        {
            **entry,
            "description": "a bug",
            "annotation_id": 1,
            "times": [[4, 4], [0, 1], [4, 4], [0, 0], [0, 1], [4, 4]],
        },
        {**entry, "description": "a dog", "annotation_id": 31171, "times": [[5, 5], [5, 5], [5, 5], [5, 5]]},
    ]
    write(tmp_path / "test_data.json", json.dumps(data))
    write(tmp_path / "1@N0_2.mov", "")
    dataset = open_didemo_moments(tmp_path)
    assert dataset.spans == (((20.0, 25.0), (0.0, 10.0), (0.0, 5.0)), ((25.0, 30.0),))
    assert dataset.query_ids == ("1", "31171")
    assert np.isnan(dataset.durations_s).all()
    write(tmp_path / "test_data.json", json.dumps([*data, {**entry, "description": "no times"}]))
    assert (
        open_didemo_moments(tmp_path).notes[0].startswith("left out as malformed: 1 entry (test_data.json, entry 3: ")
    )


def test_activitynet_moments(tmp_path: Path) -> None:
    data = {
        "v_uqiMw7tQ1Cc": {
            "duration": 55.15,
            "timestamps": [[0.28, 60.0], [54.32, 13.79], [5.0, 5.0]],
            "sentences": ["A tutorial is given.", " The coach helps.", "Nothing."],
        }
    }
    write(tmp_path / "val_1.json", json.dumps(data))
    write(tmp_path / "v_uqiMw7tQ1Cc.mp4", "")
    dataset = open_activitynet_moments(tmp_path)
    assert dataset.spans == (((0.28, 55.15),), ((13.79, 54.32),))
    assert dataset.queries == ("A tutorial is given.", "The coach helps.")
    assert dataset.query_ids == ("v_uqiMw7tQ1Cc#0", "v_uqiMw7tQ1Cc#1")
    assert dataset.durations_s.tolist() == [55.15]
    assert dataset.notes == (
        "moments repaired that ran backwards or past an end of the video: 2",
        "moments left out that have no length inside the video: 1",
        "sentences left out that are blank or without a moment: 1",
    )
    write(tmp_path / "val_1.json", '{"v_uqi": {"duration": 1.0,\n "timestamps": [}')
    with pytest.raises(DataError, match=r"val_1\.json, line 2: not json"):
        open_activitynet_moments(tmp_path)
    write(tmp_path / "val_1.json", "[]")
    with pytest.raises(DataError, match=r"val_1\.json contains a list, expected a dict"):
        open_activitynet_moments(tmp_path)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_errors_for_missing_files_name_the_files_and_their_home(reader: object, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no .*(jsonl|txt|json)\. .* needs .*published at http"):
        reader.open(tmp_path, None)  # type: ignore[attr-defined]


def test_reader_names() -> None:
    names = [reader.name for reader in READERS]
    assert names == ["qvhighlights", "charades-sta", "didemo-moments", "activitynet-moments"]
    assert all(reader.kind == "moments" and reader.home.startswith("http") for reader in READERS)


def test_one_name_opens_paragraphs_and_moments(tmp_path: Path) -> None:
    entry = {"video": "1@N0_2.mov", "description": "a bug", "annotation_id": 1, "times": [[4, 4]], "num_segments": 6}
    write(tmp_path / "val_data.json", json.dumps([entry]))
    write(tmp_path / "1@N0_2.mov", "")
    assert isinstance(open_set(f"didemo:{tmp_path}", split="val"), VideoSet)
    moments = open_set(f"didemo:{tmp_path}", split="val", kind="moments")
    assert isinstance(moments, MomentSet)
    assert moments.name == "didemo-moments/val"
