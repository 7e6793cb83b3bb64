"""Compare RA-CLIP with CLIP: the same heads, data, seeds and steps, trained with and without RAM (mode `heads`).

    python benchmarks/ra_clip.py run --data ../shared/data --out runs/ra_clip [--cache CACHE] [--only NAME]
    python benchmarks/ra_clip.py report runs/ra_clip --docs docs

`run` trains and measures the runs of `PLAN` in order, and appends every figure to OUT/figures.jsonl. A second call
resumes with the missing runs. `report` makes the tables and plots of docs/ra-clip.md from this file and the logs of
the runs, at any time.

Zero-shot: CIFAR-10, CIFAR-100, Caltech-101 (their `test` folders) and Tiny-ImageNet-32, ensemble of seven prompts.
Text to image: Flickr8k `val`. Text to video: `videos/panda`, mean of four frames per second. None of these images is in
the training data, and references that are copies of them (equal bytes, or near-duplicates) are removed before testing.
Only the experiment "target" uses images of a test's domain: three per class of `caltech101/train`, `cifar100/train`.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from impart.blending.ram import build_ram
from impart.config import DecodeSettings, RamSettings
from impart.evaluate import open_set
from impart.evaluate.datasets.types import Images
from impart.metrics.ranking import rank_figures, ranks_of
from impart.recipes.mini.collect.guard import Guard, Prints, evaluation_images, prints_of
from impart.retrieval.prompts import ZEROSHOT_ENSEMBLE
from impart.train.config_file import load_config
from impart.train.events import StepDone, result_of
from impart.train.heads.checkpoint import TrainedHeadsModel, load_heads, save_heads
from impart.train.heads.class_names import a_or_an
from impart.train.heads.corpus import training_images
from impart.train.heads.model import EmbeddedReferences, HeadsModel, nearest_rows
from impart.train.heads.prepare import HeadsData, build_references, prepare
from impart.train.heads.task import HeadsTask
from impart.train.heads.towers.backbone import FEATURES, load_lite2
from impart.train.heads.towers.quantise import backbone_session
from impart.train.heads.towers.sentences import SentenceCache
from impart.train.loop import fit
from impart.train.prepare.development_data import read_images, read_validation
from impart.train.prepare.pairs import Failures
from impart.train.settings import TrainConfig
from impart.video.decode.sampler import DecodedSegment, sample_video
from ra_clip_report import write_report

Made = TypeVar("Made")
Note = Callable[[str, str, object, Mapping[str, float]], None]

CLASS_SETS = {
    "cifar10": "images/cifar10/test",
    "cifar100": "images/cifar100/test",
    "caltech101": "images/caltech101/test",
    "tiny_imagenet32": "images/tiny_imagenet32/test",
}
FITTING = {"caltech101": "images/caltech101/train", "cifar100": "images/cifar100/train"}
SHOTS = 3
KS = (1, 2, 4, 8, 16, 32, 64)
SIZES = (0.01, 0.03, 0.1, 0.3, 1.0)

SMALL = (
    "heads.image_hidden=512",
    "heads.text_hidden=512",
    "heads.cell_heads=0",
    "heads.ema=0.98",
    "loop.epochs=4",
    "loop.checkpoint_every=0",
    "loop.validate_every=50",
    "loop.device=cpu",
    "log.tensorboard=false",
)
"""Settings of a short run: pooled features alone, narrower heads, few epochs."""

VANILLA = RamSettings(form="vanilla")
PAPER_VANILLA = RamSettings(form="vanilla", w_img=0.5, w_txt=0.05, tau=0.0, floor=0.0, ramp=0.0)

VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "clip": ("heads_clip", ()),
    "paper": ("heads_paper", ()),
    "normalised": ("heads_normalised", ()),
    "gated": ("heads_gated", ()),
    "learned-vanilla": ("heads_paper", ("ram.form=vanilla",)),
}


@dataclass(frozen=True)
class Run:
    """One training: a variant, a seed and changed settings."""

    variant: str
    seed: int
    change: str = ""
    sets: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return "-".join(filter(None, (self.variant, self.change, f"s{self.seed}")))

    def config(self, epochs: float | None) -> TrainConfig:
        file, own = VARIANTS[self.variant]
        last = (f"seed={self.seed}", *(() if epochs is None else (f"loop.epochs={epochs}",)))
        return load_config(file, sets=(*SMALL, *own, *self.sets, *last))


CHANGED = (
    Run("normalised", 0, "layers2", ("ram.layers=2",)),
    Run("normalised", 0, "encoder", ("reference.retrieval=encoder", "reference.refresh=2")),
    Run("normalised", 0, "flickr8k", ('reference.sources=["flickr8k"]',)),
    Run("normalised", 0, "random50", ("reference.random=0.5",)),
    Run("normalised", 0, "k32", ("ram.k=32",)),
    Run("normalised", 0, "use10", ("reference.use=0.1",)),
    Run("normalised", 0, "k1", ("ram.k=1",)),
)
PLAN: tuple[tuple[Run, str], ...] = (
    *((Run(variant, 0), "train") for variant in VARIANTS),
    *((Run(variant, 0), "sweep") for variant in ("clip", "normalised", "learned-vanilla")),
    *((Run(variant, 1), "train") for variant in VARIANTS),
    *((run, "train") for run in CHANGED),
    *((Run(variant, 2), "train") for variant in VARIANTS),
    *((Run(variant, 0), "sweep") for variant in ("paper", "gated")),
)
"""The runs and their jobs, in this order."""


@dataclass(frozen=True)
class Classes:
    """Class folder: features (n, F), sentence embeddings of the prompts (C, P, D), labels (n,)."""

    features: Tensor
    prompts: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Captioned:
    """Features of images or frames (n, F), and sentence embeddings of captions (T, D).

    `item` (n,) is the image or clip of a row: an image has one row, a clip several. `weights` (n,) are the grid times
    that a row represents; `owners` (T,) are the items of the captions.
    """

    features: Tensor
    item: Tensor
    weights: Tensor
    sentences: Tensor
    owners: Tensor


@dataclass(frozen=True)
class Pairs:
    """Reference pairs from outside the training data: features (N, F), sentences (N, D)."""

    features: Tensor
    sentences: Tensor


@dataclass(frozen=True)
class Tests:
    """Features and sentences of all tests, computed once."""

    classes: dict[str, Classes]
    captioned: dict[str, Captioned]
    fitting: dict[str, Pairs]
    facts: dict[str, int]


def open_images(files: Sequence[Path]) -> Iterator[Image.Image]:
    for file in files:
        with Image.open(file) as image:
            yield image.convert("RGB")


def decoded(images: Images) -> Iterator[Image.Image]:
    return (images.read(number)[0] for number in range(len(images)))


def build_tests(data: Path, cache: Path) -> Tests:
    """Compute the pooled features of the backbone and the sentence embeddings of every test."""
    everyday = [image.path for image in read_images(data)]
    tower = backbone_session(load_lite2(), everyday, cache, size_px=256)
    sentences = SentenceCache(cache)

    def features_of(images: Iterator[Image.Image]) -> Tensor:
        rows = []
        while batch := list(islice(images, 32)):
            rows.append(tower(batch)[:, :FEATURES])
        return torch.from_numpy(np.concatenate(rows))

    def sentences_of(texts: Sequence[str]) -> Tensor:
        return torch.from_numpy(sentences.embed(texts))

    classes, captioned, fitting = {}, {}, {}
    for name, path in CLASS_SETS.items():
        folder = open_set(data / path, kind="classes")
        prompts = sentences_of([template.format(word) for word in folder.classes for template in ZEROSHOT_ENSEMBLE])
        prompts = prompts.reshape(len(folder.classes), len(ZEROSHOT_ENSEMBLE), -1)
        classes[name] = Classes(features_of(decoded(folder.images)), prompts, torch.from_numpy(folder.labels))
        print(f"{name}: {len(folder)} images", flush=True)
    for name, path in FITTING.items():
        folder = open_set(data / path, kind="classes", per_class=SHOTS)
        words = sentences_of([a_or_an(folder.classes[label]) for label in folder.labels])
        fitting[name] = Pairs(features_of(decoded(folder.images)), words)
    flickr = open_set(data / "images" / "flickr8k" / "captions.csv", split="val", kind="captions")
    seen, count = features_of(decoded(flickr.images)), len(flickr.images)
    words, owners = sentences_of(flickr.captions), torch.from_numpy(flickr.owners)
    captioned["flickr8k"] = Captioned(seen, torch.arange(count), torch.ones(count), words, owners)
    panda = open_set(data / "videos" / "panda" / "captions.csv", kind="videos")
    frames = [
        (number, segment)
        for number, file in enumerate(panda.videos)
        for segment in sample_video(file, settings=DecodeSettings(fit="crop"), short_side_px=256)
        if isinstance(segment, DecodedSegment)
    ]
    captioned["panda"] = Captioned(
        features_of(Image.fromarray(segment.image) for _, segment in frames),
        torch.tensor([number for number, _ in frames]),
        torch.tensor([float(segment.weight) for _, segment in frames]),
        sentences_of(panda.captions),
        torch.from_numpy(panda.owners),
    )
    return Tests(classes, captioned, fitting, {"clips": len(panda.videos), "frames": len(frames)})


def kept(path: Path, make: Callable[[], Made]) -> Made:
    """Load the object of an earlier run, or make and save it."""
    if path.is_file():
        read: Made = torch.load(path, weights_only=False)  # a file of this benchmark
        return read
    made = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(made, path)
    return made


class Copies:
    """Finds copies of test images: equal bytes, or near-duplicates (`impart.recipes.mini.collect.guard`)."""

    def __init__(self, data: Path, cache: Path, folders: Sequence[str] = (*CLASS_SETS.values(), "videos/panda")):
        self._data = data
        paths = evaluation_images(data, folders)
        paths += [image.path for image in read_validation(data)]
        self._guard = Guard.of_files(paths, cache=cache)
        self.tests = len(paths)
        self._known: dict[str, bool] = {}

    def among(self, paths: Sequence[str]) -> np.ndarray:
        """Return (n,) whether each of n files below the data folder is a copy."""
        fresh = [path for path in dict.fromkeys(paths) if path not in self._known]
        equal = [self._guard.is_known_file((self._data / path).read_bytes()) for path in fresh]
        near = self._guard.copies(Prints.join([prints_of(i) for i in open_images([self._data / p for p in fresh])]))
        self._known |= {path: bool(a or b) for path, a, b in zip(fresh, equal, near, strict=True)}
        return np.array([self._known[path] for path in paths], bool)


class Measured:
    """Measures a trained model on the tests; base embeddings are computed once."""

    def __init__(self, trained: TrainedHeadsModel, tests: Tests):
        self.model, self.tests = trained.model, tests
        self._base = {
            name: self.model.embed_images(part.features) for name, part in (tests.classes | tests.captioned).items()
        }
        self._heads = {name: self._head(part.prompts) for name, part in tests.classes.items()}  # (C, D)
        self._texts = {name: self.model.embed_texts(part.sentences) for name, part in tests.captioned.items()}

    def _head(self, prompts: Tensor) -> Tensor:
        """Compute the class embeddings (C, D) of prompts (C, P, D)."""
        texts = self.model.embed_texts(prompts.reshape(-1, prompts.shape[2])).reshape(prompts.shape)
        return F.normalize(texts.mean(1), dim=-1)

    @torch.no_grad()
    def augmented(
        self, name: str, references: EmbeddedReferences | None, *, k: int, shuffle: bool, ram: HeadsModel | None
    ) -> Tensor:
        """Compute v' (n, D) of the images of a test, or return v without references."""
        v, q = self._base[name]
        if references is None:
            return v
        rows = []
        for part_v, part_q in zip(torch.split(v, 512), torch.split(q, 512), strict=True):
            ids = nearest_rows([part_q], references.retrieval, k)[0]
            if shuffle:
                ids = torch.randint(len(references), ids.shape, generator=torch.Generator().manual_seed(0))
            rows.append((ram or self.model).augment(part_v, part_q, ids, references))
        return torch.cat(rows)

    def figures(
        self,
        references: EmbeddedReferences | None,
        *,
        k: int = 8,
        only: Sequence[str] = (),
        shuffle: bool = False,
        ram: HeadsModel | None = None,
    ) -> dict[str, float]:
        """Measure the tests `only` (none = all), in percent by metric; `zeroshot` is the mean of the four sets.

        Without references v is measured. `shuffle` retrieves random references. `ram` replaces the RAM of the model.
        """
        found: dict[str, float] = {}
        for name, part in self.tests.classes.items():
            if not only or name in only:
                embedded = self.augmented(name, references, k=k, shuffle=shuffle, ram=ram)
                right = (embedded @ self._heads[name].T).argmax(1) == part.labels
                found[name] = 100 * right.float().mean().item()
        if set(CLASS_SETS) <= set(found):
            found["zeroshot"] = float(np.mean([found[name] for name in CLASS_SETS]))
        for name, shown in self.tests.captioned.items():
            if not only or name in only:
                rows = self.augmented(name, references, k=k, shuffle=shuffle, ram=ram) * shown.weights[:, None]
                items = int(shown.item.max()) + 1
                mean = F.normalize(torch.zeros(items, rows.shape[1]).index_add_(0, shown.item, rows), dim=-1)
                scores = (self._texts[name] @ mean.T).numpy()
                figures = rank_figures(ranks_of(scores, (shown.owners[:, None] == torch.arange(items)).numpy()))
                for at in (1, 5, 10):
                    found[f"{name}_r{at}"] = 100 * figures[f"R@{at}"]
        return found


def with_ram(model: HeadsModel, settings: RamSettings) -> HeadsModel:
    """Give a model an untrained RAM of form `vanilla`, which is equal to Vanilla."""
    dim = model.image.names.shape[1]
    retrieval_dim = dim if model.components is None else model.components.shape[1]
    ram = build_ram(settings, dim=dim, retrieval_dim=retrieval_dim).eval().requires_grad_(False)
    return HeadsModel(model.image, model.text, components=model.components, ram=ram, k=settings.k).eval()


def forms_of(trained: TrainedHeadsModel) -> dict[str, HeadsModel]:
    """Return the augmented forms of a model: its own RAM, or Vanilla over plain CLIP."""
    if trained.model.ram is not None:
        return {"ram": trained.model}
    return {"vanilla": with_ram(trained.model, VANILLA), "vanilla-paper": with_ram(trained.model, PAPER_VANILLA)}


class Experiment:
    """Trains and measures runs, and writes OUT/figures.jsonl."""

    def __init__(self, data: Path, out: Path, cache: Path, epochs: float | None):
        self.data, self.out, self.epochs = data, out, epochs
        self.tests = kept(out / "tests.pt", lambda: build_tests(data, cache))
        base = load_config("heads_clip", sets=(*SMALL, "reference.fraction=0", f"data.cache={cache}"))
        self.made = kept(
            out / "data.pt", lambda: pooled(result_of(prepare(base, data=data, out=out, failures=Failures())))
        )
        self.images = training_images(data)
        self.hashes = kept(
            out / "hashes.pt", lambda: [hashlib.sha256(p.path.read_bytes()).hexdigest() for p in self.images]
        )
        numbers: dict[str, int] = {}
        self.own = torch.tensor([numbers.setdefault(key, len(numbers)) for key in self.hashes])
        self.copies = Copies(data, out)

    def write(self, **line: Any) -> None:
        with (self.out / "figures.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def noter(self, run: Run) -> Note:
        """Return a function that writes a line of this run: form, question, value, figures."""

        def note(form: str, question: str, value: object, figures: Mapping[str, float]) -> None:
            about = dataclasses.asdict(run) | {"run": run.name, "form": form}
            self.write(**about, question=question, value=value, figures=figures)

        return note

    def done(self, question: str) -> set[str]:
        file = self.out / "figures.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        return {line["run"] for line in map(json.loads, lines) if line["question"] == question}

    def go(self, run: Run) -> None:
        """Train a run and measure it."""
        started = time.monotonic()
        config, folder = run.config(self.epochs), self.out / run.name
        whole = self.made.corpus
        references, rows, weights = build_references(
            config, self.images, self.hashes, self.own, whole, whole.weights, self.data
        )
        assert references is not None
        task = HeadsTask(
            dataclasses.replace(whole, weights=weights / weights.sum()),
            self.made.image,
            config,
            components=self.made.components,
            references=references if config.reference.augment == "ram" else None,
            validation=self.made.validation,
        )
        for event in fit(task, config, out=folder):
            if isinstance(event, StepDone) and event.step % 20 == 0:
                print(f"  {run.name} {event.step}/{event.steps} {event.loss:.3f} eta {event.eta_s:.0f} s", flush=True)
        trained_s = time.monotonic() - started
        features, sentences = references.features, references.sentences
        save_heads(folder / "model", task.finished(), config=config, rows=rows, features=features, sentences=sentences)
        trained = load_heads(folder)
        keep = self.own_rows(trained)
        facts = {
            "references": len(rows),
            "copies": len(rows) - len(keep),
            "tests": self.copies.tests,
            "trained": int((weights > 0).sum()),
            "steps": config.loop.total_steps(task.steps_per_epoch),
            **self.tests.facts,
        }
        self.measure(run, trained, keep)
        self.write(**dataclasses.asdict(run), run=run.name, question="done", train_s=trained_s, facts=facts)

    def own_rows(self, trained: TrainedHeadsModel) -> np.ndarray:
        """Return the rows of the references that are not copies of test images."""
        return np.flatnonzero(~self.copies.among([row.path for row in trained.rows]))

    def measure(self, run: Run, trained: TrainedHeadsModel, keep: np.ndarray) -> None:
        """Measure a run without and with augmentation, and with references of a test's domain."""
        measured, note = Measured(trained, self.tests), self.noter(run)
        own, k = trained.references(keep.tolist()), trained.config.ram.k
        note("base", "main", None, measured.figures(None))
        forms = forms_of(trained)
        for form, ram in forms.items():
            note(form, "main", None, measured.figures(own, k=k, ram=ram))
        if not run.change:
            for form, ram in forms.items():
                self._target(measured, note, form, ram, k)

    def sweep(self, run: Run) -> None:
        """Measure changes at test time: number of neighbours, size and kind of the references."""
        trained = load_heads(self.out / run.name)
        keep = self.own_rows(trained)
        measured, note = Measured(trained, self.tests), self.noter(run)
        own, k = trained.references(keep.tolist()), trained.config.ram.k
        sources = np.array([trained.rows[row].source for row in keep])
        kinds = {"flickr8k": sources == "flickr8k", "names": sources != "flickr8k"}
        mixed = np.random.default_rng(0).permutation(len(keep))
        sets = tuple(CLASS_SETS)
        for form, ram in forms_of(trained).items():
            for kind, wanted in kinds.items():
                few = trained.references(keep[wanted].tolist())
                found = measured.figures(few, k=k, ram=ram, only=(*sets, "flickr8k"))
                note(form, "kind", kind, found | {"references": float(len(few))})
            note(form, "kind", "random", measured.figures(own, k=k, ram=ram, shuffle=True, only=(*sets, "flickr8k")))
            for size in SIZES:
                part = trained.references(keep[mixed[: max(k, round(size * len(keep)))]].tolist())
                found = measured.figures(part, k=k, ram=ram, only=sets)
                note(form, "size", size, found | {"references": float(len(part))})
            for tried in KS:
                note(form, "k", tried, measured.figures(own, k=tried, ram=ram, only=sets))
        self.write(run=run.name, question="swept")

    def _target(self, measured: Measured, note: Note, form: str, ram: HeadsModel, k: int) -> None:
        """Measure with references of a test's own domain alone."""
        for name, pairs in self.tests.fitting.items():
            fitting = ram.embed_references(pairs.features, pairs.sentences)
            note(form, "target", name, measured.figures(fitting, k=k, ram=ram, only=tuple(CLASS_SETS)))


def pooled(made: HeadsData) -> HeadsData:
    """Remove the features of the cells, which these runs do not use."""
    assert made.validation is not None
    made.image.attention = None
    corpus = dataclasses.replace(made.corpus, views=[view[:, :FEATURES].clone() for view in made.corpus.views])
    validation = dataclasses.replace(made.validation, features=made.validation.features[:, :FEATURES].clone())
    return dataclasses.replace(made, corpus=corpus, validation=validation)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train and measure")
    run.add_argument("--data", type=Path, default=Path("../shared/data"))
    run.add_argument("--out", type=Path, required=True)
    run.add_argument("--cache", type=Path, help="features of the training images; default: OUT/cache")
    run.add_argument("--only", help="only runs whose name starts with this")
    run.add_argument("--epochs", type=float, help="replaces the usual number, for a trial")
    report = commands.add_parser("report", help="make tables and plots from the figures")
    report.add_argument("out", type=Path)
    report.add_argument("--docs", type=Path, default=Path("docs"))
    options = parser.parse_args()
    if options.command == "report":
        for line in write_report(options.out, options.docs):
            print(line)
        return
    experiment = Experiment(options.data, options.out, options.cache or options.out / "cache", options.epochs)
    for planned, job in PLAN:
        finished = experiment.done("done" if job == "train" else "swept")
        if planned.name not in finished and planned.name.startswith(options.only or ""):
            print(f"{time.strftime('%H:%M:%S')} {job} {planned.name}", flush=True)
            (experiment.go if job == "train" else experiment.sweep)(planned)


if __name__ == "__main__":
    main()
