"""Controls and parts of the data of `benchmarks/ra_clip_scratch.py`; all else is mode `pretrain` of the library.

A control puts something else in the place of the image tower: a head on the retriever's features, or the tower and such
a head together. Its input is then the features, instead of pixels or beside them.

Letters: B images, S side of the image tower's input, D embedding width, R retrieval width, n images of a part.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impart.train.events import result_of
from impart.train.prepare.pairs import ListedImage
from impart.train.pretrain.batches import Draw, ImageDataset
from impart.train.pretrain.prepare import PretrainData, PretrainImages, retrieve_by
from impart.train.pretrain.task import PretrainTask
from impart.train.pretrain.towers.base import Towers
from impart.train.pretrain.towers.build import build_towers
from impart.train.pretrain.towers.composed import ComposedTowers
from impart.train.settings import TrainConfig

__all__ = ["ControlTask", "build", "joined", "part_of", "scaled", "share_of", "weakened", "with_all_references"]


class FusedTowers(ComposedTowers):
    """Image tower plus a linear head on the retriever's features; the input is both, side by side (`joined`).

    Args:
        towers: their image and text tower are taken.
        width: R.
    """

    def __init__(self, towers: ComposedTowers, width: int):
        super().__init__(towers.image_tower, towers.text_tower, towers.preprocess, towers.dim)
        self.head = nn.Linear(width, towers.dim)

    def image(self, pixels: Tensor) -> Tensor:
        size = self.preprocess.size_px
        own = 3 * size**2
        v = super().image(pixels[:, :own].reshape(-1, 3, size, size).to(torch.uint8))
        return F.normalize(v + F.normalize(self.head(pixels[:, own:]).float(), dim=-1), dim=-1)


def build(config: TrainConfig, data: PretrainData, *, control: str = "", folder: Path) -> Towers:
    """Build the library's towers; a control replaces the image tower.

    Args:
        config: of the run.
        data: of the run; its retrieval embeddings are the input of a control.
        control: `linear`, `head` (one hidden layer), `fused` (tower and linear head), or empty.
        folder: that relative paths of the config start from.
    """
    towers = build_towers(config.pretrain, data=folder, tokenizer=None, seed=config.seed, sentences=data.sentences)
    if control:
        assert isinstance(towers, ComposedTowers)
        width, dim = data.train.queries(np.arange(1)).shape[1], towers.dim
        if control == "fused":
            return FusedTowers(towers, width)
        towers.image_tower = nn.Linear(width, dim)
        if control == "head":
            hidden = 2 * dim
            layers = (nn.Linear(width, hidden), nn.GELU(), nn.Dropout(0.1), nn.Linear(hidden, dim))
            towers.image_tower = nn.Sequential(*layers)
    return towers


@dataclass(frozen=True)
class FeatureImages(ImageDataset):
    """Images whose input is the retriever's features, instead of pixels or beside them.

    Attributes:
        features: (n, R).
        beside: whether pixels are part of the input.
    """

    features: Tensor = field(default_factory=lambda: torch.empty(0))
    beside: bool = False

    def views(self, draws: Sequence[Draw]) -> Tensor:
        features = self.features[[draw.row for draw in draws]]
        return joined(super().views(draws), features) if self.beside else scaled(features)


@dataclass(eq=False)
class ControlTask(PretrainTask):
    """Mode `pretrain` with a control in the place of the image tower.

    Args:
        control: as in `build`.
    """

    control: str = ""

    def images_of(self, items: Sequence[ListedImage], *, augmented: bool) -> ImageDataset:
        images = super().images_of(items, augmented=augmented)
        if not self.control:
            return images
        parts = (self.data.train, self.data.references, self.data.validation)
        rows = {item.pair.image_key: (part, row) for part in parts for row, item in enumerate(part.items)}
        found = [rows[item.pair.image_key] for item in items]
        features = np.concatenate([part.queries(np.array([row])) for part, row in found])
        return FeatureImages(**vars(images), features=torch.from_numpy(features), beside=self.control == "fused")


def scaled(features: Tensor) -> Tensor:
    """Scale unit vectors (B, R) so that an entry has a mean square of 1."""
    return features.float() * math.sqrt(features.shape[1])


def joined(pixels: Tensor, features: Tensor) -> Tensor:
    """Join pixels (B, 3, S, S) and features (B, R) to the input of `FusedTowers`."""
    return torch.cat([pixels.flatten(1).float(), scaled(features)], dim=1)


def part_of(part: PretrainImages, rows: npt.NDArray[np.int64]) -> PretrainImages:
    """Keep some images of a part, with their neighbours."""
    table = part.neighbours
    if table is not None:
        table = dataclasses.replace(table, ids=table.ids[rows], sims=table.sims[rows])
    stored = part.rows[rows] if part.rows is not None else None
    items = [part.items[row] for row in rows]
    return PretrainImages(items, part.groups[rows], part.retrieval, stored, table)


def share_of(data: PretrainData, share: float, seed: int) -> PretrainData:
    """Keep a share of the training images, drawn by the seed (`reference.use` is that of the references)."""
    if share >= 1:
        return data
    drawn = np.random.default_rng((seed, 7)).permutation(len(data.train))[: max(2, round(share * len(data.train)))]
    return dataclasses.replace(data, train=part_of(data.train, np.sort(drawn)))


def weakened(data: PretrainData, kept: int, config: TrainConfig, out: Path) -> PretrainData:
    """Keep the leading numbers of the retrieval embeddings, and search the neighbours with them."""
    parts = {name: _vectors(getattr(data, name))[:, :kept] for name in ("train", "references", "validation")}
    units = {name: rows / np.linalg.norm(rows, axis=1, keepdims=True) for name, rows in parts.items()}
    return result_of(retrieve_by(data, config, **units, out=out))


def with_all_references(data: PretrainData, config: TrainConfig, out: Path) -> PretrainData:
    """Take the training images as references too; an image never finds itself or a near-duplicate of itself."""
    own, more = data.references, data.train
    items = [*own.items, *(ListedImage(item.pair, item.texts[:1]) for item in more.items)]
    references = PretrainImages(items, np.concatenate([own.groups, more.groups]))
    vectors = {name: _vectors(getattr(data, name)) for name in ("train", "references", "validation")}
    vectors["references"] = np.concatenate([vectors["references"], vectors["train"]])
    whole = dataclasses.replace(data, references=references, hashes=[*data.hashes, *[""] * len(more)])
    return result_of(retrieve_by(whole, config, **vectors, out=out))


def _vectors(part: PretrainImages) -> npt.NDArray[Any]:
    return np.asarray(part.queries(np.arange(len(part))), dtype=np.float32)
