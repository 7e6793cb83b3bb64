"""Towers, data and training task of `benchmarks/ra_clip_scratch.py`.

The image tower learns from nothing; texts are sentence embeddings of a frozen tower with a learned projection. Controls
put something else in the place of the image tower: a learned constant, or a head on the retriever's features.

Images are arrays that are decoded once. A training view is a random crop of 50% to 100% of the area, flipped at random.

Letters: B pairs, S side of the image tower's input, L side of the stored images, D embedding width, R retrieval width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impart.blending.ram import Ram, RamOutput, Retrieved
from impart.encoders.preprocess import PreprocessConfig
from impart.retrieval.nearest import PairIndex
from impart.train.prepare.neighbours import nearest
from impart.train.prepare.pairs import ListedImage
from impart.train.pretrain.batches import Batch
from impart.train.pretrain.prepare import PretrainData, PretrainImages
from impart.train.pretrain.task import PretrainTask
from impart.train.settings import TrainConfig

__all__ = [
    "Arrays",
    "ScratchTask",
    "ScratchTowers",
    "both",
    "build_image",
    "retrieved_by",
    "scaled",
    "share_of",
    "with_all_references",
    "without_retriever",
]

_AT_ONCE = 256
_AREA = (0.5, 1.0)
MEAN, STD = 0.45, 0.25


class Block(nn.Module):
    """Two 3 x 3 convolutions with a residual connection (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs) for _ in range(2))
        same = stride == 1 and inputs == outputs
        self.skip: nn.Module = nn.Identity()
        if not same:
            self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.skip(x) + self.norms[1](self.second(y)))


class ConvNet(nn.Module):
    """Residual network for small images: uint8 (B, 3, S, S) to (B, D)."""

    def __init__(self, dim: int, widths: Sequence[int]):
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        pairs = zip([widths[0], *widths[:-1]], widths, strict=True)
        self.blocks = nn.Sequential(*(Block(a, b, 2 if place else 1) for place, (a, b) in enumerate(pairs)))
        self.out = nn.Linear(widths[-1], dim)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        x = (x.float() / 255 - MEAN) / STD
        x = F.relu(self.norm(self.stem(x.contiguous(memory_format=torch.channels_last))))
        y: Tensor = self.out(self.blocks(x).mean((2, 3)))
        return y


class Vit(nn.Module):
    """Vision transformer of transformers' CLIP, of the sizes of ViT-S/16 by default: uint8 (B, 3, S, S) to (B, D)."""

    def __init__(self, dim: int, size_px: int, *, width: int = 384, layers: int = 12, heads: int = 6):
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        super().__init__()
        shape = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
        config = CLIPVisionConfig(
            **shape, num_attention_heads=heads, image_size=size_px, patch_size=16, projection_dim=dim
        )
        self.model = CLIPVisionModelWithProjection(config)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.model(pixel_values=(x.float() / 255 - MEAN) / STD).image_embeds
        return made


class Constant(nn.Module):
    """Learned constant in the place of an image tower."""

    def __init__(self, dim: int):
        super().__init__()
        self.value = nn.Parameter(torch.randn(dim) / dim**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.value.expand(len(x), -1)


class Fused(nn.Module):
    """Image tower plus a linear head on the retriever's features; the input is both, side by side."""

    def __init__(self, tower: ConvNet, dim: int, width: int, size_px: int):
        super().__init__()
        self.tower, self.head, self.size_px = tower, nn.Linear(width, dim), size_px

    def forward(self, x: Tensor) -> Tensor:
        pixels = 3 * self.size_px**2
        seen = self.tower(x[:, :pixels].reshape(-1, 3, self.size_px, self.size_px))
        added: Tensor = F.normalize(seen.float(), dim=-1) + F.normalize(self.head(x[:, pixels:]).float(), dim=-1)
        return added


def build_image(kind: str, *, dim: int, width: int, size_px: int, widths: Sequence[int], seed: int) -> nn.Module:
    """Build what maps the input to (B, D): `tower`, `vit`, `constant`, `linear`, `head` or `fused`.

    Args:
        kind: see above; `head` has one hidden layer.
        dim: D.
        width: R, of the retriever's features.
        size_px: S.
        widths: channels of the tower's stages.
        seed: of the initial weights.
    """
    torch.manual_seed(seed)
    if kind == "constant":
        return Constant(dim)
    if kind == "linear":
        return nn.Linear(width, dim)
    if kind == "head":
        return nn.Sequential(nn.Linear(width, 2 * dim), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * dim, dim))
    if kind == "vit":
        return Vit(dim, size_px)
    tower = ConvNet(dim, widths)
    return Fused(tower, dim, width, size_px) if kind == "fused" else tower


class ScratchTowers(nn.Module):
    """Image half that learns, and a learned projection of frozen sentence embeddings; with L2-normalised output.

    Args:
        image: maps its input to (B, D).
        sentences: embedding (W,) of each text that will be asked for.
        dim: D.
        size_px: S.
    """

    def __init__(self, image: nn.Module, sentences: Mapping[str, npt.NDArray[Any]], *, dim: int, size_px: int):
        super().__init__()
        width = len(next(iter(sentences.values())))
        self.seen, self.words, self.dim = image, nn.Linear(width, dim), dim
        self.sentences = sentences
        self.preprocess = PreprocessConfig(size_px=size_px)
        self.scale = 1 / 0.07

    def image(self, inputs: Tensor) -> Tensor:
        """Embed the input of B images: (B, D)."""
        return F.normalize(self.seen(inputs).float(), dim=-1)

    def text(self, ids: Tensor) -> Tensor:
        """Embed sentence embeddings (T, W): (T, D)."""
        return F.normalize(self.words(ids).float(), dim=-1)

    def forward(self, inputs: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Embed both."""
        return self.image(inputs), self.text(ids)

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Return the sentence embeddings (T, W) of texts."""
        return torch.from_numpy(np.stack([self.sentences[text] for text in texts]).astype(np.float32))


class FrozenReferences(Ram):
    """RAM whose reference embeddings are frozen features with learned projections.

    Args:
        ram: blends the projected embeddings.
        dim: D, also the width of the frozen features.
    """

    def __init__(self, ram: Ram, dim: int):
        super().__init__()
        self.settings = ram.settings
        self.ram, self.shown, self.named = ram, nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, found: Retrieved) -> RamOutput:
        r_img, r_txt = self.shown(found.r_img).float(), self.named(found.r_txt).float()
        made: RamOutput = self.ram(
            dataclasses.replace(found, r_img=F.normalize(r_img, dim=-1), r_txt=F.normalize(r_txt, dim=-1))
        )
        return made


@dataclass(frozen=True)
class Arrays:
    """Images as arrays, by place of the file.

    Attributes:
        rows: row of each place.
        views: (N, 3, L, L) uint8, cropped at random for training; may be memory-mapped.
        clean: (N, 3, S, S) uint8.
        features: (N, R) of the retriever.
    """

    rows: Mapping[str, int]
    views: npt.NDArray[np.uint8]
    clean: npt.NDArray[np.uint8]
    features: Tensor

    def of(self, items: Sequence[ListedImage]) -> npt.NDArray[np.int64]:
        """Return the rows of images."""
        return np.array([self.rows[item.pair.image_key] for item in items], dtype=np.int64)


class ScratchTask(PretrainTask):
    """Contrastive training on arrays; everything else is the task of mode `pretrain`.

    Args:
        data: pairs, split and neighbours.
        config: of mode `pretrain`.
        towers: to train.
        arrays: the images.
        kind: of the image half (`build_image`).
        frozen_references: reference embeddings are the retriever's features and the sentence embeddings.
    """

    def __init__(
        self,
        data: PretrainData,
        config: TrainConfig,
        towers: ScratchTowers,
        *,
        arrays: Arrays,
        kind: str,
        frozen_references: bool,
    ):
        self.arrays, self.kind, self.frozen_references = arrays, kind, frozen_references
        self._rows = arrays.of(data.train.items)
        super().__init__(data, config, towers)  # type: ignore[arg-type]
        if frozen_references and self.model.ram is not None:
            torch.manual_seed(config.seed + 2)
            self.model.ram = FrozenReferences(self.model.ram, towers.dim)

    def inputs(self, rows: npt.NDArray[np.int64], draw: torch.Generator | None = None) -> Tensor:
        """Return the input of images, cropped at random with `draw`."""
        if self.kind in ("linear", "head", "constant"):
            return scaled(self.arrays.features[rows])
        if draw is None:
            pixels = torch.from_numpy(self.arrays.clean[rows])
        else:
            pixels = crops(torch.from_numpy(self.arrays.views[rows]), self.arrays.clean.shape[-1], draw)
        return both(pixels, self.arrays.features[rows]) if self.kind == "fused" else pixels

    def batches(self, *, seed: int, epoch: int, position: int) -> Iterator[Batch]:
        order = np.random.default_rng((seed, epoch)).permutation(len(self._rows))
        for number in range(position, self.steps_per_epoch):
            chosen = order[number * self._batch : (number + 1) * self._batch]
            rng = np.random.default_rng((seed, epoch, number))
            draw = torch.Generator().manual_seed(int(rng.integers(2**31)))
            texts = [self.data.train.items[row].texts for row in chosen]
            picked = [own[int(rng.integers(len(own)))] for own in texts]
            yield Batch(chosen, self.inputs(self._rows[chosen], draw), picked, epoch, number)

    @torch.no_grad()
    def embedded(self, items: Sequence[ListedImage]) -> tuple[Tensor, Tensor]:
        """Embed images and the first text of each with the current weights: (m, D), (m, D)."""
        rows, device = self.arrays.of(items), self._device
        if self.frozen_references:
            features = self.arrays.features[rows]
            padded = F.pad(features, (0, self.towers.dim - features.shape[1]))
            return padded.to(device), self.towers.tokens([item.texts[0] for item in items]).to(device)
        self.model.eval()
        parts = [slice(first, first + _AT_ONCE) for first in range(0, len(rows), _AT_ONCE)]
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.loop.precision == "bf16"):
            image = torch.cat([self.model.image(self.inputs(rows[part]).to(device)) for part in parts])
            words = [self.towers.tokens([item.texts[0] for item in items[part]]) for part in parts]
            text = torch.cat([self.model.text(part.to(device)) for part in words])
        self.model.train()
        return image.float(), text.float()

    def refresh(self, *, exact: bool = False) -> None:  # noqa: ARG002
        image, text = self.embedded(self.data.references.items)
        self._fill(image.half(), text.half())

    def settle(self) -> None:
        """Move the trained model to the CPU, and embed the references with the final weights."""
        self.model.cpu()
        self._device, self.model.bank = torch.device("cpu"), None
        if self.model.ram is not None:
            self.refresh()

    def validate(self) -> dict[str, float]:
        return {}


def scaled(features: Tensor) -> Tensor:
    """Scale unit vectors (B, R) so that an entry has a mean square of 1."""
    return features.float() * math.sqrt(features.shape[1])


def both(pixels: Tensor, features: Tensor) -> Tensor:
    """Join pixels (B, 3, S, S) and features (B, R) to the input of `Fused`."""
    return torch.cat([pixels.flatten(1).float(), scaled(features)], dim=1)


def crops(pixels: Tensor, size_px: int, draw: torch.Generator) -> Tensor:
    """Cut a random square out of each of the images (B, 3, L, L), flipped at random: (B, 3, S, S) uint8."""
    count = len(pixels)
    side = (_AREA[0] + (_AREA[1] - _AREA[0]) * torch.rand(count, generator=draw)).sqrt()
    x, y = ((1 - side) * (2 * torch.rand(count, generator=draw) - 1) for _ in range(2))
    flip = 1 - 2.0 * torch.randint(2, (count,), generator=draw)
    zero = torch.zeros(count)
    grid = torch.stack([side * flip, zero, x, zero, side, y], dim=1).view(-1, 2, 3)
    where = F.affine_grid(grid, [count, 3, size_px, size_px], align_corners=False)
    cut: Tensor = F.grid_sample(pixels.float(), where, align_corners=False, padding_mode="border")
    rounded: Tensor = cut.round().to(torch.uint8)
    return rounded


def share_of(data: PretrainData, share: float, config: TrainConfig) -> PretrainData:
    """Keep a share of the training images, and of the references for RAM, drawn by the seed."""
    if share >= 1:
        return data
    train, references = (
        np.sort(np.random.default_rng((config.seed, 7)).permutation(len(part))[: max(2, round(share * len(part)))])
        for part in (data.train, data.references)
    )
    few = _only(data.references, references)
    return PretrainData(
        _with_neighbours(_only(data.train, train), few, config),
        few,
        _with_neighbours(data.validation, few, config),
        [data.hashes[row] for row in references],
    )


def retrieved_by(data: PretrainData, arrays: Arrays, config: TrainConfig) -> PretrainData:
    """Take other retrieval embeddings (`arrays.features`), and search the neighbours with them."""
    features = arrays.features.half().numpy()
    train, references, validation = (
        dataclasses.replace(part, retrieval=features, rows=arrays.of(part.items))
        for part in (data.train, data.references, data.validation)
    )
    train, validation = (_with_neighbours(part, references, config) for part in (train, validation))
    return PretrainData(train, references, validation, data.hashes)


def with_all_references(data: PretrainData, config: TrainConfig) -> PretrainData:
    """Take the training images as references too; an image never finds itself or a near-duplicate of itself."""
    own, more = data.references, data.train
    assert own.rows is not None
    assert more.rows is not None
    items = [ListedImage(item.pair, item.texts[:1]) for item in more.items]
    references = PretrainImages(
        [*own.items, *items],
        np.concatenate([own.groups, more.groups]),
        own.retrieval,
        np.concatenate([own.rows, more.rows]),
    )
    train, validation = (_with_neighbours(part, references, config) for part in (data.train, data.validation))
    return PretrainData(train, references, validation, [*data.hashes, *[""] * len(items)])


def _only(part: PretrainImages, rows: npt.NDArray[np.int64]) -> PretrainImages:
    assert part.rows is not None
    return PretrainImages([part.items[row] for row in rows], part.groups[rows], part.retrieval, part.rows[rows])


def _with_neighbours(part: PretrainImages, references: PretrainImages, config: TrainConfig) -> PretrainImages:
    vectors = [np.asarray(images.queries(np.arange(len(images))), dtype=np.float32) for images in (part, references)]
    table = nearest(
        PairIndex(vectors[1], kind="exact"),
        vectors[0],
        config.ram.k,
        groups=references.groups,
        own=part.groups,
        near_duplicate=config.reference.near_duplicate,
    )
    return dataclasses.replace(part, neighbours=table)


def without_retriever(data: PretrainData) -> PretrainData:
    """Remove the retriever's embeddings, so that the image tower finds neighbours."""
    parts = [
        dataclasses.replace(part, retrieval=None, rows=None, neighbours=None)
        for part in (data.train, data.references, data.validation)
    ]
    return PretrainData(parts[0], parts[1], parts[2], data.hashes)
