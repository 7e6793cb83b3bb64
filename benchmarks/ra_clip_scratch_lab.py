"""Load what all runs of `benchmarks/ra_clip_scratch.py` share: retrievers, sentences, tests; and the data of a run."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from impart.encoders import load_encoder
from impart.encoders.base import Encoder
from impart.evaluate.class_prompts import templates_of
from impart.images import load_image
from impart.train.events import result_of
from impart.train.heads.class_names import a_or_an
from impart.train.heads.towers.sentences import SentenceCache
from impart.train.prepare.pairs import Failures, ListedImage, list_images
from impart.train.pretrain.prepare import PretrainData, prepare
from impart.train.settings import TrainConfig
from ra_clip import CLASS_SETS, SHOTS, Copies
from ra_clip_scratch_model import joined, scaled, share_of, weakened, with_all_references
from ra_clip_scratch_plan import ARMS, EVERY, TESTS, WEAK, Arm, Run
from ra_clip_scratch_retriever import PatchEncoder, PatchSettings, fit_patches, pixels_of
from ra_clip_scratch_tests import TestSet, make_tests

__all__ = ["Lab", "Trial", "say"]


@dataclass(frozen=True)
class Trial:
    """Sizes: few images and a small tower for tests, a larger tower for a GPU; the default is the experiment.

    Attributes:
        changes: to the config, as `--set` of `impart train` takes them.
        most: rows of a test; 0 = all.
        patches: settings of the retriever without labels.
        retrievers: makes the retrievers by name; None = `mini` and patches.
        tests: names of the tests.
        every: steps between two points of a learning curve.
    """

    changes: tuple[str, ...] = ()
    most: int = 0
    patches: PatchSettings = dataclasses.field(default_factory=PatchSettings)
    retrievers: Mapping[str, Callable[[], Encoder]] | None = None
    tests: tuple[str, ...] = TESTS
    every: int = EVERY


class Lab:
    """Everything that the runs share: retrievers, sentence embeddings, tests."""

    def __init__(self, data: Path, out: Path, cache: Path, trial: Trial):
        self.data, self.out, self.cache, self.trial = data.resolve(), out, cache, trial
        out.mkdir(parents=True, exist_ok=True)
        cache.mkdir(parents=True, exist_ok=True)
        config = self.config(Run("clip", 0))
        train = list_images(config.data.pairs, self.data, Failures())
        self.retrievers = self._retrievers(train)
        self.tests = make_tests(
            self.data,
            cache,
            trial.tests,
            self.retrievers,
            size_px=config.pretrain.image["image_size"],
            most=trial.most,
            note=say,
        )
        for kept in WEAK:
            self._weaken(kept)
        self._embed_sentences()
        self.fitting = {
            name: self._fitting(self.tests[f"{name}/train"])
            for name in ("caltech101", "cifar100")
            if f"{name}/train" in trial.tests
        }
        together = {name: test.clusters if len(test.labels) else test.owners for name, test in self.tests.items()}
        kept_together = {name: together[name].tolist() for name in ("coco", "flickr8k", "panda") if name in together}
        (out / "clusters.json").write_text(json.dumps(kept_together), encoding="utf-8")
        self._copies: Copies | None = None

    def config(self, run: Run) -> TrainConfig:
        """Load the config of a run, with the changes of the trial."""
        return run.config(f"data.cache={json.dumps(str(self.cache.resolve()))}", *self.trial.changes)

    def _retrievers(self, train: Sequence[ListedImage]) -> dict[str, Encoder]:
        if self.trial.retrievers is not None:
            return {name: make() for name, make in self.trial.retrievers.items()}
        settings, file = self.trial.patches, self.cache / "patches.pt"
        if not file.is_file():
            say("learning the features of patches")
            drawn = np.random.default_rng(0).permutation(len(train))[: settings.fitted]
            fit_patches(_decoded([train[row] for row in drawn], settings.size_px), settings).save(file)
        return {"mini": load_encoder("mini", threads=1), "patches": PatchEncoder.open(file)}

    def _weaken(self, kept: int) -> None:
        """Add the features of a retriever that keeps the leading numbers of `mini`'s retrieval embedding."""
        for test, arrays in self.tests.items():
            weak = normalize(arrays.retrieval["mini"][:, :kept].float(), dim=-1).half()
            self.tests[test] = dataclasses.replace(arrays, retrieval={**arrays.retrieval, f"mini{kept}": weak})

    def _embed_sentences(self) -> None:
        """Embed the texts of the tests; the towers read them from the cache."""
        words = sorted({word for test in self.tests.values() for word in test.classes})
        texts = [text for test in self.tests.values() for text in test.captions]
        texts += [template.format(word) for word in words for template in templates_of("ensemble")]
        SentenceCache(self.cache).embed(list(dict.fromkeys([*texts, *map(a_or_an, words)])))

    def _fitting(self, train: TestSet) -> tuple[Tensor, list[str]]:
        """Return the rows of the first images of each class, and their texts."""
        labels = train.labels.numpy()
        rows = np.concatenate([np.flatnonzero(labels == number)[:SHOTS] for number in np.unique(labels)])
        return torch.from_numpy(rows), [a_or_an(train.classes[number]) for number in labels[rows]]

    def data_of(self, run: Run, config: TrainConfig) -> PretrainData:
        """Split the images of a run and search their neighbours."""
        arm, out = ARMS[run.arm], self.out / run.name
        encoder = self.retrievers[arm.retriever] if config.reference.retrieval == "backbone" else None
        made = result_of(prepare(config, encoder, data=self.data, out=out, failures=Failures()))
        made = weakened(made, arm.kept, config, out / "weak") if arm.kept else made
        made = share_of(made, run.share, config.seed)
        return with_all_references(made, config, out / "all") if arm.all_references else made

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
        """Return what makes the input of an arm's image tower from a test."""

        def make(test: TestSet) -> Tensor:
            features = test.retrieval[arm.features]
            if arm.control in ("linear", "head"):
                return scaled(features)
            return joined(test.pixels, features) if arm.control else test.pixels

        return make


def _decoded(items: Sequence[ListedImage], size_px: int) -> Iterator[Tensor]:
    for first in range(0, len(items), 64):
        yield pixels_of([load_image(item.pair.image)[0] for item in items[first : first + 64]], size_px)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
