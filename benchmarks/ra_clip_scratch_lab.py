"""Load the inputs that all runs of `benchmarks/ra_clip_scratch.py` share: arrays, retrievers, sentences, tests."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from impart.train.prepare.embeddings import EmbeddingStore
from impart.train.prepare.pairs import Failures, ListedImage, list_images
from impart.train.pretrain.prepare import PretrainData, prepare
from impart.train.settings import TrainConfig
from ra_clip import CLASS_SETS, SHOTS, Copies
from ra_clip_scratch_model import Arrays, both, retrieved_by, scaled, share_of, with_all_references
from ra_clip_scratch_model import without_retriever as by_tower
from ra_clip_scratch_plan import ARMS, EVERY, SIZE_PX, TESTS, VIEW_PX, WEAK, WIDTHS, Arm, Run
from ra_clip_scratch_retriever import PatchEncoder, PatchSettings, fit_patches, pixels_of
from ra_clip_scratch_tests import TestSet, make_tests

__all__ = ["Lab", "Trial", "say"]


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
            self.data, cache, trial.tests, self.retrievers, size_px=trial.size_px, most=trial.most, note=say
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
            say("learning the features of patches")
            drawn = np.random.default_rng(0).permutation(len(train))[: settings.fitted]
            fit_patches(_decoded([train[row] for row in drawn], settings.size_px), settings).save(file)
        return {"mini": load_encoder("mini", threads=1), "patches": PatchEncoder.open(file)}

    def _array(self, name: str, size_px: int) -> np.ndarray:
        file = self.cache / f"{name}-{size_px}-{len(self.items)}.npy"
        if not file.is_file():
            say(f"decoding {len(self.items)} images at {size_px} px")
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


def _decoded(items: Sequence[ListedImage], size_px: int) -> Iterator[Tensor]:
    for first in range(0, len(items), 64):
        yield pixels_of([load_image(item.pair.image)[0] for item in items[first : first + 64]], size_px)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
