"""Heads on frozen towers, with or without RAM: features and sentences to embeddings.

    v  = norm(image head(x))                       x: backbone features (B, F)
    q  = norm(standardise(x) @ components)         or v, if the encoder itself retrieves
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
from impart.train.heads.corpus import SMALL_VIEW, Corpus
from impart.train.heads.heads import CellAttention, Correction, Heads, ImageHead, TextHead
from impart.train.heads.towers.backbone import CELL_WIDTH, CELLS, FEATURES, EfficientNetLite
from impart.train.prepare.retrieved import ZNormTensors, gather
from impart.train.settings import TrainConfig

__all__ = ["EmbeddedReferences", "HeadsModel", "build_image_head", "nearest_rows", "principal_components"]

_CHUNK = 1024


def build_image_head(corpus: Corpus, backbone: EfficientNetLite, names: Tensor, config: TrainConfig) -> ImageHead:
    """Build the frozen base of the image head; its correction and attention are untrained.

    Args:
        corpus: its clean view gives the standardisation, its first `small` view the calibration.
        backbone: its classifier is used.
        names: (C, D) sentence embeddings of the class names, L2-normalised.
        config: `heads` and `backbone` are read.
    """
    clean = corpus.views[0]
    pooled = clean[:, :FEATURES].float()
    cells = clean[: 2**13, FEATURES:].float().reshape(-1, CELLS, CELL_WIDTH)  # (n, Z, W)
    head = ImageHead(
        backbone.classifier,
        names,
        pooled.mean(0),
        pooled.std(0) + 1e-6,
        top=config.heads.top,
        temperature=config.heads.temperature,
        correction=Correction(FEATURES, 1, names.shape[1]),
        attention=CellAttention(
            cells.mean((0, 1)), cells.std((0, 1)) + 1e-6, cells=CELLS, heads=1, hidden=1, outputs=names.shape[1]
        ),
    ).to(clean.device)
    if SMALL_VIEW in corpus.kinds_of_view:
        small = corpus.views[corpus.kinds_of_view.index(SMALL_VIEW)][:, :FEATURES].float()
        head.calibrate(pooled, small, strength=config.backbone.calibration)
    return head


def principal_components(features: Tensor, width: int) -> Tensor:
    """Compute the directions (F, R) of largest variance of standardised features (n, F), largest first.

    Without whitening. Whitening away the directions that change when an image is shrunk finds three images per name a
    little better (53.3 instead of 51.2 of 100 held-out nouns, shrunk), but unrelated images come nearer too: with the
    same gate, three images per class of Caltech-101 then cost CIFAR-100 2.2 points instead of 0.3.
    """
    scatter = features.double().cpu().T @ features.double().cpu()  # (F, F)
    vectors: Tensor = torch.linalg.eigh(scatter).eigenvectors
    return vectors[:, -width:].flip(1).float().contiguous().to(features.device)


@dataclass(frozen=True)
class EmbeddedReferences:
    """N reference pairs, embedded by the heads; rows are unit vectors.

    Attributes:
        image: (N, D).
        text: (N, D).
        retrieval: (N, R).
        znorm: statistics of the background set, for z-scores.
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
        ram: computes the blend from v and its neighbours; None = plain CLIP.
        k: neighbours per image.
    """

    components: Tensor | None
    ram: Ram | None

    def __init__(self, image: ImageHead, text: TextHead, *, components: Tensor | None, ram: Ram | None, k: int):
        super().__init__()
        self.image, self.text, self.ram, self.k = image, text, ram, k
        self.register_buffer("components", components)

    @property
    def heads(self) -> Heads:
        """The heads of both towers."""
        return Heads(self.image.correction, self.text.correction, self.image.attention)

    def embed_images(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Compute v (B, D) and q (B, R) of features (B, F), before augmentation."""
        v = F.normalize(self.image(features), dim=-1)
        return v, self.retrieval(features, v)

    def retrieval(self, features: Tensor, v: Tensor) -> Tensor:
        """Compute q (B, R), without a gradient."""
        if self.components is None:
            return v.detach()
        return F.normalize(self.image.standardise(features) @ self.components, dim=-1)

    def embed_texts(self, sentences: Tensor) -> Tensor:
        """Compute t (T, D) of sentence embeddings (T, D)."""
        return F.normalize(self.text(sentences), dim=-1)

    @torch.no_grad()
    def embed_references(self, features: Tensor, sentences: Tensor) -> EmbeddedReferences:
        """Embed references from features (N, F) and the sentence embeddings (N, D) of their texts."""
        image, retrieval = self.embed_images(features)
        return EmbeddedReferences(image, self.embed_texts(sentences), retrieval, ZNormTensors.of(retrieval))

    def augment(self, v: Tensor, q: Tensor, ids: Tensor, references: EmbeddedReferences) -> Tensor:
        """Compute v' (B, D) from v (B, D), q (B, R) and neighbours (B, K), -1 = none."""
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
        """Compute image embeddings (B, D), with RAM if references are given.

        Args:
            features: (B, F) of the backbone.
            references: searched for neighbours; None = v.
            own: (B,) content number of each image; references of the same number are masked.
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
    """Search the nearest references of n images in several views, by dense products on the device.

    Args:
        queries: (n, R) unit vectors of each view; near-duplicates are found in the first view.
        references: (N, R) unit vectors.
        k: neighbours wanted.
        own: (n,) content number of each image; references of the same number are masked.
        groups: (N,) content number of each reference.
        near_duplicate: references with a higher cosine to the first view are masked, in all views.

    Returns:
        Per view (n, k) int64, best first; -1 if there are fewer.
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
