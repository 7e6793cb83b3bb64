"""Moments: predictions read and scored, the baseline, and errors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.sets_of_colours import colour_frames
from helpers.tiny_encoder import TinyEncoder
from impart.errors import DataError
from impart.evaluate.datasets.types import MomentSet
from impart.evaluate.tasks.moments import (
    Method,
    Predictions,
    frame_peaks,
    predict_moments,
    read_predictions,
    score_predictions,
)

SET = MomentSet(
    name="days",
    videos=(Path("red4-blue6.avi"), Path("green10.avi")),
    queries=("a blue thing", "red", "green"),
    query_ids=("11", "12", "13"),
    owners=np.array([0, 0, 1]),
    spans=(((4.0, 10.0),), ((0.0, 4.0),), ((0.0, 2.0), (8.0, 10.0))),
    durations_s=np.array([10.0, 10.0]),
)


def test_figures_by_hand() -> None:
    result = score_predictions(
        {"11": [(4, 10, 0.9)], "12": [(6, 10, 0.9), (0, 4, 0.5)], "13": [(0, 1, 0.3), (8, 10, 0.2)]}, SET, label="x"
    )
    assert (result.task, result.encoder, result.items) == ("moments", "x", ("11", "12", "13"))
    assert result.per_item["mIoU"].tolist() == [1.0, 0.0, 0.5]
    assert result.per_item["R1@0.5"].tolist() == [1.0, 0.0, 1.0]
    assert result.figures["R1@0.7"] == pytest.approx(1 / 3)
    assert result.per_item["mAP@0.5"].tolist() == [1.0, 0.5, 1.0]
    assert result.per_item["mAP@0.75"].tolist() == [1.0, 0.5, 0.25]  # the second window is right: half, at place two
    assert result.clusters is not None
    assert result.clusters.tolist() == [0, 0, 1]
    assert result.counts == {"queries": 3, "videos": 2, "unanswered": 0}
    assert "HIT@1" not in result.figures


def test_unanswered_queries_count_as_wrong_and_foreign_ones_are_noted() -> None:
    result = score_predictions({"11": [(4, 10, 1)], "99": [(0, 1, 1)]}, SET)
    assert result.figures["mIoU"] == pytest.approx(1 / 3)
    assert result.counts["unanswered"] == 2
    assert result.notes == ("1 predictions are for queries that are not in the set",)
    with pytest.raises(DataError, match="none of the 3 queries"):
        score_predictions({"99": [(0, 1, 1)]}, SET)


def test_only_the_best_ten_windows_count() -> None:
    bad = [(20.0 + n, 21.0 + n, 1.0) for n in range(10)]
    result = score_predictions({"11": [*bad, (4, 10, 0.5)], "12": [(4, 10, 0.5), *bad[:9]]}, SET)
    assert result.figures["mAP"] == 0.0


def test_of_equal_windows_the_first_ten_count() -> None:
    bad = [(20.0 + n, 21.0 + n, 1.0) for n in range(10)]
    first, last = ({"11": windows} for windows in ([(4, 10, 1.0), *bad], [*bad, (4, 10, 1.0)]))
    assert score_predictions(first, SET).per_item["mAP"][0] == score_predictions(first, SET).per_item["mIoU"][0] == 1.0
    assert score_predictions(last, SET).figures["mAP"] == 0.0


def test_highlights() -> None:
    ratings = np.zeros((5, 3))
    ratings[3] = [4, 1, 1]
    dataset = replace(SET, saliency=(ratings, None, ratings))
    predictions = Predictions(
        windows={"11": [(4, 10, 1)], "13": [(0, 2, 1)]},
        saliency={"11": np.array([0, 0, 0, 1.0]), "13": np.array([1.0, 0, 0, 0])},
    )
    result = score_predictions(predictions, dataset)
    assert result.figures["HIT@1"] == 0.5
    assert result.counts["rated queries"] == 2
    assert np.nanmin(result.resampled["HIT@1"]) == 0.0


def test_predictions_in_the_format_of_a_submission(tmp_path: Path) -> None:
    file = tmp_path / "hl_val_submission.jsonl"
    lines = [
        {"qid": 11, "query": "q", "vid": "v", "pred_relevant_windows": [[4, 10, 0.9]], "pred_saliency_scores": [0, 1]},
        {"qid": "12", "pred_relevant_windows": []},
    ]
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n", encoding="utf-8")
    found = read_predictions(file)
    assert found.windows == {"11": [(4.0, 10.0, 0.9)], "12": []}
    assert found.saliency["11"].tolist() == [0, 1]
    assert score_predictions(found, SET).counts["unanswered"] == 2
    for wrong, message in (
        ('{"qid": 1}', "pred_relevant_windows"),
        ("{", "line 1"),
        ('{"qid": 1, "pred_relevant_windows": [[0, 1]]}', "line 1"),
        ('{"qid": 1, "pred_relevant_windows": [[0, NaN, 1]]}', "finite"),
        ('{"qid": 1, "pred_relevant_windows": []}\n' * 2, "line 2.*twice"),
    ):
        file.write_text(wrong, encoding="utf-8")
        with pytest.raises(DataError, match=message):
            read_predictions(file)
    with pytest.raises(DataError, match="cannot read"):
        read_predictions(tmp_path / "none.jsonl")


def test_peaks_of_two_bumps() -> None:
    spans = np.array([[n / 4, (n + 1) / 4] for n in range(160)])  # 40 s
    times = spans[:, 0]
    scores = 0.2 + 0.5 * ((times >= 8) & (times < 14)) + 0.3 * ((times >= 25) & (times < 30))
    windows = frame_peaks(spans, scores)
    assert windows[0][:2] == pytest.approx((8, 14), abs=0.5)
    assert windows[1][:2] == pytest.approx((25, 30), abs=0.5)
    assert windows[0][2] > windows[1][2]
    assert len(frame_peaks(spans, scores, most=1)) == 1
    taken = np.concatenate([np.arange(start * 4, end * 4) for start, end, _ in windows])
    assert len(taken) == len(set(taken))  # no time twice
    assert frame_peaks(spans, np.full(160, 0.5)) == [(0.0, 40.0, pytest.approx(0.5))]
    assert frame_peaks(np.array([[0.0, 0.1]]), np.array([0.3])) == [(0.0, 0.1, 0.3)]


@pytest.mark.parametrize("method", ["search", "frame peaks"])
def test_predictions_find_colours(tiny: TinyEncoder, method: Method) -> None:
    seen: list[tuple[int, int]] = []
    found = predict_moments(
        tiny, SET, frames=colour_frames, on_progress=lambda done, total: seen.append((done, total)), method=method
    )
    result = score_predictions(found, SET, label=method)
    assert result.per_item["R1@0.7"][:2].tolist() == [1, 1]
    assert found.saliency["11"].argmax() in (2, 3, 4)
    assert len(found.saliency["11"]) == 5
    assert found.settings["method"] == method
    assert seen == [(1, 2), (2, 2)]


def test_a_broken_video_leaves_its_queries_unanswered(tiny: TinyEncoder) -> None:
    dataset = replace(SET, videos=(SET.videos[0], Path("broken.avi")))
    result = score_predictions(predict_moments(tiny, dataset, frames=colour_frames), dataset)
    assert result.counts["unanswered"] == 1
    assert "broken.avi: cannot be opened" in result.notes[0]
