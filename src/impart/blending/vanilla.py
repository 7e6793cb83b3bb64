"""RA-CLIP Vanilla: the training-free blend, and its weighted and gated form.

IMPART, eq. 1, for an image embedding v and its K nearest reference pairs:

    v' = v + (w_img / K) * sum_k r_img_k + (w_txt / K) * sum_k r_txt_k

Weighted: the mean becomes sum_k a_k r_k with a = softmax(similarity / tau). A floor drops far neighbours before the
mean or softmax; where all are dropped v stays as it is. Far and near are told by a neighbour's *z-score*: how many
standard deviations its similarity lies above what random images get (`impart.retrieval.znorm`). A ramp makes the
gate smooth: an image whose best z-score is just above the floor is blended a little, and fully from `floor + ramp` on.

A target bounds what the texts add: v is turned towards them until its cosine with them is the target, and no further.
An image that the model already sees as what its neighbours are is left as it is, and one that it does not know comes
as near to its name as known ones are, not nearer. A weight cannot do both, and fits no two encoders alike.

Tensors only: what the numbers are chosen from is the business of `tune`.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impart.blending.base import Amounts
from impart.config import VanillaSettings
from impart.encoders.base import Encoder, Float32, ImageEmbeddings
from impart.refset.refset import ReferenceSet
from impart.retrieval.nearest import Neighbours

__all__ = ["Vanilla", "gate", "mixture", "neighbour_shares", "within_target"]

_PART = 2048  # images at a time


@dataclass(frozen=True)
class Vanilla:
    """Similarities to weights."""

    settings: VanillaSettings

    @property
    def name(self) -> str:
        return "vanilla"

    @property
    def k(self) -> int:
        """Pairs it wants retrieved."""
        return self.settings.k

    @property
    def digest(self) -> str:
        """The settings: they say all."""
        return json.dumps(dataclasses.asdict(self.settings), sort_keys=True)

    def check_encoder(self, base: Encoder) -> None:
        """Any encoder will do."""

    def amounts(
        self,
        images: ImageEmbeddings,
        neighbours: Neighbours,
        z_scores: Float32,
        references: ReferenceSet,
    ) -> Amounts:
        """The sparse blend."""
        img, txt = self.coefficients(neighbours.sims, z_scores)
        if self.settings.target > 0:
            opened = gate(z_scores, floor=self.settings.floor, ramp=self.settings.ramp)
            for first in range(0, len(txt), _PART):
                part = slice(first, first + _PART)
                texts = mixture(txt[part], neighbours.ids[part], references.text_embeddings)
                left = within_target(images.embeddings[part], texts, opened[part], target=self.settings.target)
                txt[part] *= left[:, None]
        return Amounts(img, txt)

    def coefficients(self, sims: Float32, z_scores: Float32) -> tuple[Float32, Float32]:
        """Weights of the neighbours' image and text embeddings, before the target is looked at.

        Args:
            sims: (B, K) cosines, best first; -1 where there is no neighbour.
            z-score: (B, K) the same in standard deviations above random images.

        Returns:
            img (B, K) and txt (B, K), float32; each row sums to `gate * w`, or to 0 where nothing is blended.

        >>> sims = np.array([[0.9, 0.1]], np.float32)
        >>> Vanilla(VanillaSettings(k=2, w_img=0.5, w_txt=1.0)).coefficients(sims, sims)[1]
        array([[0.5, 0.5]], dtype=float32)
        """
        options = self.settings
        shares = neighbour_shares(sims, z_scores, tau=options.tau, floor=options.floor)
        shares *= gate(z_scores, floor=options.floor, ramp=options.ramp)[:, None]
        return np.float32(options.w_img) * shares, np.float32(options.w_txt) * shares


def neighbour_shares(sims: Float32, z_scores: Float32, *, tau: float, floor: float) -> Float32:
    """a: (B, K) shares that sum to 1 over the kept neighbours of an image, or all 0 where none is kept."""
    kept = sims > -1.0
    if floor > 0:
        kept &= z_scores >= floor
    shares: Float32 = kept.astype(np.float32)
    if tau > 0:
        best: Float32 = sims.max(axis=1, keepdims=True)
        shares *= np.exp((sims - best) / np.float32(tau), dtype=np.float32)
    total = shares.sum(axis=1, keepdims=True)
    shares /= np.where(total > 0, total, np.float32(1))
    return shares


def gate(z_scores: Float32, *, floor: float, ramp: float) -> Float32:
    """(B,) how much an image is blended: 0 below the floor, rising to 1 at `floor + ramp`; 1 with a floor of 0."""
    best: Float32 = z_scores.max(axis=1)
    if floor <= 0:
        return np.ones_like(best)
    if ramp <= 0:
        return (best >= floor).astype(np.float32)
    rising: Float32 = np.clip((best - np.float32(floor)) / np.float32(ramp), 0, 1).astype(np.float32, copy=False)
    return rising


def mixture(weights: Float32, ids: npt.NDArray[np.int32], vectors: Float32) -> Float32:
    """Weighted sums (B, D) of rows (B, K) of vectors (N, D); weights of absent neighbours (-1) are 0."""
    rows = np.maximum(ids, 0)
    total = np.zeros((len(rows), vectors.shape[1]), dtype=np.float32)
    for k in range(rows.shape[1]):
        if weights[:, k].any():
            total += weights[:, k, None] * vectors[rows[:, k]]
    return total


def within_target(v: Float32, texts: Float32, opened: Float32, *, target: float) -> Float32:
    """How much of the texts may be added.

    Where the gate is open, the length of t that brings v to the target is `|v_rest| target / sqrt(1 - target^2) - v.t`,
    with t of unit length and `v_rest` what of v is at right angles to it. A gate that is half open lets half of it in.

    Args:
        v: (B, D), L2-normalised.
        texts: (B, D) what would be added, already multiplied by the gate.
        opened: (B,) the gate, 0 to 1.
        target: cosine, above 0 and below 1.

    Returns:
        (B,) factors from 0 to 1.

    >>> v, t = np.array([[1, 0]], np.float32), np.array([[0, 1]], np.float32)
    >>> added = within_target(v, t, np.ones(1, np.float32), target=0.6)[:, None] * t
    >>> ((v + added) / np.linalg.norm(v + added)).round(3).tolist()
    [[0.800000011920929, 0.6000000238418579]]
    """
    length = np.linalg.norm(texts, axis=1)
    near = np.einsum("bd,bd->b", v, texts) / np.maximum(length, np.float32(1e-12))
    rest = np.sqrt(np.maximum(np.float32(1) - near * near, np.float32(0)))
    wanted = np.float32(target / np.sqrt(1 - target * target)) * rest - near
    factors: Float32 = np.clip(opened * wanted / np.maximum(length, np.float32(1e-12)), 0, 1).astype(np.float32)
    return factors
