"""Mode `pretrain`: two processes equal one, a killed run resumes exactly, unreadable data is left out."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("accelerate", reason="training needs the extra `train`")
pytest.importorskip("transformers", reason="training needs the extra `train`")

from PIL import Image  # noqa: E402

from helpers.pretrain_run import IMAGES, config, train_once, write_pairs  # noqa: E402
from impart.blending.ram_checkpoint import open_checkpoint  # noqa: E402
from impart.encoders import load_encoder  # noqa: E402
from impart.errors import ConfigError, TrainingError  # noqa: E402
from impart.train.checkpoint import Checkpoints  # noqa: E402
from impart.train.events import Finished, Note, Resumed  # noqa: E402
from impart.train.runlog import read_log  # noqa: E402

TESTS = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_pairs(folder / "pairs")
    return folder


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """An undisturbed run with dropout, crops, random neighbours, chunks and two batches per step."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, list(train_once(data, out, export=True, **DISTURBED))


DISTURBED = {
    "pretrain__dropout": 0.1,
    "pretrain__chunk": 5,
    "loop__batch": 6,
    "loop__accumulate": 2,
    "reference__random": 0.3,
    "reference__base_weight": 0.5,
    "reference__refresh": 2,
}


def _losses(folder):
    return [line["loss"] for line in read_log(folder) if line["kind"] == "train"]


def _weights(folder):
    _, state = Checkpoints(folder / "checkpoints").newest()
    return state["modules"]["model"]


def _failures(folder):
    with (folder / "failures.csv").open(newline="") as file:
        return {row["path"]: row["reason"] for row in csv.DictReader(file)}


def _launch(data, runs, *options, machines=1):
    """Start the runs in two processes: under one launcher, or under two as on two machines."""
    script = [str(TESTS / "helpers" / "pretrain_run.py"), str(data), json.dumps(runs), *options]
    module = [sys.executable, "-m", "torch.distributed.run"]
    if machines == 1:
        launchers = [[*module, "--standalone", "--nproc-per-node", "2"]]
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            place = ["--master-addr", "127.0.0.1", "--master-port", str(free.getsockname()[1])]
        place += ["--nnodes", str(machines), "--nproc-per-node", "1"]
        launchers = [[*module, *place, "--node-rank", str(number)] for number in range(machines)]
    running = [
        subprocess.Popen([*launcher, *script], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
        for launcher in launchers
    ]
    for process in running:
        _, errors = process.communicate(timeout=500)
        assert process.returncode == 0, errors[-2000:]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_are_one_with_the_doubled_batch(data, tmp_path):
    kinds = {
        "ram": {"reference__random": 0.2, "reference__base_weight": 0.5},
        "online": {"reference__retrieval": "encoder", "reference__near_duplicate": 0.9999},
        "plain": {"reference__augment": "none", **({} if torch.cuda.is_available() else {"loop__device": "auto"})},
    }
    runs = {
        str(tmp_path / f"{name}-2"): {**kind, "loop__batch": 12, "pretrain__chunk": 5} for name, kind in kinds.items()
    }
    _launch(data, runs)
    for name, kind in kinds.items():
        list(train_once(data, tmp_path / name, **kind, loop__batch=24))
        expected, found = _losses(tmp_path / name), _losses(tmp_path / f"{name}-2")
        assert len(expected) == 8
        assert found == pytest.approx(expected, rel=1e-4), name
        assert expected[-1] < expected[0]
        for key, value in _weights(tmp_path / name).items():
            assert torch.allclose(value, _weights(tmp_path / f"{name}-2")[key], atol=2e-3), (name, key)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_machines_are_two_processes(data, tmp_path):
    changes = {"loop__steps": 4, "loop__validate_every": 2}
    _launch(data, {str(tmp_path / "two"): {**changes, "loop__batch": 6}}, machines=2)
    list(train_once(data, tmp_path / "one", **changes, loop__batch=12))
    assert _losses(tmp_path / "two") == pytest.approx(_losses(tmp_path / "one"), rel=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sharded_weights_give_the_same_run(data, tmp_path):
    """Two processes with half of the weights each against one with all: losses, checkpoints, resume, the result."""
    alone = {**DISTURBED, "pretrain__dropout": 0.0, "loop__batch": 12, "ram__gate": True, "optimiser__clip": 0.5}
    spread = {**alone, "loop__batch": 6, "pretrain__shard": True}
    one, two = tmp_path / "one", tmp_path / "two"
    list(train_once(data, one, export=True, **alone))
    _launch(data, {str(two): spread}, "--export")
    expected, losses = _weights(one), _losses(one)
    _same_run(two, expected, losses)
    for name, value in _written(one).items():
        assert torch.allclose(value, _written(two)[name], atol=2e-3), name
    Checkpoints(two / "checkpoints").path(8).unlink()
    _launch(data, {str(two): spread}, "--resume")
    assert Checkpoints(two / "checkpoints").steps() == [8, 6]
    _same_run(two, expected, losses)


def _same_run(folder, expected, losses):
    assert _losses(folder) == pytest.approx(losses, rel=1e-4)
    found = _weights(folder)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.allclose(value, found[name], atol=2e-3), name


def _written(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model" / "encoder" / "model.safetensors")


def test_killed_and_resumed_gives_the_same_weights(data, whole, tmp_path):
    out = tmp_path / "killed"
    script = [
        sys.executable,
        str(TESTS / "helpers" / "pretrain_run.py"),
        str(data),
        json.dumps({str(out): DISTURBED}),
        "--slow",
    ]
    slow = subprocess.Popen(script, env=ENVIRONMENT, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 200
    while not (out / "checkpoints" / "step-00000004.pt").is_file():
        assert slow.poll() is None, "the slow run ended before the kill"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    slow.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    assert slow.wait(60) != 0
    assert Checkpoints(out / "checkpoints").steps()[0] < 8
    events = list(train_once(data, out, resume=True, **DISTURBED))
    assert any(isinstance(event, Resumed) for event in events)
    assert _losses(out) == _losses(whole[0])
    expected, found = _weights(whole[0]), _weights(out)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


def test_the_result_opens_as_an_encoder_with_the_trained_embeddings(data, whole):
    out, events = whole
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.folder == out / "model"
    encoder = open_checkpoint(out / "model", device="cpu")
    assert encoder.traits.own_retrieval
    assert "paired:" in encoder.traits.id
    bare = load_encoder(f"hf:{out / 'model' / 'encoder'}", device="cpu")
    references = encoder.references
    images = [Image.open(data / "pairs" / path).convert("RGB") for path in references.table["path"].to_pylist()[:3]]
    assert np.allclose(bare.encode_images(images).embeddings, references.image_embeddings[:3], atol=2e-3)
    learned = _weights(out)["temperature.log_scale"].exp().item()
    assert bare.traits.logit_scale == pytest.approx(learned, rel=1e-5)
    assert abs(learned - 1 / 0.07) > 1e-3
    assert np.allclose(bare.encode_texts(references.texts[:3]), references.text_embeddings[:3], atol=2e-3)
    moved = encoder.encode_images(images).embeddings
    assert not np.allclose(moved, references.image_embeddings[:3], atol=2e-2)  # RAM adds something


def test_the_result_is_weights_to_start_from(data, whole, tmp_path):
    changes = {"pretrain__model": f"hf:{whole[0] / 'model' / 'encoder'}", "pretrain__dim": 0, "pretrain__image": {}}
    list(
        train_once(data, tmp_path / "tuned", **changes, pretrain__text={}, loop__steps=1, optimiser__learning_rate=1e-9)
    )
    before, after = _weights(whole[0]), _weights(tmp_path / "tuned")
    name = "towers.model.visual_projection.weight"
    assert torch.allclose(before[name], after[name], atol=1e-6)
    name = "temperature.log_scale"
    assert torch.allclose(before[name], after[name], atol=1e-6)


def test_checkpointing_and_bf16_change_little(data, tmp_path):
    runs = {"plain": {}, "saving": {"pretrain__checkpointing": True}, "bf16": {"loop__precision": "bf16"}}
    losses = {}
    for name, changes in runs.items():
        list(train_once(data, tmp_path / name, loop__steps=3, **changes))
        losses[name] = _losses(tmp_path / name)
    assert losses["saving"] == pytest.approx(losses["plain"], rel=1e-5)
    assert losses["bf16"] == pytest.approx(losses["plain"], rel=0.03)
    assert losses["bf16"] != losses["plain"]


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "online"])
def test_unreadable_images_and_empty_captions_are_left_out(data, tmp_path, frozen):
    pairs = write_pairs(tmp_path / "pairs")
    (pairs / "003.png").write_bytes((pairs / "003.png").read_bytes()[:60])
    (pairs / "005.png").unlink()
    lines = (pairs / "captions.csv").read_text().splitlines()
    lines[8] = "007.png,"
    (pairs / "captions.csv").write_text("\n".join(lines) + "\n")
    changes = {} if frozen else {"reference__retrieval": "encoder", "data__validation_images": 0, "loop__steps": 12}
    events = list(train_once(tmp_path, tmp_path / "out", export=True, **changes))
    failures = _failures(tmp_path / "out")
    assert events[-1].failed == len(failures) == 3
    assert set(failures) == {"003.png", "005.png", "007.png"}
    assert "missing" in failures["005.png"]
    assert "empty" in failures["007.png"]
    assert all(np.isfinite(_losses(tmp_path / "out")))


def test_pages_served_as_images_are_left_out_before_the_split(tmp_path):
    pairs = write_pairs(tmp_path / "pairs")
    for number in range(20):  # consecutive
        (pairs / f"{number:03}.png").write_bytes(b"<html>gone</html>")
    counts = {}
    for name, changes in {"plain": {"reference__augment": "none"}, "ram": {}}.items():
        events = list(train_once(tmp_path, tmp_path / name, loop__steps=2, **changes))
        counts[name] = next(e.message for e in events if isinstance(e, Note) and "to train on" in e.message)
    assert counts["plain"].split(",")[0] == counts["ram"].split(",")[0]
    assert "20 items failed" in counts["plain"]
    assert set(_failures(tmp_path / "plain")) == {f"{number:03}.png" for number in range(20)}


def _write_shards(pairs: Path, folder: Path, shards: int = 4) -> Path:
    folder.mkdir()
    captions = dict(line.split(",", 1) for line in (pairs / "captions.csv").read_text().splitlines()[1:])
    for shard in range(shards):
        with tarfile.open(folder / f"part-{shard}.tar", "w") as tar:
            for name in sorted(captions)[shard::shards]:
                tar.add(pairs / name, arcname=name)
                text = folder / "caption"
                text.write_text(captions[name])
                tar.add(text, arcname=name.replace(".png", ".txt"))
                text.unlink()
    return folder


def test_shards_are_streamed_without_damaged_parts_and_resumed(data, tmp_path):
    pytest.importorskip("webdataset", reason="training needs the extra `train`")
    shards = _write_shards(data / "pairs", tmp_path / "shards")
    damaged = shards / "part-1.tar"
    damaged.write_bytes(damaged.read_bytes()[:20_000])
    (shards / "part-9.tar").write_bytes(b"not a tar at all" * 100)
    changes = {
        "data__pairs": [{"path": "shards"}],
        "pretrain__stream": True,
        "pretrain__shuffle": 16,
        "pretrain__workers": 2,
    }
    list(train_once(tmp_path, tmp_path / "whole", **changes))
    failures = _failures(tmp_path / "whole")
    assert {Path(path).name for path in failures} >= {"part-1.tar", "part-9.tar"}
    for event in train_once(tmp_path, tmp_path / "cut", **changes):
        if getattr(event, "step", 0) == 5:
            break
    events = list(train_once(tmp_path, tmp_path / "cut", resume=True, **changes))
    assert any(isinstance(event, Resumed) and event.step == 4 for event in events)
    assert _losses(tmp_path / "cut") == _losses(tmp_path / "whole")
    for name, value in _weights(tmp_path / "whole").items():
        assert torch.equal(value, _weights(tmp_path / "cut")[name]), name
    with pytest.raises(TrainingError, match="is in no shard"):
        list(train_once(data, tmp_path / "no", pretrain__stream=True))


def test_plain_clip_and_ram_train_on_the_same_images(data, tmp_path):
    texts = {}
    for name, augment in (("ram", "ram"), ("none", "none")):
        events = list(train_once(data, tmp_path / name, reference__augment=augment, loop__steps=1))
        texts[name] = next(event.message for event in events if "to train on" in getattr(event, "message", ""))
    assert texts["ram"] == texts["none"]
    assert f"{IMAGES - 6 - 13} images to train on, 13 references, 6 for validation" in texts["ram"]


def test_invalid_settings_are_refused(data, tmp_path):
    with pytest.raises(ConfigError, match="heads"):
        list(train_once(data, tmp_path / "a", reference__gradient=True))
    with pytest.raises(ConfigError, match=r"pretrain\.model is 'huge'"):
        list(train_once(data, tmp_path / "b", pretrain__model="huge"))
    with pytest.raises(ConfigError, match="shape towers from scratch"):
        config(pretrain__model="hf:somewhere")
