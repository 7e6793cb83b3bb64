"""Train RA-CLIP and CLIP from scratch, with controls that say where a gain comes from, and measure them.

    python benchmarks/ra_clip_scratch.py run --data ../shared/data --out runs/scratch [--only NAME] [--minutes M]
    python benchmarks/ra_clip_scratch.py report runs/scratch --docs docs
    python benchmarks/ra_clip_scratch.py gpu --data ../shared/data --out runs/scratch-gpu [--size-px 96]

`run` trains and measures the runs of `plan` in order of worth, and appends every figure to OUT/figures.jsonl. A second
call resumes with the missing runs; started twice at the same time, the two share the plan. `report` makes the tables
and plots of docs/ra-clip.md from this file, at any time. `gpu` trains a ViT-S instead, at 64 to 128 px.

Every run is mode `pretrain` of `impart train` with its config `ra_clip_scratch` and the settings of its arm
(`ra_clip_scratch_plan.ARMS`). This script adds controls, which put a head on the retriever's features in the place of
the image tower, weaker retrievers, and the measurements. Only the retriever is pretrained, as in the paper: `mini`,
which has seen ImageNet's labels, or patches and k-means, which has seen no label.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from impart.blending.ram import build_ram
from impart.train.events import StepDone, result_of
from impart.train.loop import fit
from impart.train.pretrain.model import Bank
from impart.train.pretrain.prepare import decode_once
from impart.train.pretrain.task import PretrainTask
from ra_clip import CLASS_SETS, PAPER_VANILLA, VANILLA
from ra_clip_scratch_lab import Lab, Trial, say
from ra_clip_scratch_measure import Measured, Right, bank_of, rows_of_bank
from ra_clip_scratch_model import ControlTask, build
from ra_clip_scratch_pack import pack
from ra_clip_scratch_plan import ARMS, KS, PART, SIZES, Run, plan
from ra_clip_scratch_report import write_report
from ra_clip_scratch_tests import TestSet
from train_speed import PEAK_TFLOPS


class Experiment:
    """Trains and measures runs, and writes OUT/figures.jsonl."""

    def __init__(self, lab: Lab):
        self.lab, self.out = lab, lab.out

    def write(self, **line: Any) -> None:
        """Append a line with one system call, so that two processes may write."""
        content = (json.dumps(line) + "\n").encode()
        place = os.open(self.out / "figures.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(place, content)
        finally:
            os.close(place)

    def done(self) -> set[str]:
        """Return the names of the complete runs."""
        file = self.out / "figures.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        return {line["run"] for line in map(json.loads, lines) if line["question"] == "done"}

    def claim(self, run: Run) -> bool:
        """Reserve a run for this process; a claim of a process that has ended is taken over."""
        file = self.out / "claims" / run.name
        file.parent.mkdir(exist_ok=True)
        try:
            with file.open("x", encoding="utf-8") as claimed:
                claimed.write(str(os.getpid()))
            return True
        except FileExistsError:
            owner = file.read_text(encoding="utf-8")
        if owner and owner != str(os.getpid()) and Path(f"/proc/{owner}").exists():
            return False
        file.write_text(str(os.getpid()), encoding="utf-8")
        return True

    def go(self, run: Run) -> None:
        """Train a run with mode `pretrain` and measure it."""
        self.write(**_about(run), question="start")
        lab, task = self.lab, prepared(self.lab, run)
        config = task.config
        wall_s = cpu_s = 0.0
        events = fit(task, config)
        while True:
            began, cpu = time.monotonic(), time.process_time()
            event = next(events, None)
            if event is None:
                break
            if not isinstance(event, StepDone):
                continue
            wall_s, cpu_s = wall_s + time.monotonic() - began, cpu_s + time.process_time() - cpu
            if config.loop.device == "cpu" and (event.step % lab.trial.every == 0 or event.step == event.steps):
                self._point(run, task, event, wall_s, cpu_s)
        task = settled(task)
        self.measure(run, task)
        steps = config.loop.total_steps(task.steps_per_epoch)
        facts = {
            "pairs_per_s": round(task.pairs_per_step * steps / wall_s, 1),
            "gflop": round(flop_per_image(task) / 1e9, 4),
            "trained": len(task.data.train),
            "references": len(task.data.references),
            "steps": steps,
            "parameters": sum(p.numel() for p in task.model.parameters() if p.requires_grad),
        }
        self.write(**_about(run), question="done", wall_s=wall_s, cpu_s=cpu_s, facts=facts)

    def measured(self, run: Run, task: PretrainTask, tests: Mapping[str, TestSet], *, bf16: bool = False) -> Measured:
        """Make the measurement of a run's model on some tests; in float32, as the exported encoder computes."""
        arm = ARMS[run.arm]
        retriever = arm.features if task.config.reference.retrieval == "backbone" else ""
        return Measured(task.model, tests, inputs=self.lab.inputs(arm), retriever=retriever, bf16=bf16)

    def _point(self, run: Run, task: PretrainTask, event: StepDone, wall_s: float, cpu_s: float) -> None:
        """Write one point of the learning curve: part of the zero-shot tests, and text to image of the validation."""
        few = {name: first_rows(self.lab.tests[name], PART) for name in CLASS_SETS}
        few["flickr8k"] = self.lab.tests["flickr8k"]
        measured = self.measured(run, task, few, bf16=task.config.loop.precision == "bf16")
        bank, shuffle = task.model.bank, task.config.reference.random > 0
        k = task.config.ram.k
        figures, _ = measured.zeroshot(bank, k=k, shuffle=shuffle)
        figures |= measured.recalls("flickr8k", bank, k=k, shuffle=shuffle)[0]
        task.model.bank = bank
        task.model.train()
        figures |= {"loss": event.loss, "wall_s": wall_s, "cpu_s": cpu_s}
        self.write(**_about(run), question="curve", value=event.step, figures=figures)
        say(
            f"{run.name} {event.step}/{event.steps} loss {event.loss:.2f} {event.pairs_per_s:.0f}/s "
            f"zero-shot {figures['zeroshot']:.1f} R@5 {figures['flickr8k_r5']:.1f}"
        )

    def measure(self, run: Run, task: PretrainTask) -> None:
        """Measure a trained run: base, with its references, and what changes at test time."""
        lab, config = self.lab, task.config
        measured, note, probes = self.measured(run, task, lab.tests), self._noter(run), not run.change
        if task.model.ram is None:
            note("main", None, *measured.everything(None, probes=probes))
            if run.arm == "clip" and not run.change:
                self._vanilla(run, task, measured)
            return
        if config.pretrain.model != "constant" and not run.seed:
            note("base", None, *measured.everything(None, probes=False))
        bank, k, shuffle = self._without_copies(task), config.ram.k, config.reference.random > 0
        note("main", len(bank.retrieval), *measured.everything(bank, k=k, shuffle=shuffle, probes=probes))
        if run.seed or run.change or shuffle:
            return
        note("shuffled", None, *measured.zeroshot(bank, k=k, shuffle=True))
        mixed = np.random.default_rng(run.seed).permutation(len(bank.retrieval))
        for size in SIZES:
            part = rows_of_bank(bank, mixed[: max(k, round(size * len(mixed)))])
            note("size", size, *measured.zeroshot(part, k=k))
        for tried in KS:
            note("k", tried, *measured.zeroshot(bank, k=tried))
        for name in lab.fitting:
            note("target", name, *measured.zeroshot(self._target(run, task, measured, name), k=k))

    def _without_copies(self, task: PretrainTask) -> Bank:
        """Return the bank without references that are copies of a test image."""
        bank = task.model.bank
        assert bank is not None
        if self.lab.trial.most:  # the tests are incomplete
            return bank
        places = [item.pair.image_key for item in task.data.references.items]
        return rows_of_bank(bank, np.flatnonzero(~self.lab.copies(places)))

    def _target(self, run: Run, task: PretrainTask, measured: Measured, name: str) -> Bank:
        """Embed the references of a test's own domain."""
        rows, texts = self.lab.fitting[name]
        train = self.lab.tests[f"{name}/train"]
        retrieval = measured.q(f"{name}/train")[rows]
        if task.model.references is not None:
            return bank_of(train.retrieval[ARMS[run.arm].features][rows], task.towers.tokens(texts), retrieval)
        return bank_of(measured.v(f"{name}/train")[rows], measured.texts(texts), retrieval)

    def _vanilla(self, run: Run, task: PretrainTask, measured: Measured) -> None:
        """Measure Vanilla over the trained CLIP, with its references by `mini`."""
        references = task.data.references
        made = task.embed(references.items, exact=True)
        retrieval = torch.from_numpy(references.queries(np.arange(len(references))))
        task.model.bank = bank_of(made.image, made.text, retrieval)
        bank = self._without_copies(task)
        for form, settings in (("vanilla", VANILLA), ("vanilla-paper", PAPER_VANILLA)):
            ram = build_ram(settings, dim=task.towers.dim, retrieval_dim=retrieval.shape[1])
            task.model.ram = ram.eval()
            self._noter(run)(form, None, *measured.everything(bank, probes=False))
        task.model.ram = None

    def _noter(self, run: Run) -> Callable[[str, object, Mapping[str, float], Mapping[str, Right]], None]:
        """Return a function that writes a line of this run: question, value, figures, right or wrong per item."""

        def note(question: str, value: object, figures: Mapping[str, float], right: Mapping[str, Right]) -> None:
            packed = {name: pack(values) for name, values in right.items()}
            self.write(**_about(run), question=question, value=value, figures=figures, right=packed)

        return note


def prepared(lab: Lab, run: Run) -> ControlTask:
    """Prepare a run as mode `pretrain` does: data, towers, decoded images, task."""
    arm, config = ARMS[run.arm], lab.config(run)
    data = lab.data_of(run, config)
    towers = build(config, data, control=arm.control, folder=lab.data)
    data = result_of(decode_once(data, config, towers.preprocess, out=lab.out / run.name))
    return ControlTask(data, config, towers, control=arm.control)


def settled(task: ControlTask) -> ControlTask:
    """Return the trained task on the CPU, with the references embedded by the final weights as the export has them."""
    weights = {name: value.cpu() for name, value in task.model.state_dict().items()}
    made = dataclasses.replace(task, towers=task.towers.cpu())
    made.model.load_state_dict(weights)
    if made.model.ram is not None:
        made.refresh(exact=True)
    return made


def flop_per_image(task: PretrainTask) -> float:
    """Count the multiplications and additions of a forward pass of the image tower, per image."""
    from torch.utils.flop_counter import FlopCounterMode

    inputs = task.images_of(task.data.train.items[:2], augmented=False).batch(np.arange(2), 0).pixels
    with FlopCounterMode(display=False) as counted:  # its hooks need gradients
        task.model.eval().image(inputs)
    return float(counted.get_total_flops()) / len(inputs)


def utilisation(gflop: float, pairs_per_s: float, *, device: str) -> float | None:
    """Return the model FLOP utilisation of a device: three times the forward pass, of its dense bf16 peak.

    >>> round(utilisation(10.0, 10_000, device="NVIDIA H100 80GB HBM3"), 3), utilisation(1.0, 10, device="cpu")
    (0.303, None)
    """
    peak = next((tflops for part, tflops in PEAK_TFLOPS.items() if part in device), None)
    return 3e9 * gflop * pairs_per_s / (1e12 * peak) if peak else None


def _about(run: Run) -> dict[str, Any]:
    return dataclasses.asdict(run) | {"run": run.name, "change": run.change}


def first_rows(test: TestSet, most: int) -> TestSet:
    """Return an even part of the images of a class set."""
    rows = torch.linspace(0, len(test.pixels) - 1, min(most, len(test.pixels))).long()
    return dataclasses.replace(
        test,
        pixels=test.pixels[rows],
        retrieval={name: values[rows] for name, values in test.retrieval.items()},
        item=torch.arange(len(rows)),
        weights=test.weights[rows],
        labels=test.labels[rows],
        clusters=test.clusters[rows],
    )


def carry_out(lab: Lab, runs: Sequence[Run], *, minutes: float | None = None) -> None:
    """Train and measure the missing runs in order; no run starts after `minutes`."""
    experiment, began = Experiment(lab), time.monotonic()
    for run in runs:
        if minutes is not None and time.monotonic() - began > 60 * minutes:
            say(f"{minutes:g} minutes are over")
            return
        if run.name not in experiment.done() and experiment.claim(run):
            say(f"run {run.name}")
            experiment.go(run)


def gpu(data: Path, out: Path, cache: Path, trial: Trial, *, arms: Sequence[str]) -> list[str]:
    """Train ViT-S from scratch with and without RAM, on a GPU where there is one; return a line per run.

    The line has the pairs per second, beginning to end, and the model FLOP utilisation of the image tower.
    """
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    carry_out(Lab(data, out, cache, trial), [Run(arm, 0) for arm in arms])
    lines = []
    for line in map(json.loads, (out / "figures.jsonl").read_text(encoding="utf-8").splitlines()):
        if line["question"] == "done":
            facts = line["facts"]
            used = utilisation(facts["gflop"], facts["pairs_per_s"], device=device)
            share = f", {100 * used:.1f}% of the peak" if used is not None else ""
            lines.append(f"{line['run']} on {device}: {facts['pairs_per_s']:.1f} pairs/s{share}")
    return lines


def gpu_changes(size_px: int) -> tuple[str, ...]:
    """Return the settings of a ViT-S/16 on a GPU."""
    return (
        "pretrain.model=small",
        f"pretrain.image={{image_size = {size_px}, num_hidden_layers = 12}}",
        f"pretrain.decode_once_px={size_px * 4 // 3}",
        "loop.batch=1024",
        "loop.epochs=30",
        "loop.device=auto",
        "optimiser.learning_rate=1e-3",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train and measure")
    run.add_argument("--data", type=Path, default=Path("../shared/data"))
    run.add_argument("--out", type=Path, required=True)
    run.add_argument("--cache", type=Path, help="arrays and embeddings; default: OUT/cache")
    run.add_argument("--only", help="only runs whose name starts with this")
    run.add_argument("--minutes", type=float, help="start no run after this time")
    run.add_argument("--threads", type=int, default=1, help="CPU threads; two calls of one thread each are faster")
    large = commands.add_parser("gpu", help="train ViT-S at 96 px with and without RAM; samples/s and MFU")
    large.add_argument("--data", type=Path, default=Path("../shared/data"))
    large.add_argument("--out", type=Path, required=True)
    large.add_argument("--size-px", type=int, default=96)
    large.add_argument("--arms", nargs="+", default=["clip", "frozen", "normalised", "linear", "texts"])
    report = commands.add_parser("report", help="make tables and plots from the figures")
    report.add_argument("out", type=Path)
    report.add_argument("--docs", type=Path, default=Path("docs"))
    options = parser.parse_args()
    if options.command == "report":
        for line in write_report(options.out, options.docs):
            print(line)
        return
    if options.command == "gpu":
        trial = Trial(changes=gpu_changes(options.size_px))
        for line in gpu(options.data, options.out, options.out / "cache", trial, arms=options.arms):
            print(line)
        return
    torch.set_num_threads(options.threads)
    lab = Lab(options.data, options.out, options.cache or options.out / "cache", Trial())
    carry_out(lab, [run for run in plan() if run.name.startswith(options.only or "")], minutes=options.minutes)


if __name__ == "__main__":
    main()
