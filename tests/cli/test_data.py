"""`impart data yfcc`: exit codes, output, and shards that other commands read."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from helpers.photo_server import image
from helpers.tiny_encoder import TinyEncoder
from impart.cli import refset
from impart.cli.data import app
from impart.cli.main import main
from impart.data import fetch as fetching
from impart.data.fetch import Fetched, FetchSettings
from impart.encoders.base import register
from impart.train.prepare.pairs import Failures, list_images
from impart.train.settings import PairsFrom

RUN = CliRunner()


@pytest.fixture(autouse=True)
def _directly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make images in place of fetching them; `missing` ones fail. With img2dataset: tests/data/test_yfcc.py."""
    monkeypatch.setattr(fetching, "require_img2dataset", lambda: None)

    def fetch(urls: list[str], folder: Path, settings: FetchSettings) -> Iterator[int]:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "urls.json").write_text(json.dumps(urls))
        yield len(urls)

    def read_fetched(folder: Path, *, count: int) -> Iterator[Fetched]:
        for number, url in enumerate(json.loads((folder / "urls.json").read_text())):
            missing = "missing" in url
            yield Fetched(number=number, data=None if missing else image(number), fault="HTTP 404" if missing else "")

    monkeypatch.setattr(fetching, "fetch", fetch)
    monkeypatch.setattr(fetching, "read_fetched", read_fetched)


def table(path: Path, *, missing: int = 0) -> Path:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["photoid", "title", "description", "downloadurl", "licensename"])
        for i in range(40):
            rows.writerow(
                [i, f"photo {i}", "by the sea", f"http://x/{'missing' if i < missing else 'ok'}/{i}", "CC BY"]
            )
    return path


def test_other_commands_read_the_shards(tmp_path: Path) -> None:
    register("tiny", lambda rest, **options: TinyEncoder(int(rest or 0)))
    out = tmp_path / "out"
    made = RUN.invoke(app, ["yfcc", str(table(tmp_path / "a.csv")), "--out", str(out), "--reference", "0.3"])
    assert made.exit_code == 0, made.output
    counts = json.loads((out / "manifest.json").read_text())["counts"]
    assert counts["train"] + counts["reference"] == 40
    assert f"{out / 'train'}: {counts['train']} pairs in 1 shards" in made.stdout
    assert "licences: CC BY 40" in made.stdout
    assert "a.csv: 40 rows; part 40/40" in made.stderr
    listed = list_images([PairsFrom(path="out/train")], tmp_path, Failures())
    assert len(listed) == counts["train"]
    assert {image.pair.licence for image in listed} == {"CC BY"}
    built = RUN.invoke(
        refset.app, ["build", str(out / "reference"), "-o", str(tmp_path / "set"), "-e", "tiny", "--no-tune"]
    )
    assert built.exit_code == 0, built.output
    assert f"{counts['reference']} pairs" in built.output


def test_failed_images_give_exit_code_3_and_a_list(tmp_path: Path) -> None:
    made = RUN.invoke(app, ["yfcc", str(table(tmp_path / "a.csv", missing=4)), "--out", str(tmp_path / "out")])
    assert made.exit_code == 3, made.output
    assert "failed: 4, listed in" in made.stderr
    assert "4  HTTP 404" in made.stderr
    lines = (tmp_path / "out" / "failures.csv").read_text().splitlines()
    assert lines[:2] == ["photoid,url,outcome,reason", "0,http://x/missing/0,failed,HTTP 404"]


def test_errors_are_one_line_with_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b.csv").write_text("file,caption\na.jpg,a dog\n")
    monkeypatch.setattr(sys, "argv", ["impart", "data", "yfcc", str(tmp_path / "b.csv"), "--out", str(tmp_path / "o")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "has the columns file, caption; it lacks photoid, downloadurl, title or description" in error
    assert error.count("\n") == 1
