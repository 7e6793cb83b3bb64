"""Towers, RAM and temperature as one module, and the bank of reference embeddings that they read.

One module, so that a wrapper (DDP, shards) sees one forward pass a chunk. The bank is no part of it: nothing
in it is learned or sent between processes. A step reads B K rows of it, which costs next to nothing.

Letters: B pairs in a chunk, K neighbours, D embedding width, R retrieval width, N references, L tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impart.blending.ram import Ram
from impart.train.prepare.retrieved import ZNormTensors, gather, shows_itself
from impart.train.pretrain.gradcache import ChunkEmbeddings
from impart.train.pretrain.towers import Towers
from impart.train.task import Temperature

__all__ = ["Bank", "PretrainModel", "Lookup"]


@dataclass(frozen=True)
class Bank:
    """The references as the towers saw them when the bank was last made; float16, on the device.

    Attributes:
        image: (N, D).
        text: (N, D).
        retrieval: (N, R); the same as `image` where the image tower itself finds neighbours.
        groups: (N,) int64 content numbers.
        znorm: of `retrieval`.
    """

    image: Tensor
    text: Tensor
    retrieval: Tensor
    groups: Tensor
    znorm: ZNormTensors


@dataclass(frozen=True)
class Lookup:
    """What is known of a chunk's neighbours before the forward pass.

    Attributes:
        q: (B, R) retrieval embeddings of the frozen encoder; None = the image tower finds neighbours.
        ids: (B, K) rows of the bank, -1 = none; with q None, random ones stand here where asked for, and -2 elsewhere.
        own: (B,) content numbers, for the search in the forward pass.
    """

    q: Tensor | None
    ids: Tensor
    own: Tensor


class PretrainModel(nn.Module):
    """Everything that learns.

    Args:
        towers: image and text.
        ram: None = plain CLIP.
        temperature: of the loss.
        both: whether the base embeddings are a second view for the loss.
        near_duplicate: references with a higher cosine are masked in a search with the image tower.
    """

    bank: Bank | None = None

    def __init__(
        self, towers: Towers, ram: Ram | None, temperature: Temperature, *, both: bool, near_duplicate: float
    ) -> None:
        super().__init__()
        self.towers, self.ram, self.temperature = towers, ram, temperature
        self.both = both
        self.near_duplicate = near_duplicate

    def forward(self, pixels: Tensor, ids: Tensor, lookup: Lookup | None = None) -> ChunkEmbeddings:
        """Pixels (B, 3, S, S), tokens (B, L) and neighbours to what the loss reads."""
        v, t = self.towers(pixels, ids)
        if self.ram is None:
            return ChunkEmbeddings(v[None], t, self.temperature())
        assert lookup is not None
        augmented = self.augment(v, lookup)
        views = torch.stack([augmented, v]) if self.both else augmented[None]
        return ChunkEmbeddings(views, t, self.temperature())

    def image(self, pixels: Tensor) -> Tensor:
        """Base embeddings (B, D) of pixels (B, 3, S, S)."""
        return self.towers.image(pixels)

    def text(self, ids: Tensor) -> Tensor:
        """Embeddings (T, D) of tokens (T, L)."""
        return self.towers.text(ids)

    def augment(self, v: Tensor, lookup: Lookup) -> Tensor:
        """v' (B, D) of unit embeddings v (B, D)."""
        bank, ram = self.bank, self.ram
        assert bank is not None
        assert ram is not None
        with torch.autocast(v.device.type, enabled=False):  # z-score needs more digits than bf16 has
            v = v.float()
            q = v.detach() if lookup.q is None else F.normalize(lookup.q.float(), dim=-1)
            ids = lookup.ids if lookup.q is not None else self._search(q, lookup)
            own = bank.groups[ids.clamp(min=0)] == lookup.own[:, None]  # some may be drawn at random
            own |= shows_itself(q, bank.retrieval, ids, near_duplicate=self.near_duplicate)
            ids = ids.masked_fill(own, -1)
            found = gather(v, q, ids, image=bank.image, text=bank.text, retrieval=bank.retrieval, znorm=bank.znorm)
        return F.normalize(v + ram(found).added.float(), dim=-1)

    @torch.no_grad()
    def _search(self, q: Tensor, lookup: Lookup) -> Tensor:
        """(B, K) nearest references by the image tower, the image itself and its near-duplicates masked."""
        bank = self.bank
        assert bank is not None
        k = min(lookup.ids.shape[1], len(bank.retrieval))
        sims = q @ bank.retrieval.float().T  # (B, N)
        sims.masked_fill_((sims > self.near_duplicate) | (lookup.own[:, None] == bank.groups[None]), -2.0)
        best = sims.topk(k, dim=1)
        ids = torch.full_like(lookup.ids, -1)
        ids[:, :k] = best.indices.masked_fill(best.values < -1.5, -1)
        return torch.where(lookup.ids == -2, ids, lookup.ids)
