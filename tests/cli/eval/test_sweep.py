"""`impart refset sweep`: its output, its files, and a sweep that continues after a stop."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from helpers.tiny_encoder import COLOURS, TinyEncoder
from impart.cli.refset import app
from impart.encoders.base import register
from impart.errors import ConfigError
from impart.refset.refset import ReferenceSet

RUN = CliRunner()
FEW = ["--sizes", "20%,100%", "--select", "random,class", "--corrupt", "0,1", "--k", "1,3", "--w-img", "0.5"]
FEW += ["--w-txt", "1", "--tau", "0,0.05", "--seeds", "2", "--near-duplicate", "2"]


@pytest.fixture(autouse=True)
def _tiny_by_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register("tiny", lambda rest, **options: TinyEncoder(int(rest or 0)))
    monkeypatch.setenv("IMPART_CACHE", str(tmp_path / "cache"))
    # Drawn for real in tests/evaluate/sweep/test_run.py; it takes most of the time.
    monkeypatch.setattr("impart.evaluate.sweep.folder.draw_panels", lambda path, panels, **more: path)


def paint(folder: Path, seed: int) -> Path:
    """Five shades each of six colours."""
    rng = np.random.default_rng(seed)
    for name, colour in list(COLOURS.items())[:6]:
        (folder / name).mkdir(parents=True)
        for i in range(5):
            shade = tuple(int(c) for c in np.clip(np.array(colour) + rng.integers(-40, 40, 3), 0, 255))
            Image.new("RGB", (8, 8), shade).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture
def references(tmp_path: Path) -> Path:
    out = tmp_path / "shades"
    built = RUN.invoke(app, ["build", str(paint(tmp_path / "pairs", 0)), "-o", str(out), "-e", "tiny", "--no-tune"])
    assert built.exit_code == 0, built.output
    return out


def table(out: Path) -> list[dict[str, str]]:
    with (out / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_sweep_prints_writes_and_continues(references: Path, tmp_path: Path) -> None:
    data, out = paint(tmp_path / "test", 1), tmp_path / "report"
    arguments = ["sweep", str(references), "--data", str(data), "-o", str(out), *FEW]
    first = RUN.invoke(app, arguments)
    assert first.exit_code == 0, first.output
    assert "By captions corrupted" in first.output
    assert "chosen by the set's own images" in " ".join(first.output.split()) or "plain encoder" in first.output
    rows = table(out)
    names = {row["dataset"] for row in rows}
    assert len(names) == 2
    assert "leave-one-out" in names
    assert len(rows) == len({tuple(row.values()) for row in rows})
    content = json.loads((out / "sweep.json").read_text())
    assert content["plan"]["k"] == [1, 3]
    held = ReferenceSet.open(references)
    assert content["references"]["pairs"] + content["references"]["dropped"] == len(held)
    assert "swept around the paper's settings" in " ".join(content["notes"])
    assert (out / "report.md").read_text().startswith("# Sweep of shades")
    again = RUN.invoke(app, arguments)
    assert again.exit_code == 0, again.output
    assert f"{len(rows)} of {len(rows)} rows were measured before" in again.output
    assert table(out) == rows
    more = RUN.invoke(app, [*arguments, "--k", "1,3,5"])
    assert more.exit_code == 0, more.output
    assert f"{len(rows)} of {len(rows) + 2} rows" in more.output


def test_without_data_only_leave_one_out(references: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    found = RUN.invoke(app, ["sweep", str(references), "-o", str(out), *FEW, "--around", "usual"])
    assert found.exit_code == 0, found.output
    assert {row["dataset"] for row in table(out)} == {"leave-one-out"}
    assert {row["floor"] for row in table(out)} == {"4.0"}


def test_choosing_by_a_data_set_has_a_warning(references: Path, tmp_path: Path) -> None:
    data, out = paint(tmp_path / "test", 1), tmp_path / "report"
    name = f"{tmp_path.name}/test"
    arguments = ["sweep", str(references), "--data", str(data), "-o", str(out), *FEW, "--choose-by"]
    found = RUN.invoke(app, [*arguments, name])
    assert found.exit_code == 0, found.output
    assert f"this was tuned on {name}" in " ".join(found.output.split())
    wrong = RUN.invoke(app, [*arguments, "elsewhere"])
    assert isinstance(wrong.exception, ConfigError)
    assert "choose leave-one-out" in str(wrong.exception)


def test_invalid_values_are_refused(references: Path, tmp_path: Path) -> None:
    for option, value in (("--k", "two"), ("--sizes", "much"), ("--corrupt", "30")):
        found = RUN.invoke(app, ["sweep", str(references), "-o", str(tmp_path / "report"), option, value])
        assert isinstance(found.exception, ConfigError), (option, found.output)
    wrong = RUN.invoke(app, ["sweep", str(references), "-o", str(tmp_path / "report"), "--select", "best"])
    assert wrong.exit_code == 2
    assert "agreement" in wrong.stderr
    assert not (tmp_path / "report").exists()
