"""Towers, RAM and temperature as one module, and the bank of reference embeddings.

They are one module, so that a wrapper (DDP, FSDP) has one forward pass per chunk. The bank is no part of it: nothing in
it is learned or sent between processes. A step reads only B K rows of it.

Letters: B pairs in a chunk, K neighbours, D embedding width, R retrieval width, W sentence width, N references,
L tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impart.blending.ram import Ram
from impart.train.prepare.retrieved import ZNormTensors, gather, shows_itself
from impart.train.pretrain.gradcache import ChunkEmbeddings
from impart.train.pretrain.towers.base import Towers
from impart.train.task import Temperature

__all__ = ["Bank", "Lookup", "PretrainModel", "ReferenceProjections"]


@dataclass(frozen=True)
class Bank:
    """Embeddings of the references as of the last refresh; float16, on the device.

    Attributes:
        image: (N, D); with learned projections (N, R), of the frozen retriever.
        text: (N, D); with learned projections (N, W), of the frozen sentence tower.
        retrieval: (N, R); equal to `image` where the image tower finds neighbours.
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
    """Precomputed part of the neighbour search of a chunk.

    Attributes:
        q: (B, R) retrieval embeddings of the frozen encoder; None = the image tower finds neighbours.
        ids: (B, K) rows of the bank, -1 = none. With q None: -2 = to be searched; other rows are random references.
        own: (B,) content numbers, to mask the image itself.
    """

    q: Tensor | None
    ids: Tensor
    own: Tensor


class ReferenceProjections(nn.Module):
    """Learned projections of frozen reference embeddings, L2-normalised.

    Args:
        image_width: R, of the retriever.
        text_width: W, of the sentence tower.
        dim: D.
    """

    def __init__(self, image_width: int, text_width: int, dim: int):
        super().__init__()
        self.image, self.text = nn.Linear(image_width, dim), nn.Linear(text_width, dim)

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Project (n, R) and (n, W): (n, D) and (n, D)."""
        made = self.image(image.float()), self.text(text.float())
        return F.normalize(made[0].float(), dim=-1), F.normalize(made[1].float(), dim=-1)


class PretrainModel(nn.Module):
    """Towers, projections, RAM and temperature: all that learns.

    Args:
        towers: image and text.
        ram: None = plain CLIP.
        references: projections of frozen reference embeddings; None = the towers embed the references.
        temperature: of the loss.
        both: whether the loss has the base embeddings as a second view.
        near_duplicate: references with a higher cosine are masked in a search with the image tower.
    """

    bank: Bank | None = None

    def __init__(
        self,
        towers: Towers,
        ram: Ram | None,
        temperature: Temperature,
        *,
        references: ReferenceProjections | None = None,
        both: bool,
        near_duplicate: float,
    ) -> None:
        super().__init__()
        self.towers, self.ram, self.temperature = towers, ram, temperature
        self.references = references
        self.both = both
        self.near_duplicate = near_duplicate

    def forward(self, pixels: Tensor, ids: Tensor, lookup: Lookup | None = None) -> ChunkEmbeddings:
        """Embed pixels (B, 3, S, S) and tokens (B, L), and augment the images."""
        v, t = self.towers(pixels, ids)
        if self.ram is None:
            return ChunkEmbeddings(v[None], t, self.temperature())
        assert lookup is not None
        augmented = self.augment(v, lookup)
        views = torch.stack([augmented, v]) if self.both else augmented[None]
        return ChunkEmbeddings(views, t, self.temperature())

    def image(self, pixels: Tensor) -> Tensor:
        """Embed pixels (B, 3, S, S): base embeddings (B, D)."""
        return self.towers.image(pixels)

    def text(self, ids: Tensor) -> Tensor:
        """Embed tokens (T, L): (T, D)."""
        return self.towers.text(ids)

    def augment(self, v: Tensor, lookup: Lookup) -> Tensor:
        """Augment unit embeddings v (B, D): v' (B, D)."""
        bank, ram = self.bank, self.ram
        assert bank is not None
        assert ram is not None
        with torch.autocast(v.device.type, enabled=False):  # bf16 is too coarse for z-scores
            v = v.float()
            q = v.detach() if lookup.q is None else F.normalize(lookup.q.float(), dim=-1)
            ids = lookup.ids if lookup.q is not None else self._search(q, lookup)
            own = bank.groups[ids.clamp(min=0)] == lookup.own[:, None]  # some may be drawn at random
            own |= shows_itself(q, bank.retrieval, ids, near_duplicate=self.near_duplicate)
            ids = ids.masked_fill(own, -1)
            image, text, retrieval = bank.image, bank.text, bank.retrieval
            if self.references is not None:  # only the rows of this chunk are projected
                rows, places = torch.unique(ids.clamp(min=0), return_inverse=True)
                image, text = self.references(image[rows], text[rows])
                retrieval, ids = retrieval[rows], places.masked_fill(ids < 0, -1)
            found = gather(v, q, ids, image=image, text=text, retrieval=retrieval, znorm=bank.znorm)
        return F.normalize(v + ram(found).added.float(), dim=-1)

    @torch.no_grad()
    def embedded_references(self) -> tuple[Tensor, Tensor]:
        """Return image and text embeddings (N, D) of the references, as RAM reads them."""
        bank = self.bank
        assert bank is not None
        if self.references is None:
            return bank.image, bank.text
        image, text = self.references(bank.image, bank.text)
        return image, text

    @torch.no_grad()
    def _search(self, q: Tensor, lookup: Lookup) -> Tensor:
        """Search the nearest references (B, K) by the image tower; the image itself and near-duplicates are masked."""
        bank = self.bank
        assert bank is not None
        k = min(lookup.ids.shape[1], len(bank.retrieval))
        sims = q @ bank.retrieval.float().T  # (B, N)
        sims.masked_fill_((sims > self.near_duplicate) | (lookup.own[:, None] == bank.groups[None]), -2.0)
        best = sims.topk(k, dim=1)
        ids = torch.full_like(lookup.ids, -1)
        ids[:, :k] = best.indices.masked_fill(best.values < -1.5, -1)
        return torch.where(lookup.ids == -2, ids, lookup.ids)
