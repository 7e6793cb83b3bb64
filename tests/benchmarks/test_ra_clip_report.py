"""The report of the RA-CLIP experiment says what the figures say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

SETS = ("cifar10", "cifar100", "caltech101", "tiny_imagenet32")
RECALLS = [f"{name}_r{at}" for name in ("flickr8k", "panda") for at in (1, 5, 10)]
PAGE = "words <!-- zeroshot -->old<!-- /zeroshot --> more words\n<!-- k -->\n<!-- /k -->\n"


@pytest.fixture(scope="module")
def report() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "ra_clip_report.py"
    spec = importlib.util.spec_from_file_location("ra_clip_report", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _line(variant: str, seed: int, form: str, zeroshot: float, **more: object) -> dict[str, object]:
    figures = dict.fromkeys([*SETS, "zeroshot"], zeroshot) | dict.fromkeys(RECALLS, 20.0)
    line = {"run": f"{variant}-s{seed}", "variant": variant, "seed": seed, "change": "", "form": form}
    return line | {"question": "main", "value": None, "figures": figures} | more


def _done(variant: str, seed: int) -> dict[str, object]:
    facts = {"trained": 100, "steps": 2, "references": 10, "copies": 1}
    line = {"run": f"{variant}-s{seed}", "variant": variant, "seed": seed, "change": ""}
    return line | {"question": "done", "train_s": 1.0, "facts": facts}


@pytest.fixture
def lines() -> list[dict[str, object]]:
    return [
        _line("clip", 0, "base", 40.0),
        _line("clip", 1, "base", 44.0),
        _done("clip", 0),
        _done("clip", 1),
        _line("normalised", 0, "base", 41.5),
        _line("normalised", 0, "ram", 41.0),
        _line("normalised", 1, "ram", 46.0),
        _line("normalised", 0, "ram", 39.0, question="k", value=4),
        _done("normalised", 0),
        _done("normalised", 1),
        _line("gated", 0, "ram", 99.0),  # was stopped: no line "done"
    ]


@pytest.fixture
def out(tmp_path: Path, lines: list[dict[str, object]]) -> Path:
    (tmp_path / "figures.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for run in ("clip-s0", "normalised-s0"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "log.jsonl").write_text('{"step": 2, "kind": "validation", "t2i_r1": 30.0}\n')
    return tmp_path


def test_the_gain_is_over_clip_of_the_same_seed(report: ModuleType, out: Path) -> None:
    zeroshot, _ = report.main_tables(report.read_figures(out))
    clip, normalised, _ = zeroshot[2:]
    assert clip.split(" | ")[1] == "2"
    assert "42.0 ± 2.8" in clip
    assert normalised.endswith("| +1.5 |")  # (41 - 40 + 46 - 44) / 2


def test_a_run_that_was_stopped_does_not_count(report: ModuleType, out: Path) -> None:
    assert "99.0" not in "\n".join(report.main_tables(report.read_figures(out))[0])


def test_a_run_measured_twice_counts_once_with_its_last_figures(
    report: ModuleType, out: Path, lines: list[dict[str, object]]
) -> None:
    again = [_line("clip", 0, "base", 50.0), _done("clip", 0)]
    with (out / "figures.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in again)
    zeroshot, _ = report.main_tables(report.read_figures(out))
    assert "47.0 ± 4.2" in zeroshot[2]


def test_tables_go_between_their_markers_and_the_words_stay(report: ModuleType, out: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "ra-clip.md").write_text(PAGE)
    report.write_report(out, docs)
    report.write_report(out, docs)  # a second time changes nothing
    page = (docs / "ra-clip.md").read_text()
    assert page.startswith("words <!-- zeroshot -->")
    assert "old" not in page
    assert page.count("| RA-CLIP, normalised | 2 |") == 1
    assert "| 4 | 39.0 |" in page
    assert (docs / "ra-clip" / "k.png").stat().st_size > 1000
