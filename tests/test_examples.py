"""Each example runs on small generated data and prints what its docstring promises."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.clips import write_clip
from helpers.image_sets import class_folders, image
from helpers.shades import shades
from helpers.tiny_server import served, use_tiny_models, write_library
from impart.serve.app import create_app
from impart.serve.settings import ServeSettings

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
MOST_LINES = 40


def run(name: str, *arguments: str | Path) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_search_my_videos(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    write_clip(tmp_path / "films" / "red.mp4")
    (tmp_path / "films" / "broken.mp4").write_bytes(b"no video")
    lines = run("search_my_videos.py", tmp_path / "films", "a red square").splitlines()
    assert any(line.startswith("indexed red.mp4: 1.0 s") for line in lines)
    assert any(line.startswith("failed  broken.mp4: ") for line in lines)
    assert lines[-1].startswith("1. ")
    assert lines[-1].endswith("00:00:00.000  red.mp4")
    assert (tmp_path / "films.impart" / "manifest.json").is_file()


def test_search_over_http(tmp_path: Path) -> None:
    use_tiny_models()
    with served(create_app(ServeSettings(index=write_library(tmp_path)))) as address:
        lines = run("search_over_http.py", address, "blue").splitlines()
    assert lines[0] == "4 videos and photos are served"
    assert lines[1].startswith("1. ")
    assert lines[1].endswith("00:00:04.000  a.mp4")
    assert "a.mp4 has 4 scenes; the hit is 2.0 s long" in lines
    assert any(line.startswith("like it: ") for line in lines)


def test_teach_a_name(tmp_path: Path) -> None:
    folders = class_folders(tmp_path / "things", ("red", "blue", "green"), each=3)
    (folders / "red").rename(folders / "zorblat")  # a name that the model cannot have learned
    plain, augmented = run("teach_a_name.py", folders, image(tmp_path / "photo.png", "red")).splitlines()
    assert plain.startswith("plain")
    assert augmented.startswith("augmented zorblat ")
    assert (tmp_path / "things.refset" / "manifest.json").is_file()


def test_train_a_ram(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    pytest.importorskip("onnxscript")
    small = ("loop.epochs=1", "loop.batch=16", "data.validation_images=8", "ram.k=2", "log.tensorboard=false")
    output = run("train_a_ram.py", shades(tmp_path / "pairs", each=4), tmp_path / "run", *small)
    assert "step " in output
    assert output.splitlines()[-1] == "trained: mini+references, D = 384, 4 references"


def test_compare_two_models(tmp_path: Path) -> None:
    test = class_folders(tmp_path / "test", ("red", "blue"), each=3)
    references = class_folders(tmp_path / "references", ("red", "blue"), each=2)
    lines = run("compare_two_models.py", test, references).splitlines()
    assert [line.split()[0] for line in lines] == ["mini", "mini+vanilla", "difference"]
    assert all(line.endswith("images 6") for line in lines[:2])


def test_own_encoder(tmp_path: Path) -> None:
    assert "'top-1': 1.0" in run("own_encoder.py", class_folders(tmp_path, ("red", "green", "blue")))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short_and_tested(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) < MOST_LINES
    assert f"python examples/{path.name}" in (ast.get_docstring(ast.parse(text)) or "")
    assert f"def test_{path.stem}(" in Path(__file__).read_text("utf-8")
    assert f"`{path.name}`" in (EXAMPLES / "README.md").read_text("utf-8")
