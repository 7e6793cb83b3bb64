"""Image and text tower that learn, from scratch or from weights, with RAM on held-out references or without.

Each process has `loop.batch` pairs; the loss compares those of all processes.

Letters: B pairs of one process, W processes, K neighbours, D embedding width, N references.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from impart.blending.ram import build_ram
from impart.errors import ConfigError
from impart.files import blake2b_hex
from impart.train.distributed import gather_rows, shard, whole
from impart.train.heads.towers.sentences import WIDTH as SENTENCE_WIDTH
from impart.train.prepare.pairs import Failures, ListedImage
from impart.train.prepare.retrieved import ZNormTensors
from impart.train.prepare.texts import text_key
from impart.train.pretrain.batches import Batch, ImageDataset, epoch_batches, in_order
from impart.train.pretrain.gradcache import contrastive_step
from impart.train.pretrain.model import Bank, Lookup, PretrainModel, ReferenceProjections
from impart.train.pretrain.prepare import PretrainData, PretrainImages
from impart.train.pretrain.towers.base import Towers
from impart.train.pretrain.towers.clip import ClipTowers
from impart.train.settings import LossSettings, TrainConfig
from impart.train.task import Temperature, TrainingTask, recall

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Embeddings", "PretrainTask"]

_AT_ONCE = 256  # images in one forward pass without a graph, unless pretrain.chunk is set


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of images and their texts with the current weights.

    Attributes:
        image: (m, D) unit, float32.
        text: (T, D) unit, float32; the texts of all images, one image after the other.
        owners: (T,) image of each text.
    """

    image: Tensor
    text: Tensor
    owners: Tensor


@dataclass(eq=False)
class PretrainTask(TrainingTask):
    """Train both towers, RAM and temperature with one contrastive loss.

    Args:
        data: pairs, split and neighbours.
        config: of mode `pretrain`.
        towers: to train.
        rank: of this process.
        processes: W.
        failures: receives what cannot be read during training.

    Raises:
        ConfigError: the config has a setting of another mode, or there are fewer images than processes.
    """

    data: PretrainData
    config: TrainConfig
    towers: Towers
    rank: int = 0
    processes: int = 1
    failures: Failures = field(default_factory=Failures)

    def __post_init__(self) -> None:
        config, references = self.config, self.data.references
        if config.reference.gradient:
            raise ConfigError(
                "reference.gradient belongs to mode 'heads': mode 'pretrain' embeds the references before an epoch"
            )
        self.validated = f"{len(self.data.validation)} images"
        self.frozen = references.retrieval is not None
        ram = projections = None
        if config.reference.augment == "ram":
            width = references.retrieval.shape[1] if references.retrieval is not None else self.towers.dim
            torch.manual_seed(config.seed + 1)
            ram = build_ram(config.ram, dim=self.towers.dim, retrieval_dim=width)
            if config.reference.embeddings == "frozen":
                assert self.frozen, "frozen reference embeddings need a retriever"
                projections = ReferenceProjections(width, SENTENCE_WIDTH, self.towers.dim)
        self.model = PretrainModel(
            self.towers,
            ram,
            Temperature(self._first_scale(), config.loss.max_scale),
            references=projections,
            both=bool(ram and config.reference.base_weight),
            near_duplicate=config.reference.near_duplicate,
        )
        self._weights = (1.0, config.reference.base_weight) if self.model.both else (1.0,)
        self._called: nn.Module = self.model
        self._plain: PretrainModel | None = None
        self._batch = min(config.loop.batch, len(self.data.train) // self.processes)
        if not self._batch:
            raise ConfigError(f"{len(self.data.train)} training images are too few for {self.processes} processes")
        self.pairs_per_step = self._batch * self.processes * config.loop.accumulate
        self.steps_per_epoch = max(1, len(self.data.train) // self.pairs_per_step)
        self._device = torch.device("cpu")
        self._images = self.images_of(self.data.train.items, augmented=True)
        self._noted: set[tuple[str, str]] = set()

    def images_of(self, items: Sequence[ListedImage], *, augmented: bool) -> ImageDataset:
        """Return what reads the image tower's input; a subclass may give the tower another input than pixels.

        Args:
            items: the images.
            augmented: training views, else evaluation views.
        """
        pretrain = self.config.pretrain
        crop = pretrain.crop if augmented else 1.0
        copies = None if self.data.copies is None else self.data.copies.copies(items, cropped=crop < 1)
        return ImageDataset(
            items,
            self.towers.preprocess,
            crop=crop,
            flip=pretrain.flip and augmented,
            seed=self.config.seed,
            max_megapixels=self.config.data.max_megapixels,
            copies=copies,
        )

    def _first_scale(self) -> float:
        """Return the inverse temperature at step 0: that of the loaded weights, unless the config sets another."""
        loss, towers = self.config.loss, self.towers
        if self.config.pretrain.model.startswith("hf:") and loss.init_scale == LossSettings.init_scale:
            assert isinstance(towers, ClipTowers)
            return min(towers.scale, loss.max_scale)
        return loss.init_scale

    def modules(self) -> dict[str, nn.Module]:
        return {"model": self.model}

    def parts(self) -> dict[str, nn.Module]:
        learned: dict[str, nn.Module] = {"towers": self.towers, "temperature": self.model.temperature}
        further = {"references": self.model.references, "ram": self.model.ram}
        return learned | {name: module for name, module in further.items() if module is not None}

    def shard(self, accelerator: Accelerator) -> bool:
        if not self.config.pretrain.shard or self.processes == 1:
            return False
        layers = self.towers.layers()
        if not layers:
            raise ConfigError("pretrain.shard spreads the layers of a CLIP: leave it out with these towers")
        self._plain = copy.deepcopy(self.model) if accelerator.is_main_process else None
        shard(
            self.model,
            units=layers,
            methods=("image", "text", "augment"),
            device=accelerator.device,
        )
        return True

    def assemble(self) -> PretrainModel | None:
        """Return the trained model with whole weights, on the first process (None on others); a collective call."""
        if not (self.config.pretrain.shard and self.processes > 1):
            return self.model if self.rank == 0 else None
        weights = whole(self.model.state_dict())
        if self._plain is not None:
            self._plain.load_state_dict(weights)
            self._plain.bank = self.model.bank
        return self._plain

    def prepare(self, accelerator: Accelerator, modules: dict[str, nn.Module]) -> None:
        self._called = modules["model"]
        self._device = accelerator.device

    def start_epoch(self, epoch: int) -> None:
        """Embed the references with the current towers."""
        if self.model.ram is not None and epoch % self.config.reference.refresh == 0:
            self.refresh()

    def refresh(self, *, exact: bool = False) -> None:
        """Fill the bank of reference embeddings; every process embeds its share.

        Args:
            exact: compute in float32, as the exported encoder does.
        """
        found = self.data.references
        if self.model.references is None:
            made = self.embed(found.items, exact=exact)
            self._fill(made.image.half(), made.text.half())
        elif self.model.bank is None:
            assert self.data.sentences is not None
            texts = self.data.sentences.embed([item.texts[0] for item in found.items])
            image = torch.as_tensor(found.queries(np.arange(len(found))), device=self._device)
            self._fill(image, torch.from_numpy(texts).half().to(self._device))

    def batches(self, *, seed: int, epoch: int, position: int) -> Iterator[Batch]:  # noqa: ARG002
        """Yield the batches of this process (see `epoch_batches`)."""
        pretrain, accumulate = self.config.pretrain, self.config.loop.accumulate
        yield from epoch_batches(
            self._images,
            batch=self._batch,
            count=self.steps_per_epoch * accumulate,
            first=position * accumulate,
            epoch=epoch,
            rank=self.rank,
            processes=self.processes,
            workers=pretrain.workers,
            pin=self._device.type == "cuda",
            stream=pretrain.shuffle if pretrain.stream else 0,
        )

    def training_step(self, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        self._note_failures(batch)
        pixels = batch.pixels.to(self._device, non_blocking=True)
        ids = self.towers.tokens(batch.texts).to(self._device, non_blocking=True)
        lookup = self.lookup(self.data.train, batch.rows, batch) if self.model.ram is not None else None
        found = contrastive_step(
            self._called,
            lambda chunk: self._called(*chunk),
            _chunks(pixels, ids, lookup, size=self.config.pretrain.chunk or len(pixels)),
            torch.as_tensor(_text_keys(batch.texts), device=self._device),
            accelerator=accelerator,
            settings=self.config.loss,
            weights=self._weights,
        )
        return {"loss": found.loss, "scale": self.model.temperature().detach()}

    def lookup(self, found: PretrainImages, rows: npt.NDArray[np.int64], batch: Batch | None = None) -> Lookup:
        """Look up the neighbours of some images.

        Args:
            found: images of one part of the split.
            rows: (B,) of them.
            batch: seeds the random references that replace some neighbours; None = none are replaced.
        """
        k = self.config.ram.k
        if found.neighbours is not None:
            ids = torch.as_tensor(np.asarray(found.neighbours.ids[rows]), dtype=torch.int64)
        else:
            ids = torch.full((len(rows), k), -2)
        if batch is not None and self.config.reference.random:
            ids = self._at_random(ids, batch)
        q = torch.as_tensor(found.queries(rows)).to(self._device, non_blocking=True) if self.frozen else None
        own = torch.as_tensor(found.groups[rows], device=self._device)
        return Lookup(q, ids.to(self._device, non_blocking=True), own)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Measure recall on the validation pairs; with RAM, of the base embeddings too (`base_*`)."""
        found = self.data.validation
        if not len(found):
            return {}
        made = self.embed(found.items)
        base = recall(made.text @ made.image.T, made.owners)
        if self.model.ram is None:
            return base
        self.model.eval()
        places = np.arange(len(found))
        parts = [
            self.model.augment(made.image[part], self.lookup(found, part))
            for part in np.array_split(places, -(-len(places) // _AT_ONCE))
        ]
        self.model.train()
        augmented = recall(made.text @ torch.cat(parts).T, made.owners)
        return augmented | {f"base_{name}": value for name, value in base.items()}

    @torch.no_grad()
    def embed(self, items: Sequence[ListedImage], *, exact: bool = False) -> Embeddings:
        """Embed images and texts without augmented views; a collective call that returns all rows on every process.

        An image that can no longer be read gets the embedding of the next one, and is among the failures.

        Args:
            items: the images.
            exact: compute in float32, whatever `loop.precision` is.
        """
        texts = [text for item in items for text in item.texts]
        owners = torch.tensor([row for row, item in enumerate(items) for _ in item.texts], device=self._device)
        size = self.config.pretrain.chunk or _AT_ONCE
        images = self.images_of(items, augmented=False)
        self.model.eval()
        coarse = self.config.loop.precision == "bf16" and not exact
        with torch.autocast(self._device.type, torch.bfloat16, enabled=coarse):
            image = []
            for batch in in_order(images, self._share(len(items)), batch=size, workers=self.config.pretrain.workers):
                self._note_failures(batch)
                image.append(self.model.image(batch.pixels.to(self._device)))
            mine = [texts[row] for row in self._share(len(texts))]
            text = [
                self.model.text(self.towers.tokens(mine[first : first + size]).to(self._device))
                for first in range(0, len(mine), size)
            ]
        self.model.train()
        return Embeddings(
            gather_rows(torch.cat(image))[: len(items)], gather_rows(torch.cat(text))[: len(texts)], owners
        )

    def _note_failures(self, batch: Batch) -> None:
        """Add what could not be read to the failures, once."""
        for failure in batch.failures:
            if failure not in self._noted:
                self._noted.add(failure)
                self.failures.add(*failure)

    def state(self) -> dict[str, Any]:
        bank = self.model.bank
        kept = {"failures": [list(item) for item in self.failures.items]}
        return kept if bank is None else kept | {"image": bank.image, "text": bank.text}

    def load_state(self, state: Mapping[str, Any]) -> None:
        for path, reason in state["failures"]:
            self._noted.add((path, reason))
            if (path, reason) not in self.failures.items:
                self.failures.add(path, reason)
        if self.model.ram is not None:
            self._fill(state["image"].to(self._device), state["text"].to(self._device))

    def _fill(self, image: Tensor, text: Tensor) -> None:
        """Set the bank from (N, D) embeddings; retrieval embeddings of a frozen encoder are kept."""
        found, before = self.data.references, self.model.bank
        if self.frozen and before is not None:
            self.model.bank = Bank(image, text, before.retrieval, before.groups, before.znorm)
            return
        groups = torch.as_tensor(found.groups, device=self._device)
        retrieval = image
        if self.frozen:
            retrieval = torch.as_tensor(found.queries(np.arange(len(found))), device=self._device)
        self.model.bank = Bank(image, text, retrieval, groups, ZNormTensors.of(retrieval))

    def _share(self, count: int) -> npt.NDArray[np.int64]:
        """Return the rows of `count` that this process embeds; each has the same number, so the last row may repeat."""
        size = -(-count // self.processes)
        return np.minimum(np.arange(self.rank * size, (self.rank + 1) * size), count - 1)

    def _at_random(self, ids: Tensor, batch: Batch) -> Tensor:
        """Replace the neighbours (B, K) of a share of the rows by random references.

        Drawn for the batch of all processes together, so that the number of processes changes nothing.
        """
        rng = np.random.default_rng((self.config.seed, batch.epoch, batch.number))
        mine = slice(self.rank * len(ids), (self.rank + 1) * len(ids))
        chosen = rng.random(len(ids) * self.processes)[mine] < self.config.reference.random
        drawn = rng.integers(len(self.data.references), size=(len(ids) * self.processes, ids.shape[1]))[mine]
        return torch.where(torch.as_tensor(chosen)[:, None], torch.as_tensor(drawn), ids)


def _chunks(
    pixels: Tensor, ids: Tensor, lookup: Lookup | None, *, size: int
) -> list[tuple[Tensor, Tensor, Lookup | None]]:
    """Split a batch into chunks of at most `size` pairs."""
    made = []
    for first in range(0, len(pixels), size):
        rows = slice(first, first + size)
        part = None
        if lookup is not None:
            part = Lookup(None if lookup.q is None else lookup.q[rows], lookup.ids[rows], lookup.own[rows])
        made.append((pixels[rows], ids[rows], part))
    return made


def _text_keys(texts: Sequence[str]) -> list[int]:
    """Return numbers that are equal for texts with the same `text_key`, on every process."""
    return [int(blake2b_hex(text_key(text), size_bytes=8), 16) >> 1 for text in texts]
