"""A report folder: its files, what is read back, and the case without matplotlib."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.results import classified
from impart.errors import DataError
from impart.evaluate.report.compare import paired
from impart.evaluate.report.folder import Report, read_report, summarise, write_report
from impart.evaluate.report.tables import Cell, Table, markdown
from impart.evaluate.result import Result, shown

RIGHT = [1, 0, 0, 1, 1, 0, 1, 1, 0, 1] * 20
ALWAYS = [1] * 200
RESULTS = [classified("mini", RIGHT), classified("mini+vanilla", ALWAYS), classified("mini+paper", RIGHT)]
ENCODERS = [{"label": "mini", "encoder": "mini", "encoder_fingerprint": "abc", "fingerprint": "abc"}]


def report(results: Sequence[Result] = RESULTS, settings: dict[str, str] | None = None, **more: Any) -> Report:
    return Report(results=tuple(results), settings=settings or {}, **more)


def test_round_trip(tmp_path: Path) -> None:
    write_report(
        tmp_path / "run",
        report(RESULTS, {"prompts": "ensemble"}, encoders=tuple(ENCODERS), notes=("a note",), seconds=1.5),
    )
    back = read_report(tmp_path / "run")
    assert (back.settings, back.encoders, back.notes, back.seconds) == (
        {"prompts": "ensemble"},
        tuple(ENCODERS),
        ("a note",),
        1.5,
    )
    for one, other in zip(RESULTS, back.results, strict=True):
        assert (one.items, one.figures, one.lower_is_better) == (other.items, other.figures, other.lower_is_better)
        assert (one.counts, one.notes, one.labels) == (other.counts, other.notes, other.labels)
        for kind in ("per_item", "resampled", "arrays"):
            mine, read = getattr(one, kind), getattr(other, kind)
            assert mine.keys() == read.keys()
            for name in mine:
                np.testing.assert_array_equal(mine[name], read[name])
    assert paired(back.results[0], RESULTS[1]) == paired(RESULTS[0], RESULTS[1])


def test_a_report_with_the_old_names_is_read(tmp_path: Path) -> None:
    write_report(tmp_path, report(RESULTS), plots=False)
    content = json.loads((tmp_path / "report.json").read_text())
    content["outcomes"] = content.pop("results")
    first = content["outcomes"][0]
    first["counts"] = {"pictures": 5}
    first["settings"] = {
        "phrasings": ["{}"],
        "frames": "impart.video.sampling.sampled_frames fit='squash' fps=4.0 short_side_px=256",
    }
    (tmp_path / "report.json").write_text(json.dumps(content))
    (tmp_path / "results.npz").rename(tmp_path / "outcomes.npz")
    back = read_report(tmp_path).results
    assert back[0].counts == {"images": 5}
    assert back[0].settings == {
        "prompts": ["{}"],
        "frames": "fps 4.0, reuse_threshold 2.0, fit squash, short_side_px 256",
    }
    assert [(one.encoder, one.figures, one.items) for one in back] == [
        (one.encoder, one.figures, one.items) for one in RESULTS
    ]


def test_the_json_has_figures_with_intervals_differences_and_versions(tmp_path: Path) -> None:
    write_report(tmp_path, report(RESULTS, {}, encoders=tuple(ENCODERS)))
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["schema"] == 1
    assert {"impart", "numpy"} <= content["versions"].keys()
    assert content["datasets"] == ["colours/test"]
    top1 = content["results"][0]["figures"]["top-1"]
    assert top1["value"] == pytest.approx(0.6)
    assert top1["low"] < 0.6 < top1["high"]
    found = {(one["b"], one["differences"][0]["figure"]): one["differences"][0] for one in content["comparisons"]}
    assert found["mini+vanilla", "top-1"]["difference"] == pytest.approx(0.4)
    assert found["mini+vanilla", "top-1"]["noise"] is False
    assert found["mini+paper", "top-1"]["noise"] is True


def test_the_text_marks_the_best_and_the_noise(tmp_path: Path) -> None:
    written = write_report(tmp_path, report(RESULTS, {"command": "impart eval zeroshot x"}, encoders=tuple(ENCODERS)))
    text = (tmp_path / "report.md").read_text()
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| mini")}
    assert "**100.0 ±0.0**" in rows["mini+vanilla"]
    assert rows["mini+paper"].split("|")[2].strip().startswith("60.0 ±")
    assert rows["mini+paper"].split("|")[2].strip().endswith("~")
    assert "+40.0 (+33.0 to +" in rows["mini+vanilla - mini"]
    assert "200 images, 2 classes" in text
    assert "broken.png" in text
    assert "impart eval zeroshot x" in text
    for plot in written.plots:
        assert plot.read_bytes().startswith(b"\x89PNG")
        assert f"plots/{plot.name}" in text
    assert [plot.name for plot in written.plots] == [
        "zero-shot-colours-test.png",
        "zero-shot-colours-test-reliability.png",
        "zero-shot-colours-test-confusion-mini.png",
        "zero-shot-colours-test-confusion-mini+vanilla.png",
        "zero-shot-colours-test-confusion-mini+paper.png",
    ]


def test_without_matplotlib_the_report_has_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    written = write_report(tmp_path, report(RESULTS[:1]))
    assert written.plots == ()
    assert "impart-clip[eval]" in written.problem
    assert written.problem in (tmp_path / "report.md").read_text()
    assert read_report(tmp_path).notes == (written.problem,)


def test_writing_again_replaces(tmp_path: Path) -> None:
    write_report(tmp_path, report(RESULTS))
    write_report(tmp_path, report(RESULTS[:1]))
    assert len(read_report(tmp_path).results) == 1
    assert not list((tmp_path / "plots").glob("*vanilla*"))


def test_a_missing_another_and_a_damaged_report_raise_different_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no report"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(DataError, match="is not a report of"):
        read_report(tmp_path)
    write_report(tmp_path, report(RESULTS[:1]), plots=False)
    (tmp_path / "results.npz").write_bytes(b"half")
    with pytest.raises(DataError, match="is damaged"):
        read_report(tmp_path)
    content = json.loads((tmp_path / "report.json").read_text())
    (tmp_path / "report.json").write_text(json.dumps({**content, "schema": 99}))
    with pytest.raises(DataError, match="schema 99"):
        read_report(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="choose another --out"):
        write_report(tmp_path / "file", report(RESULTS[:1]), plots=False)


def test_a_nan_is_null_in_json_and_read_back_as_nan(tmp_path: Path) -> None:
    import dataclasses

    broken = dataclasses.replace(classified("mini", RIGHT), figures={"mAP rare": float("nan")})
    write_report(tmp_path, report([broken]), plots=False)
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["results"][0]["figures"]["mAP rare"] == {"value": None}
    assert np.isnan(read_report(tmp_path).results[0].figures["mAP rare"])


def test_small_differences_are_not_shown_as_zero() -> None:
    assert shown("top-1", 0.0002, sign=True) == "+0.02"
    assert shown("top-1", -0.0) == "0.0"
    assert shown("median rank", 2.5) == "2.5"
    assert shown("mean rank", 3.0) == "3.0"
    assert shown("mAP rare", float("nan")) == "-"


def test_markdown_escapes_bars_in_cells() -> None:
    table = Table(
        title="t", columns=("a", "b"), rows=((Cell("x|y"), Cell("1", best=True, noise=True)),), below=("end",)
    )
    assert markdown(table).splitlines()[2:6] == ["| a | b |", "| --- | ---: |", "| x\\|y | **1** ~ |", ""]


def test_one_encoder_has_no_comparison() -> None:
    summary = summarise(RESULTS[:1])
    assert summary.comparisons == ()
    assert not any(cell.best or cell.noise for table in summary.tables for row in table.rows for cell in row)
