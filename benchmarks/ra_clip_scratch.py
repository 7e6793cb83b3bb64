"""Train RA-CLIP and CLIP from scratch, with controls that say where a gain comes from, and measure them.

    python benchmarks/ra_clip_scratch.py run --data ../shared/data --out runs/scratch [--only NAME] [--minutes M]
    python benchmarks/ra_clip_scratch.py report runs/scratch --docs docs
    python benchmarks/ra_clip_scratch.py gpu --data ../shared/data --out runs/scratch-gpu [--size-px 96]

`run` trains and measures the runs of `plan` in order of worth, and appends every figure to OUT/figures.jsonl. A second
call resumes with the missing runs; started twice at the same time, the two share the plan. `report` makes the tables
and plots of docs/ra-clip.md from this file, at any time. `gpu` trains a ViT-S instead, at 64 to 128 px.

The image tower (a residual network of 1.3M parameters, 48 px) learns from nothing. Texts are sentence embeddings of a
frozen all-MiniLM-L6-v2 with a learned projection. Only the retriever is pretrained, as in the paper: `mini`, which has
seen ImageNet's labels, or patches and k-means, which has seen no label. Both towers and the RAM learn together.
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
from torch import Tensor
from torch.nn.functional import pad

from impart.blending.ram import build_ram
from impart.train.events import StepDone
from impart.train.loop import fit
from impart.train.pretrain.model import Bank
from ra_clip import CLASS_SETS, PAPER_VANILLA, VANILLA
from ra_clip_scratch_lab import Lab, Trial, say
from ra_clip_scratch_measure import Measured, Right, bank_of, rows_of_bank
from ra_clip_scratch_model import Arrays, ScratchTask, ScratchTowers, build_image
from ra_clip_scratch_pack import pack
from ra_clip_scratch_plan import ARMS, DIM, KS, PART, SIZES, Arm, Run, plan
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
        """Train a run and measure it."""
        arm, lab = ARMS[run.arm], self.lab
        config = run.config(lab.trial.changes)
        self.write(**_about(run), question="start")
        data = lab.data_of(run, config)
        features = lab.features[arm.retriever]
        image = build_image(
            lab.trial.tower if arm.image == "tower" else arm.image,
            dim=DIM,
            width=features.shape[1],
            size_px=lab.trial.size_px,
            widths=lab.trial.widths,
            seed=config.seed,
        )
        towers = ScratchTowers(image, lab.sentences, dim=DIM, size_px=lab.trial.size_px)
        arrays = Arrays(lab.rows, lab.views, lab.clean, features)
        task = ScratchTask(data, config, towers, arrays=arrays, kind=arm.image, frozen_references=arm.frozen)
        wall_s = cpu_s = 0.0
        events = fit(task, config, out=self.out / run.name)
        while True:
            began, cpu = time.monotonic(), time.process_time()
            event = next(events, None)
            wall_s, cpu_s = wall_s + time.monotonic() - began, cpu_s + time.process_time() - cpu
            if event is None:
                break
            on_cpu = task.config.loop.device == "cpu"
            if (
                isinstance(event, StepDone)
                and on_cpu
                and (event.step % lab.trial.every == 0 or event.step == event.steps)
            ):
                self._point(run, task, event, wall_s, cpu_s)
        task.settle()
        self.measure(run, task)
        facts = {
            "pairs_per_s": round(task.pairs_per_step * config.loop.total_steps(task.steps_per_epoch) / wall_s, 1),
            "gflop": round(flop_per_image(image, task.inputs(np.arange(2))) / 1e9, 4),
            "trained": len(data.train),
            "references": len(data.references),
            "steps": config.loop.total_steps(task.steps_per_epoch),
            "parameters": sum(p.numel() for p in task.model.parameters() if p.requires_grad),
        }
        self.write(**_about(run), question="done", wall_s=wall_s, cpu_s=cpu_s, facts=facts)

    def measured(self, run: Run, task: ScratchTask, tests: Mapping[str, TestSet]) -> Measured:
        """Make the measurement of a run's model on some tests."""
        arm = ARMS[run.arm]
        return Measured(
            task.model,
            tests,
            inputs=self.lab.inputs(arm),
            retriever="" if arm.by_tower else arm.retriever,
            bf16=task.config.loop.precision == "bf16",
        )

    def _point(self, run: Run, task: ScratchTask, event: StepDone, wall_s: float, cpu_s: float) -> None:
        """Write one point of the learning curve: part of the zero-shot tests, and text to image of the validation."""
        few = {name: first_rows(self.lab.tests[name], PART) for name in CLASS_SETS}
        measured = self.measured(run, task, few)
        bank = task.model.bank if task.model.ram is not None else None
        shuffle = ARMS[run.arm].random
        figures, _ = measured.zeroshot(bank, shuffle=shuffle)
        more = self.measured(run, task, {"flickr8k": self.lab.tests["flickr8k"]})
        figures |= more.recalls("flickr8k", bank, shuffle=shuffle)[0]
        task.model.bank = bank
        task.model.train()
        figures |= {"loss": event.loss, "wall_s": wall_s, "cpu_s": cpu_s}
        self.write(**_about(run), question="curve", value=event.step, figures=figures)
        say(
            f"{run.name} {event.step}/{event.steps} loss {event.loss:.2f} {event.pairs_per_s:.0f}/s "
            f"zero-shot {figures['zeroshot']:.1f} R@5 {figures['flickr8k_r5']:.1f}"
        )

    def measure(self, run: Run, task: ScratchTask) -> None:
        """Measure a trained run: base, with its references, and what changes at test time."""
        arm, lab = ARMS[run.arm], self.lab
        measured, note = self.measured(run, task, lab.tests), self._noter(run)
        k = task.config.ram.k
        if arm.ram is None:
            note("main", None, *measured.everything(None, probes=not run.change))
            if run.arm == "clip" and not run.change:
                self._vanilla(run, task, measured)
            return
        if arm.image == "tower" and not run.seed:
            note("base", None, *measured.everything(None, probes=False))
        bank = self._without_copies(task)
        note("main", len(bank.retrieval), *measured.everything(bank, k=k, shuffle=arm.random, probes=not run.change))
        if run.seed or run.change or arm.random:
            return
        note("shuffled", None, *measured.zeroshot(bank, k=k, shuffle=True))
        mixed = np.random.default_rng(run.seed).permutation(len(bank.retrieval))
        for size in SIZES:
            part = rows_of_bank(bank, mixed[: max(k, round(size * len(mixed)))])
            note("size", size, *measured.zeroshot(part, k=k))
        for tried in KS:
            note("k", tried, *measured.zeroshot(bank, k=tried))
        for name in lab.fitting:
            note("target", name, *measured.zeroshot(self._target(task, arm, measured, name), k=k))

    def _without_copies(self, task: ScratchTask) -> Bank:
        """Return the bank without references that are copies of a test image."""
        bank = task.model.bank
        assert bank is not None
        if self.lab.trial.most:  # the tests are incomplete
            return bank
        places = [item.pair.image_key for item in task.data.references.items]
        return rows_of_bank(bank, np.flatnonzero(~self.lab.copies(places)))

    def _target(self, task: ScratchTask, arm: Arm, measured: Measured, name: str) -> Bank:
        """Embed the references of a test's own domain."""
        rows, texts = self.lab.fitting[name]
        train = self.lab.tests[f"{name}/train"]
        retrieval = measured.q(f"{name}/train")[rows]
        if arm.frozen:
            features = train.retrieval[arm.retriever][rows].float()
            image = pad(features, (0, DIM - features.shape[1]))
            return bank_of(image, task.towers.tokens(texts), retrieval)
        return bank_of(measured.v(f"{name}/train")[rows], measured.texts(texts), retrieval)

    def _vanilla(self, run: Run, task: ScratchTask, measured: Measured) -> None:
        """Measure Vanilla over the trained CLIP, with references by `mini` and by patches."""
        image, text = task.embedded(task.data.references.items)
        rows = task.arrays.of(task.data.references.items)
        for retriever in self.lab.retrievers:
            features = self.lab.features[retriever]
            bank = bank_of(image, text, features[rows])
            for form, settings in (("vanilla", VANILLA), ("vanilla-paper", PAPER_VANILLA)):
                task.model.ram = build_ram(settings, dim=DIM, retrieval_dim=features.shape[1]).eval()
                task.model.bank = bank
                measured.retriever = retriever
                found = measured.everything(self._without_copies(task), probes=False)
                self._noter(run)(f"{form}-{retriever}", None, *found)
        task.model.ram = None

    def _noter(self, run: Run) -> Callable[[str, object, Mapping[str, float], Mapping[str, Right]], None]:
        """Return a function that writes a line of this run: question, value, figures, right or wrong per item."""

        def note(question: str, value: object, figures: Mapping[str, float], right: Mapping[str, Right]) -> None:
            packed = {name: pack(values) for name, values in right.items()}
            self.write(**_about(run), question=question, value=value, figures=figures, right=packed)

        return note


def flop_per_image(image: torch.nn.Module, inputs: Tensor) -> float:
    """Count the multiplications and additions of a forward pass of the image half, per image."""
    from torch.utils.flop_counter import FlopCounterMode

    image.eval()
    with FlopCounterMode(display=False) as counted:  # its hooks need gradients
        image(inputs)
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


GPU: dict[str, dict[str, Any]] = {
    "loop": {"batch": 1024, "epochs": 30.0, "device": "auto"},
    "optimiser": {"learning_rate": 1e-3},
}


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
        size = options.size_px
        trial = Trial(tower="vit", size_px=size, view_px=size * 4 // 3, changes=GPU)
        for line in gpu(options.data, options.out, options.out / "cache", trial, arms=options.arms):
            print(line)
        return
    torch.set_num_threads(options.threads)
    lab = Lab(options.data, options.out, options.cache or options.out / "cache", Trial())
    carry_out(lab, [run for run in plan() if run.name.startswith(options.only or "")], minutes=options.minutes)


if __name__ == "__main__":
    main()
