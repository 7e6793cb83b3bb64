"""Loop: learning-rate schedule, decay groups, exact resume after a kill, numbers that are not finite."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("accelerate", reason="training needs the extra `train`")

from helpers.generators import drain  # noqa: E402
from helpers.toy_task import ToyTask  # noqa: E402
from impart.errors import TrainingError  # noqa: E402
from impart.train.checkpoint import Checkpoints  # noqa: E402
from impart.train.events import Finished, Resumed, Saved, StepDone, Validated  # noqa: E402
from impart.train.loop import fit  # noqa: E402
from impart.train.optim import learning_rate, parameter_groups  # noqa: E402
from impart.train.runlog import read_log  # noqa: E402
from impart.train.settings import LogSettings, LoopSettings, OptimiserSettings, TrainConfig  # noqa: E402
from impart.train.task import Average, Temperature, recall  # noqa: E402

TESTS = Path(__file__).resolve().parent.parent


def _config(**loop):
    defaults = {"steps": 24, "batch": 8, "checkpoint_every": 4, "validate_every": 8, "device": "cpu"}
    return TrainConfig(
        seed=5,
        optimiser=OptimiserSettings(learning_rate=3e-2),
        loop=LoopSettings(**{**defaults, **loop}),
        log=LogSettings(every=3, tensorboard=False),
    )


def _weights(task):
    return {f"{part}.{k}": v.clone() for part, module in task.modules().items() for k, v in module.state_dict().items()}


def _figures(folder):
    return [{k: v for k, v in line.items() if k != "pairs_per_s"} for line in read_log(folder)]


def test_it_learns_reports_and_keeps_checkpoints(tmp_path):
    task = ToyTask()
    events, finished = drain(fit(task, _config(steps=60), out=tmp_path))
    steps = [event for event in events if isinstance(event, StepDone)]
    assert [event.step for event in steps] == list(range(1, 61))
    assert steps[-1].eta_s == 0
    assert finished == Finished(step=60, seconds=finished.seconds)
    losses = [line["loss"] for line in read_log(tmp_path) if line["kind"] == "train"]
    assert losses[-1] < 0.5 * losses[0]
    assert [event.step for event in events if isinstance(event, Validated)] == [8, 16, 24, 32, 40, 48, 56, 60]
    assert [event.step for event in events if isinstance(event, Saved)][-1] == 60
    assert Checkpoints(tmp_path / "checkpoints").steps() == [60, 56]  # keep = 2
    assert task.temperature.log_scale.item() == pytest.approx(task.highest)  # clamped at the maximum


def test_the_seed_determines_the_result():
    runs = []
    for seed in (1, 1, 2):
        task = ToyTask()
        config = TrainConfig(seed=seed, loop=LoopSettings(steps=5, device="cpu"))
        list(fit(task, config))
        runs.append(_weights(task)["net.0.weight"])
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_stopping_and_resuming_changes_nothing(tmp_path):
    whole = ToyTask()
    list(fit(whole, _config(), out=tmp_path / "whole"))
    for event in fit(ToyTask(), _config(), out=tmp_path / "cut"):
        if isinstance(event, StepDone) and event.step == 15:
            break  # after the checkpoint of step 12, in the middle of an epoch and of a line of the log
    resumed = ToyTask()
    events = list(fit(resumed, _config(), out=tmp_path / "cut", resume=True))
    assert events[0] == Resumed(step=12, steps=24)
    assert _weights(whole).keys() == _weights(resumed).keys()
    for name, value in _weights(whole).items():
        assert torch.equal(value, _weights(resumed)[name]), name
    assert _figures(tmp_path / "whole") == _figures(tmp_path / "cut")
    assert whole.average.state().keys() == resumed.average.state().keys()
    for name, value in whole.average.state().items():
        assert torch.equal(value, resumed.average.state()[name]), name


def test_killed_and_resumed_gives_the_same_weights(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}

    def start(folder, *options):
        command = [sys.executable, str(TESTS / "helpers" / "toy_task.py"), str(tmp_path / folder), *options]
        return subprocess.Popen(command, env=environment)

    assert start("whole").wait(120) == 0
    slow = start("killed", "--slow")
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "checkpoints" / "step-00000012.pt").is_file():
        assert slow.poll() is None, "the slow run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    slow.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    assert slow.wait(60) != 0
    assert not (tmp_path / "killed" / "weights.pt").exists()
    assert start("killed", "--resume").wait(120) == 0
    expected = torch.load(tmp_path / "whole" / "weights.pt", weights_only=True)
    found = torch.load(tmp_path / "killed" / "weights.pt", weights_only=True)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name
    assert _figures(tmp_path / "whole") == _figures(tmp_path / "killed")


def test_not_a_number_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    with pytest.raises(TrainingError, match=r"loss became nan in step 11 of 24.*step-00000008.pt.*learning_rate"):
        list(fit(ToyTask(poison=10), _config(), out=tmp_path))
    step, state = Checkpoints(tmp_path / "checkpoints").newest()
    assert step == 8
    assert all(torch.isfinite(value).all() for value in state["modules"]["net"].values())
    with pytest.raises(TrainingError, match="there is no checkpoint yet"):
        list(fit(ToyTask(poison=1), _config()))


def test_a_damaged_checkpoint_is_skipped_for_the_one_before(tmp_path):
    list(fit(ToyTask(), _config(), out=tmp_path))
    path = Checkpoints(tmp_path / "checkpoints").path(24)
    path.write_bytes(path.read_bytes()[:200])
    events = list(fit(ToyTask(), _config(), out=tmp_path, resume=True))
    assert events[0] == Resumed(step=20, steps=24)
    for kept in (tmp_path / "checkpoints").iterdir():
        kept.write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="can be read"):
        list(fit(ToyTask(), _config(), out=tmp_path, resume=True))


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    list(fit(ToyTask(), _config(), out=tmp_path))
    with pytest.raises(TrainingError, match="another model"):
        list(fit(ToyTask(hidden=5), _config(), out=tmp_path, resume=True))


def test_accumulated_batches_give_the_gradient_of_their_mean():
    results = []
    for batch, accumulate in ((16, 1), (8, 2)):
        task = ToyTask(batch=batch, accumulate=accumulate, dropout=0.0)
        list(fit(task, _config(steps=6, batch=batch, accumulate=accumulate)))
        results.append(_weights(task)["net.0.weight"])
    assert torch.allclose(results[0], results[1], atol=1e-5)


def test_bf16_runs_beside_float32_in_one_process():
    for precision, dtype in (("bf16", torch.bfloat16), ("float32", torch.float32)):
        task = ToyTask()
        list(fit(task, _config(steps=2, precision=precision)))
        assert task.seen_dtype == dtype
        assert all(value.dtype == torch.float32 for value in _weights(task).values())


def test_biases_norms_gates_and_temperature_do_not_decay():
    class Gated(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.linear = torch.nn.LayerNorm(4), torch.nn.Linear(4, 4)
            self.gate = torch.nn.Parameter(torch.zeros(1, 4))
            self.log_sharpness = torch.nn.Parameter(torch.zeros(2, 4))

    modules = {"ram": Gated(), "temperature": Temperature(10.0, 100.0)}
    groups = parameter_groups(modules, OptimiserSettings(weight_decay=0.1, rates={"ram": 0.5}, learning_rate=1e-2))
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    names = {id(p): n for module in modules.values() for n, p in module.named_parameters()}
    assert {names[key] for key, decay in decays.items() if decay} == {"linear.weight"}
    assert len(decays) == 7
    assert {group["name"]: group["peak"] for group in groups}["ram"] == pytest.approx(5e-3)


def test_learning_rate_rises_then_falls_on_a_cosine():
    options = OptimiserSettings(warmup=0.1, final=0.05)
    rates = [learning_rate(step, 100, options) for step in range(100)]
    assert rates[:10] == pytest.approx([(n + 1) / 10 for n in range(10)])
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[55] == pytest.approx(0.05 + 0.95 * 0.5)
    assert rates[99] == pytest.approx(0.05, abs=1e-3)


def test_average_follows_the_weights_and_swaps_back():
    module = torch.nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(0.0)
    average = Average({"m": module}, decay=0.5)
    module.weight.data.fill_(1.0)
    average.update(step=100)
    average.swap()
    assert module.weight.item() == pytest.approx(0.5)
    average.swap()
    assert module.weight.item() == 1.0


def test_recall_against_a_naive_loop():
    torch.manual_seed(0)
    scores, owners = torch.randn(40, 20), torch.arange(20).repeat_interleave(2)
    found = recall(scores, owners)
    t2i = [
        sorted(range(20), key=lambda n: -row[n]).index(owner)
        for row, owner in zip(scores.tolist(), owners, strict=True)
    ]
    i2t = []
    for image in range(20):
        order = sorted(range(40), key=lambda n: -scores[n, image])
        i2t.append(min(order.index(2 * image), order.index(2 * image + 1)))
    for k in (1, 5, 10):
        assert found[f"t2i_r{k}"] == pytest.approx(100 * sum(rank < k for rank in t2i) / 40, abs=1e-3)
        assert found[f"i2t_r{k}"] == pytest.approx(100 * sum(rank < k for rank in i2t) / 20, abs=1e-3)


def test_log_lines_are_json_and_an_incomplete_line_is_left_out(tmp_path):
    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 1, "kind": "train", "loss": 2.0}) + '\n{"step": 2, "ki')
    assert [line["step"] for line in read_log(tmp_path)] == [1]


def test_tensorboard_has_the_figures_of_the_log(tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra `train`")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = dataclasses.replace(_config(steps=12), log=LogSettings(every=3))
    for event in fit(ToyTask(), config, out=tmp_path):
        if isinstance(event, StepDone) and event.step == 7:
            break
    list(fit(ToyTask(), config, out=tmp_path, resume=True))  # continues from step 4; what was written later is dropped
    shown = EventAccumulator(str(tmp_path / "tensorboard"))
    shown.Reload()
    for kind in ("train", "validation"):
        lines = [line for line in read_log(tmp_path) if line["kind"] == kind]
        assert lines
        for name in lines[0].keys() - {"step", "kind"}:
            found = [(scalar.step, scalar.value) for scalar in shown.Scalars(f"{kind}/{name}")]
            assert found == [(line["step"], pytest.approx(line[name], rel=1e-5)) for line in lines], name
