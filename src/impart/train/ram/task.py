"""RAM on a frozen encoder: its embeddings and neighbours are precomputed, RAM alone learns.

Letters: B pairs in a batch, K neighbours, D embedding width, R retrieval width, N references.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impart.blending.ram import Retrieved, build_ram
from impart.retrieval.near_duplicates import SAME_IMAGE
from impart.train.losses import contrastive_loss
from impart.train.prepare.retrieved import ZNormTensors, gather, replace_at_random, shows_itself
from impart.train.ram.prepare import EmbeddedRows, RamData
from impart.train.settings import TrainConfig
from impart.train.task import Temperature, TrainingTask, recall

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["PROJECTIONS", "Projection", "RamTask"]

PROJECTIONS = ("image_projection", "text_projection")
"""Names of the projections in checkpoints and in `optimiser.rates`."""


class Projection(nn.Module):
    """Matrix on unit embeddings that starts as the identity: (..., D) to (..., D), L2-normalised."""

    def __init__(self, dim: int):
        super().__init__()
        self.change = nn.Linear(dim, dim, bias=False)
        nn.init.zeros_(self.change.weight)

    def forward(self, embeddings: Tensor) -> Tensor:
        return F.normalize(embeddings + self.change(embeddings), dim=-1)

    @property
    def matrix(self) -> npt.NDArray[np.float32]:
        """(D, D)."""
        change: npt.NDArray[np.float32] = self.change.weight.detach().cpu().numpy().astype(np.float32)
        return np.eye(len(change), dtype=np.float32) + change


class RamTask(TrainingTask):
    """Train RAM on frozen embeddings with a contrastive loss on v'; optionally projections of the embeddings too."""

    def __init__(self, data: RamData, config: TrainConfig):
        self._data, self._config = data, config
        dim, width = data.references.manifest.dim, data.references.manifest.retrieval_dim
        torch.manual_seed(config.seed)
        self.ram = build_ram(config.ram, dim=dim, retrieval_dim=width)
        self.temperature = Temperature(config.loss.init_scale, config.loss.max_scale)
        self.projections = (Projection(dim), Projection(dim)) if config.projections.learn else None
        self._called: dict[str, nn.Module] = self.modules()
        self.validated = f"{len(data.validation)} images"
        self._batch = min(config.loop.batch, len(data.train))
        self.pairs_per_step = self._batch * config.loop.accumulate
        self.steps_per_epoch = max(1, len(data.train) // self.pairs_per_step)

    def modules(self) -> dict[str, nn.Module]:
        learned: dict[str, nn.Module] = {"ram": self.ram, "temperature": self.temperature}
        if self.projections is not None:
            learned |= dict(zip(PROJECTIONS, self.projections, strict=True))
        return learned

    def prepare(self, accelerator: Accelerator, modules: dict[str, nn.Module]) -> None:
        self._called = modules
        device, references = accelerator.device, self._data.references
        self._device = device
        self._image = torch.as_tensor(references.image_embeddings, device=device)  # (N, D)
        self._text = torch.as_tensor(references.text_embeddings, device=device)
        self._retrieval = torch.as_tensor(references.retrieval_embeddings, device=device)  # (N, R)
        self._znorm = ZNormTensors.on(references.znorm, device)

    def batches(self, *, seed: int, epoch: int, position: int) -> Iterator[tuple[npt.NDArray[np.int64], int]]:
        """Yield (rows of training images, seed of the draws): slices of the epoch's permutation."""
        order = np.random.default_rng((seed, epoch)).permutation(len(self._data.train))
        accumulate = self._config.loop.accumulate
        for step in range(position, self.steps_per_epoch):
            for part in range(accumulate):
                number = step * accumulate + part
                rows = order[np.arange(number * self._batch, (number + 1) * self._batch) % len(order)]
                yield rows, int(np.random.SeedSequence((seed, epoch, number)).generate_state(1)[0])

    def training_step(self, batch: tuple[npt.NDArray[np.int64], int], accelerator: Accelerator) -> dict[str, Tensor]:
        rows, seed = batch
        rng = np.random.default_rng(seed)
        data, loss_settings = self._data, self._config.loss
        spans = data.train.spans[rows]
        chosen = data.train.texts[spans[:, 0] + rng.integers(spans[:, 1])]  # (B,)
        found = self._retrieved(data.train, rows, rng, random=self._config.reference.random)
        frozen = F.normalize(self._tensor(data.text[chosen]), dim=-1)  # (B, D)
        keys = torch.as_tensor(data.keys[chosen], device=self._device)
        with accelerator.autocast():
            found, t = self._projected(found, frozen)
            v = F.normalize(found.v + self._called["ram"](found).added, dim=-1)
            scale = self._called["temperature"]()
            ignore = frozen @ frozen.T > loss_settings.near_text if loss_settings.near_text < 1 else None
            logits = (scale * v @ t.T).float()
            loss = contrastive_loss(logits, keys, ignore=ignore, smoothing=loss_settings.smoothing)
        accelerator.backward(loss)
        return {"loss": loss.detach(), "scale": scale.detach()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Measure text-to-image and image-to-text recall with RAM, and of the base embeddings (`base_*`)."""
        data = self._data
        if not len(data.validation):
            return {}
        spans = data.validation.spans
        owners = torch.as_tensor(np.repeat(np.arange(len(spans)), spans[:, 1]), device=self._device)
        t = F.normalize(self._tensor(data.text[data.validation.texts]), dim=-1)  # (T, D)
        self.ram.eval()
        found = self._retrieved(data.validation, np.arange(len(spans)), np.random.default_rng(0), random=0.0)
        base = {f"base_{name}": value for name, value in recall(t @ found.v.T, owners).items()}
        found, t = self._projected(found, t)
        v = F.normalize(found.v + self.ram(found).added, dim=-1)
        self.ram.train()
        return recall(t @ v.T, owners) | base

    def _projected(self, found: Retrieved, texts: Tensor) -> tuple[Retrieved, Tensor]:
        """Project the embeddings of the images, their neighbours and the texts (B, D), where projections learn."""
        if self.projections is None:
            return found, texts
        image, text = (self._called[name] for name in PROJECTIONS)
        projected = dataclasses.replace(found, v=image(found.v), r_img=image(found.r_img), r_txt=text(found.r_txt))
        return projected, text(texts)

    def _retrieved(
        self, images: EmbeddedRows, rows: npt.NDArray[np.int64], rng: np.random.Generator, *, random: float
    ) -> Retrieved:
        ids = torch.as_tensor(np.asarray(images.neighbours.ids[rows]), dtype=torch.int64, device=self._device)
        v = F.normalize(self._tensor(images.image[rows]), dim=-1)
        q = F.normalize(self._tensor(images.retrieval[rows]), dim=-1)
        if random:
            drawn = replace_at_random(ids, len(self._image), random, rng)
            same = shows_itself(
                q, self._retrieval, drawn, near_duplicate=min(self._config.reference.near_duplicate, SAME_IMAGE)
            )
            ids = drawn.masked_fill((drawn != ids) & same, -1)
        return gather(v, q, ids, image=self._image, text=self._text, retrieval=self._retrieval, znorm=self._znorm)

    def _tensor(self, rows: npt.NDArray[Any]) -> Tensor:
        return torch.as_tensor(np.asarray(rows, dtype=np.float32), device=self._device)
