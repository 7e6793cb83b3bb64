"""Heads on frozen towers, with or without RAM: how features and sentences become embeddings.

    v  = norm(image head(x))                       x: backbone features (B, F)
    q  = norm(standardise(x) @ components)         or v, where the encoder itself retrieves
    v' = norm(v + RAM(v, q, neighbours of q))
    t  = norm(text head(s))                        s: sentence embeddings (T, D)

The references are embedded by the same heads, so they follow the heads while these learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impart.blending.ram import Ram
from impart.train.heads.corrections import ImageHead, TextHead
from impart.train.prepare.retrieved import ZNormTensors, gather

__all__ = ["EmbeddedReferences", "HeadsModel", "nearest_rows"]

_CHUNK = 1024


@dataclass(frozen=True)
class EmbeddedReferences:
    """N reference pairs as the heads see them; rows are unit vectors.

    Attributes:
        image: (N, D).
        text: (N, D).
        retrieval: (N, R).
        znorm: what random images look like to them.
    """

    image: Tensor
    text: Tensor
    retrieval: Tensor
    znorm: ZNormTensors

    def __len__(self) -> int:
        return len(self.image)


class HeadsModel(nn.Module):
    """The model of mode `heads`.

    Args:
        image: head on backbone features.
        text: head on sentence embeddings.
        components: (F, R) principal directions of the standardised features; None = the embedding itself retrieves.
        ram: v and its neighbours to what is added; None = plain CLIP.
        k: neighbours looked up.
    """

    components: Tensor | None
    ram: Ram | None

    def __init__(self, image: ImageHead, text: TextHead, *, components: Tensor | None, ram: Ram | None, k: int):
        super().__init__()
        self.image, self.text, self.ram, self.k = image, text, ram, k
        self.register_buffer("components", components)

    def embed_images(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """v (B, D) and q (B, R) of features (B, F), before augmentation."""
        v = F.normalize(self.image(features), dim=-1)
        return v, self.retrieval(features, v)

    def retrieval(self, features: Tensor, v: Tensor) -> Tensor:
        """q (B, R): no gradient passes."""
        if self.components is None:
            return v.detach()
        return F.normalize(self.image.standardise(features) @ self.components, dim=-1)

    def embed_texts(self, sentences: Tensor) -> Tensor:
        """t (T, D) of sentence embeddings (T, D)."""
        return F.normalize(self.text(sentences), dim=-1)

    @torch.no_grad()
    def embed_references(self, features: Tensor, sentences: Tensor) -> EmbeddedReferences:
        """References from features (N, F) and the sentence embeddings (N, D) of their texts."""
        image, retrieval = self.embed_images(features)
        return EmbeddedReferences(image, self.embed_texts(sentences), retrieval, ZNormTensors.of(retrieval))

    def augment(self, v: Tensor, q: Tensor, ids: Tensor, references: EmbeddedReferences) -> Tensor:
        """v' (B, D) from v (B, D), q (B, R) and neighbours (B, K), -1 = none."""
        if self.ram is None:
            return v
        found = gather(
            v,
            q,
            ids,
            image=references.image,
            text=references.text,
            retrieval=references.retrieval,
            znorm=references.znorm,
        )
        return F.normalize(v + self.ram(found).added, dim=-1)

    @torch.no_grad()
    def encode_images(
        self,
        features: Tensor,
        references: EmbeddedReferences | None = None,
        *,
        own: Tensor | None = None,
        groups: Tensor | None = None,
        k: int | None = None,
        near_duplicate: float = 2.0,
    ) -> Tensor:
        """Image embeddings (B, D), with RAM where references are given.

        Args:
            features: (B, F) of the backbone.
            references: what RAM looks at; None = v.
            own: (B,) content number of each image, to keep it from finding itself.
            groups: (N,) content number of each reference.
            k: neighbours; None = as trained.
            near_duplicate: references with a higher retrieval cosine are masked; above 1 = none.
        """
        v, q = self.embed_images(features)
        if references is None or self.ram is None:
            return v
        ids = nearest_rows(
            [q], references.retrieval, k or self.k, own=own, groups=groups, near_duplicate=near_duplicate
        )[0]
        return self.augment(v, q, ids, references)


@torch.no_grad()
def nearest_rows(
    queries: list[Tensor],
    references: Tensor,
    k: int,
    *,
    own: Tensor | None = None,
    groups: Tensor | None = None,
    near_duplicate: float = 2.0,
) -> list[Tensor]:
    """Nearest references of n images in several views, by dense products on the device.

    Args:
        queries: (n, R) unit vectors of each view; the first view decides who is a near-duplicate.
        references: (N, R) unit vectors.
        k: neighbours wanted.
        own: (n,) content number of each image; references of the same number are masked.
        groups: (N,) content number of each reference.
        near_duplicate: references with a higher cosine to the first view are masked, in all views.

    Returns:
        One (n, k) int64 a view, best first; -1 where there are fewer.
    """
    found: list[list[Tensor]] = [[] for _ in queries]
    kept = min(k, len(references))
    for first in range(0, len(queries[0]), _CHUNK):
        part = slice(first, first + _CHUNK)
        masked: Tensor | None = None
        for number, view in enumerate(queries):
            cosines = view[part] @ references.T  # (c, N)
            if masked is None:
                masked = cosines > near_duplicate
                if own is not None and groups is not None:
                    masked |= own[part, None] == groups[None]
            values, ids = cosines.masked_fill(masked, -2.0).topk(kept, dim=1)
            found[number].append(ids.masked_fill(values <= -2.0, -1))
    return [F.pad(torch.cat(parts), (0, k - kept), value=-1) for parts in found]
