"""Blend: weights of the references that are added to an image embedding. Blender: interface that computes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from impart.config import RamSettings, SolvedSettings, VanillaSettings
from impart.encoders.base import Encoder, Float32, ImageEmbeddings
from impart.refset.refset import ReferenceSet
from impart.retrieval.nearest import Neighbours

__all__ = ["Amounts", "Blender", "Blend"]


@dataclass(frozen=True)
class Blend:
    """Blend of B images: weights of their neighbours, and the norm of the sum.

    Sparse: v' = (v + sum img*r_img + sum txt*r_txt) / norm. Dense, where `added` is given: v' = (v + added) / norm, and
    `img` and `txt` serve only as an explanation.

    Attributes:
        ids: (B, K) int32 rows of the reference set; -1 = none.
        img: (B, K) float32 weights of the rows' image embeddings; 0 where nothing is added.
        txt: (B, K) float32 weights of the rows' text embeddings; of solved references, signed contributions.
        norm: (B,) float32 length of the sum, so that v' is a unit vector.
        added: (B, D) float32 or float16, or None.
    """

    ids: npt.NDArray[np.int32]
    img: Float32
    txt: Float32
    norm: Float32
    added: npt.NDArray[Any] | None = None

    def __post_init__(self) -> None:
        assert self.ids.shape == self.img.shape == self.txt.shape, (self.ids.shape, self.img.shape, self.txt.shape)
        assert self.norm.shape == self.ids.shape[:1], (self.norm.shape, self.ids.shape)
        assert self.added is None or len(self.added) == len(self.ids), (len(self.ids),)

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def joined(cls, blends: Sequence[Blend]) -> Blend:
        """Join the blends of consecutive images of one set; one at least."""
        if len(blends) == 1:
            return blends[0]
        ids, img, txt, norm = (
            np.concatenate([getattr(blend, name) for blend in blends]) for name in ("ids", "img", "txt", "norm")
        )
        added = None if blends[0].added is None else np.concatenate([blend.added for blend in blends])
        return cls(ids, img, txt, norm, added)

    def __getitem__(self, rows: slice | npt.NDArray[np.int64]) -> Blend:
        """Select the blends of some images."""
        added = None if self.added is None else self.added[rows]
        return Blend(self.ids[rows], self.img[rows], self.txt[rows], self.norm[rows], added)


@dataclass(frozen=True)
class Amounts:
    """Blend without `norm`; the fields are those of `Blend`. Without `ids`, the rows are the neighbours."""

    img: Float32
    txt: Float32
    added: Float32 | None = None
    ids: npt.NDArray[np.int32] | None = None


class Blender(Protocol):
    """Interface of a blender: `Vanilla`, `Solved`, or a trained RAM (`impart.blending.ram_onnx`)."""

    @property
    def name(self) -> str:
        """Kind of blender, as in manifests."""
        ...

    @property
    def settings(self) -> VanillaSettings | SolvedSettings | RamSettings: ...

    @property
    def k(self) -> int:
        """K, pairs to retrieve per image."""
        ...

    @property
    def digest(self) -> str:
        """Digest of settings and weights; blenders with equal digests give equal blends."""
        ...

    def check_encoder(self, base: Encoder) -> None:
        """Check the base encoder.

        Raises:
            EncoderMismatchError: the blender was trained with another encoder.
        """
        ...

    def amounts(
        self, images: ImageEmbeddings, neighbours: Neighbours, z_scores: Float32, references: ReferenceSet
    ) -> Amounts:
        """Compute the weights of the neighbours of B images.

        Args:
            images: embeddings (B, D) and retrieval embeddings (B, R).
            neighbours: `k` per image.
            z_scores: (B, K) z-scores of their similarities (`impart.retrieval.znorm`).
            references: the set that the neighbours are rows of.
        """
        ...
