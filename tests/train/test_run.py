"""Start of a run: the extra is checked first, and a run that never trained leaves nothing behind."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap

import pytest

from helpers.shades import register_tiny, shades
from impart.errors import EncoderNotFoundError, TrainingError
from impart.train.config_file import bundled_configs, load_config
from impart.train.events import Preparing, StepDone, Validated
from impart.train.run import train

QUICK = ["data.encoder=tiny", "data.batch=16", "loop.steps=4", "loop.batch=16", "ram.heads=2", "ram.k=3"]


@pytest.fixture
def data(tmp_path):
    register_tiny()
    return shades(tmp_path / "data")


def _config(data, *more):
    return load_config(
        "ram_mini", sets=[f'data.pairs=[{{path = "{data}/captions.csv"}}]', "data.validation=[]", *QUICK, *more]
    )


WITHOUT = """
import json, sys
from typer.testing import CliRunner

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Block())
from impart.cli.main import app
for config in sys.argv[3:]:
    result = CliRunner().invoke(app, ["train", config, "--pairs", sys.argv[2], "--out", "runs/new"])
    print(json.dumps([type(result.exception).__name__, str(result.exception)]))
"""


@pytest.mark.parametrize("missing", ["torch,accelerate,onnx,onnxscript,safetensors", "onnxscript"])
def test_without_the_extra_every_mode_says_so_and_writes_nothing(data, tmp_path, missing):
    command = [sys.executable, "-c", textwrap.dedent(WITHOUT), missing, str(data), *bundled_configs()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(bundled_configs())
    for kind, message in answers:
        assert kind == "MissingExtraError", message
        assert missing.split(",")[0] in message
        assert "pip install" in message
        assert "train]" in message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "change", ["data.encoder=nothing", 'data.pairs=[{path = "nothere.csv"}]', "reference.fraction=0.001"]
)
def test_a_run_that_never_started_leaves_nothing_behind(data, tmp_path, change):
    with pytest.raises((TrainingError, EncoderNotFoundError)):
        list(
            train(
                _config(data, 'data.cache="' + str(tmp_path / "kept") + '"', change),
                data=data,
                out=tmp_path / "runs" / "new",
            )
        )
    assert not (tmp_path / "runs").exists()


def test_what_was_in_the_folder_stays(data, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError):
        list(train(_config(data, 'data.pairs=[{path = "nothere.csv"}]'), data=data, out=out))
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


def test_embeddings_of_a_run_that_never_trained_serve_the_next(data, tmp_path):
    out = tmp_path / "run"
    for event in train(_config(data), data=data, out=out):
        if isinstance(event, Preparing) and event.done >= 32:
            break
    assert not (out / "config.json").exists()
    events = train(_config(data), data=data, out=out)  # no --resume: there is no run yet
    assert next(event for event in events if isinstance(event, Preparing)).done > 32
    assert next(event for event in events if isinstance(event, StepDone)).step == 1


def test_a_run_that_trained_is_kept(data, tmp_path):
    out = tmp_path / "run"
    for event in train(_config(data), data=data, out=out):
        if isinstance(event, StepDone):
            break
    with pytest.raises(TrainingError, match="--resume"):
        list(train(_config(data), data=data, out=out))


@pytest.mark.parametrize(
    ("metrics", "verdict"),
    [
        (
            {"t2i_r1": 36.3, "base_t2i_r1": 37.9},
            "on 9 images: 36.3 on average, 37.9 without augmentation: nothing gained",
        ),
        (
            {"t2i_r1": 37.9, "base_t2i_r1": 37.9},
            "on 9 images: 37.9 on average, 37.9 without augmentation: nothing gained",
        ),
        (
            {"real_1_ram": 40.0, "real_1_start": 50.0, "real_1_base": 30.0},
            "40.0 on average, 30.0 without .*: 10.0 gained",
        ),
        ({"t2i_r1": 36.3}, "^$"),
        ({}, "^$"),
    ],
)
def test_a_gain_is_told_with_the_number_of_items(metrics, verdict):
    assert re.search(verdict, Validated(step=1, metrics=metrics, items="9 images").verdict)
