"""Train RA-CLIP and CLIP from scratch, with controls that say where a gain comes from, and measure them.

    python benchmarks/ra_clip_scratch.py run --data ../shared/data --out runs/scratch [--only NAME] [--minutes M]
    python benchmarks/ra_clip_scratch.py report runs/scratch --docs docs
    python benchmarks/ra_clip_scratch.py gpu --data ../shared/data --out runs/scratch-gpu [--size-px 96]

`run` trains and measures the runs of `PLAN` in order of worth, and appends every figure to OUT/figures.jsonl. A second
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from impart.blending.ram import build_ram
from impart.encoders import load_encoder
from impart.encoders.base import Encoder
from impart.evaluate.class_prompts import templates_of
from impart.images import load_image
from impart.train.config_file import config_of
from impart.train.events import StepDone, result_of
from impart.train.heads.class_names import a_or_an
from impart.train.heads.towers.sentences import SentenceCache
from impart.train.loop import fit
from impart.train.prepare.embeddings import EmbeddingStore
from impart.train.prepare.pairs import Failures, ListedImage, list_images
from impart.train.pretrain.model import Bank
from impart.train.pretrain.prepare import PretrainData, prepare
from impart.train.settings import TrainConfig
from ra_clip import CLASS_SETS, PAPER_VANILLA, SHOTS, VANILLA, Copies
from ra_clip_scratch_measure import Measured, Right, bank_of, rows_of_bank
from ra_clip_scratch_model import (
    Arrays,
    ScratchTask,
    ScratchTowers,
    both,
    build_image,
    retrieved_by,
    scaled,
    share_of,
    with_all_references,
)
from ra_clip_scratch_model import without_retriever as by_tower
from ra_clip_scratch_pack import pack
from ra_clip_scratch_report import write_report
from ra_clip_scratch_retriever import PatchEncoder, PatchSettings, fit_patches, pixels_of
from ra_clip_scratch_tests import PROBES, TestSet, make_tests
from train_speed import PEAK_TFLOPS

DIM = 384
SIZE_PX, VIEW_PX = 48, 64
WIDTHS = (32, 64, 128, 256)
EPOCHS, LONGER = 4.0, 12.0
KS = (1, 2, 4, 8, 16, 32, 64)
SIZES = (0.01, 0.03, 0.1, 0.3, 1.0)
SHARES = (0.1, 0.25, 0.5)
EVERY = 27  # steps between two points of a learning curve
PART = 250  # images per test in a learning curve
TESTS = (*CLASS_SETS, "flickr8k", "coco", "panda", *(f"{name}/train" for name in PROBES))

CONFIG: dict[str, Any] = {
    "mode": "pretrain",
    "data": {
        "pairs": [
            {"path": "images/flickr8k", "where": {"split": "train"}},
            {"path": "images/openstax", "text": "alt"},
            {"path": "images/more/*", "text": "text"},
        ],
        "validation": [{"path": "images/flickr8k", "where": {"split": "val"}}],
    },
    "reference": {"fraction": 0.1},
    "ram": {"k": 8, "heads": 8, "layers": 1},
    "optimiser": {"learning_rate": 2e-3, "warmup": 0.05},
    "loop": {
        "epochs": EPOCHS,
        "batch": 256,
        "precision": "bf16",
        "device": "cpu",
        "checkpoint_every": 0,
        "validate_every": 0,
    },
    "log": {"tensorboard": False},
}


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train: what replaces the image tower, the retriever, and settings.

    `image` is a kind of `build_image`. `ram` are changes to [ram], None = no RAM. `frozen` takes the retriever's
    features and the sentence embeddings as reference embeddings, not those of the towers. `all_references` adds the
    training images to the held-out tenth.
    """

    image: str = "tower"
    retriever: str = "mini"
    ram: Mapping[str, Any] | None = None
    frozen: bool = False
    random: bool = False
    by_tower: bool = False
    all_references: bool = False


L2 = {"norm": "l2"}
ARMS = {
    "clip": Arm(),
    "normalised": Arm(ram=L2),
    "frozen": Arm(ram=L2, frozen=True),
    "free": Arm(ram=L2, frozen=True, retriever="patches"),
    "texts": Arm(image="constant", ram=L2, frozen=True),
    "free-texts": Arm(image="constant", ram=L2, frozen=True, retriever="patches"),
    "linear": Arm(image="linear"),
    "head": Arm(image="head"),
    "free-linear": Arm(image="linear", retriever="patches"),
    "free-head": Arm(image="head", retriever="patches"),
    "paper": Arm(ram={}),
    "gated": Arm(ram={"norm": "l2", "gate": True}),
    "random": Arm(ram=L2, random=True),
    "by-tower": Arm(ram=L2, by_tower=True),
    "fused": Arm(image="fused"),
    "free-fused": Arm(image="fused", retriever="patches"),
    "free-own": Arm(ram=L2, retriever="patches"),
    "all": Arm(ram=L2, frozen=True, all_references=True),
    "all-texts": Arm(image="constant", ram=L2, frozen=True, all_references=True),
    "free-all": Arm(ram=L2, frozen=True, retriever="patches", all_references=True),
    "free-all-texts": Arm(image="constant", ram=L2, frozen=True, retriever="patches", all_references=True),
    "free-all-own": Arm(ram=L2, retriever="patches", all_references=True),
}
WEAK = (4, 8, 16, 32)
"""Leading numbers of `mini`'s retrieval embedding (a PCA) that weaker retrievers keep."""
for _kept in WEAK:
    _weak = {"retriever": f"mini{_kept}"}
    ARMS[f"weak{_kept}"] = Arm(ram=L2, frozen=True, **_weak)
    ARMS[f"weak{_kept}-own"] = Arm(ram=L2, **_weak)
    ARMS[f"weak{_kept}-texts"] = Arm(image="constant", ram=L2, frozen=True, **_weak)
    ARMS[f"weak{_kept}-linear"] = Arm(image="linear", **_weak)
    ARMS[f"weak{_kept}-head"] = Arm(image="head", **_weak)
    ARMS[f"weak{_kept}-fused"] = Arm(image="fused", **_weak)
CHEAP = ("texts", "free-texts", "linear", "head", "free-linear", "free-head")


@dataclass(frozen=True)
class Run:
    """One training."""

    arm: str
    seed: int
    share: float = 1.0
    epochs: float = EPOCHS

    @property
    def change(self) -> str:
        changes = [f"share{100 * self.share:g}"] if self.share != 1 else []
        return "-".join(changes + ([f"epochs{self.epochs:g}"] if self.epochs != EPOCHS else []))

    @property
    def name(self) -> str:
        return "-".join(filter(None, (self.arm, self.change, f"s{self.seed}")))

    def config(self, changes: Mapping[str, Mapping[str, Any]]) -> TrainConfig:
        arm = ARMS[self.arm]
        table = {name: dict(part) if isinstance(part, Mapping) else part for name, part in CONFIG.items()}
        table["seed"] = self.seed
        table["loop"]["epochs"] = self.epochs
        table["ram"] |= dict(arm.ram or {})
        table["reference"] |= {"augment": "none" if arm.ram is None else "ram"}
        table["reference"] |= {"random": 1.0} if arm.random else {}
        if arm.retriever.startswith("mini") and arm.retriever != "mini":
            table["reference"]["near_duplicate"] = 2.0  # among few numbers most images are near
        for name, part in changes.items():
            table[name] |= dict(part)
        return config_of(table, where="ra_clip_scratch")


def plan() -> list[Run]:
    """Return the runs in order of worth: the main arms with three seeds, then one seed of the others and the curves."""
    main = ("clip", "normalised", "frozen", "free", *CHEAP)
    weak = [f"weak{kept}-{part}" for kept in WEAK for part in ("linear", "head", "texts")]
    runs = [Run(arm, 0) for arm in (*main, "paper", "free-all", *weak, "weak8", "weak8-own", "weak8-fused", "weak16")]
    runs += [Run(arm, 0, share) for share in SHARES[:2] for arm in ("clip", "normalised", "frozen")]
    runs += [Run(arm, 1) for arm in main]
    runs += [Run(arm, 0) for arm in ("gated", "random", "by-tower", "free-all-texts", "all-texts", "free-fused")]
    runs += [Run(arm, 2) for arm in main]
    runs += [Run(arm, 0) for arm in ("fused", "weak4", "weak32", "free-own", "all")]
    runs += [Run(arm, seed) for seed in (1, 2) for arm in ("paper", "gated", "weak8", "weak8-own", *weak)]
    runs += [Run(arm, 0, 1.0, LONGER) for arm in ("clip", "free", "free-fused", "free-linear", "frozen", "head")]
    runs += [
        Run(arm, seed, share) for seed in (0, 1, 2) for share in SHARES for arm in ("clip", "normalised", "frozen")
    ]
    return runs


@dataclass(frozen=True)
class Trial:
    """Sizes: few images and a small tower for tests, a larger tower for a GPU; the default is the experiment."""

    most: int = 0
    tower: str = "tower"
    size_px: int = SIZE_PX
    view_px: int = VIEW_PX
    widths: tuple[int, ...] = WIDTHS
    patches: PatchSettings = dataclasses.field(default_factory=PatchSettings)
    retrievers: Mapping[str, Callable[[], Encoder]] | None = None
    changes: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    tests: tuple[str, ...] = TESTS
    every: int = EVERY


class Lab:
    """Everything that the runs share: arrays, retrievers, sentence embeddings, tests."""

    def __init__(self, data: Path, out: Path, cache: Path, trial: Trial):
        self.data, self.out, self.cache, self.trial = data.resolve(), out, cache, trial
        out.mkdir(parents=True, exist_ok=True)
        config = Run("clip", 0).config(trial.changes)
        train = list_images(config.data.pairs, self.data, Failures())
        self.items = train + list_images(config.data.validation, self.data, Failures())
        self.retrievers = self._retrievers(train)
        self.rows = {item.pair.image_key: row for row, item in enumerate(self.items)}
        self.views = self._array("views", trial.view_px)
        self.clean = self._array("clean", trial.size_px)
        self.features = {name: self._features(encoder) for name, encoder in self.retrievers.items()}
        self.tests = make_tests(
            self.data, cache, trial.tests, self.retrievers, size_px=trial.size_px, most=trial.most, note=_say
        )
        for kept in WEAK if "mini" in self.features else ():
            self._weaken(kept)
        self.sentences = self._sentences()
        self.fitting = {
            name: self._fitting(self.tests[f"{name}/train"])
            for name in ("caltech101", "cifar100")
            if f"{name}/train" in trial.tests
        }
        together = {name: test.clusters if len(test.labels) else test.owners for name, test in self.tests.items()}
        kept_together = {name: together[name].tolist() for name in ("coco", "flickr8k", "panda") if name in together}
        (out / "clusters.json").write_text(json.dumps(kept_together), encoding="utf-8")
        self._copies: Copies | None = None

    def _retrievers(self, train: Sequence[ListedImage]) -> dict[str, Encoder]:
        if self.trial.retrievers is not None:
            return {name: make() for name, make in self.trial.retrievers.items()}
        settings, file = self.trial.patches, self.cache / "patches.pt"
        if not file.is_file():
            _say("learning the features of patches")
            drawn = np.random.default_rng(0).permutation(len(train))[: settings.fitted]
            fit_patches(_decoded([train[row] for row in drawn], settings.size_px), settings).save(file)
        return {"mini": load_encoder("mini", threads=1), "patches": PatchEncoder.open(file)}

    def _array(self, name: str, size_px: int) -> np.ndarray:
        file = self.cache / f"{name}-{size_px}-{len(self.items)}.npy"
        if not file.is_file():
            _say(f"decoding {len(self.items)} images at {size_px} px")
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(".part.npy")
            np.save(part, torch.cat(list(_decoded(self.items, size_px))).numpy())
            part.replace(file)
        read: np.ndarray = np.load(file, mmap_mode="r")
        return read

    def _features(self, encoder: Encoder) -> Tensor:
        store = EmbeddingStore(self.cache, encoder)
        found = result_of(store.images([item.pair for item in self.items]))
        assert not found.failures, found.failures[:3]
        return torch.from_numpy(np.asarray(store.retrieval[found.rows], dtype=np.float32))

    def _weaken(self, kept: int) -> None:
        """Add a retriever that keeps the leading numbers of `mini`'s retrieval embedding."""
        name = f"mini{kept}"
        self.features[name] = normalize(self.features["mini"][:, :kept], dim=-1)
        for test, arrays in self.tests.items():
            weak = normalize(arrays.retrieval["mini"][:, :kept].float(), dim=-1).half()
            self.tests[test] = dataclasses.replace(arrays, retrieval={**arrays.retrieval, name: weak})

    def _sentences(self) -> dict[str, np.ndarray]:
        words = {word for test in self.tests.values() for word in test.classes}
        texts = [text for item in self.items for text in item.texts]
        texts += [text for test in self.tests.values() for text in test.captions]
        texts += [template.format(word) for word in sorted(words) for template in templates_of("ensemble")]
        texts += [a_or_an(word) for word in sorted(words)]
        texts = list(dict.fromkeys(texts))
        return dict(zip(texts, SentenceCache(self.cache).embed(texts).astype(np.float16), strict=True))

    def _fitting(self, train: TestSet) -> tuple[Tensor, list[str]]:
        """Return the rows of the first images of each class, and their texts."""
        labels = train.labels.numpy()
        rows = np.concatenate([np.flatnonzero(labels == number)[:SHOTS] for number in np.unique(labels)])
        return torch.from_numpy(rows), [a_or_an(train.classes[number]) for number in labels[rows]]

    def data_of(self, run: Run, config: TrainConfig) -> PretrainData:
        """Split the images of a run and search their neighbours."""
        retriever = ARMS[run.arm].retriever
        encoder = self.retrievers.get(retriever, self.retrievers["mini"])
        changed = dataclasses.replace(config, data=dataclasses.replace(config.data, cache=str(self.cache)))
        folder = self.out / run.name
        made = result_of(prepare(changed, encoder, data=self.data, out=folder, failures=Failures()))
        if retriever not in self.retrievers:
            arrays = Arrays(self.rows, self.views, self.clean, self.features[retriever])
            made = retrieved_by(made, arrays, config)
        made = share_of(made, run.share, config)
        made = with_all_references(made, config) if ARMS[run.arm].all_references else made
        return by_tower(made) if ARMS[run.arm].by_tower else made

    def copies(self, places: Sequence[str]) -> np.ndarray:
        """Return (n,) whether each of n images is a copy of a test image; answers are kept in the cache."""
        file = self.cache / "copies.json"
        known: dict[str, bool] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if fresh := [place for place in places if place not in known]:
            if self._copies is None:
                folders = [*CLASS_SETS.values(), "images/coco/images", "videos/panda"]
                self._copies = Copies(self.data, self.cache, folders)
            known |= dict(zip(fresh, self._copies.among(fresh).tolist(), strict=True))
            part = file.with_name(f"copies.{os.getpid()}.json")
            part.write_text(json.dumps(known), encoding="utf-8")
            part.replace(file)
        return np.array([known[place] for place in places], dtype=bool)

    def inputs(self, arm: Arm) -> Callable[[TestSet], Tensor]:
        """Return what makes the input of an arm from a test."""

        def make(test: TestSet) -> Tensor:
            features = test.retrieval[arm.retriever]
            if arm.image in ("linear", "head", "constant"):
                return scaled(features)
            return both(test.pixels, features) if arm.image == "fused" else test.pixels

        return make


def _decoded(items: Sequence[ListedImage], size_px: int) -> Any:
    for first in range(0, len(items), 64):
        yield pixels_of([load_image(item.pair.image)[0] for item in items[first : first + 64]], size_px)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


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
        _say(
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
            _say(f"{minutes:g} minutes are over")
            return
        if run.name not in experiment.done() and experiment.claim(run):
            _say(f"run {run.name}")
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
