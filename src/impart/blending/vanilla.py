"""RA-CLIP Vanilla: the training-free blend, and its weighted and gated form.

IMPART, eq. 1, for an image embedding v and its K nearest reference pairs:

    v' = v + (w_img / K) * sum_k r_img_k + (w_txt / K) * sum_k r_txt_k

Weighted: the mean becomes sum_k a_k r_k with a = softmax(similarity / tau). A floor drops far neighbours before the
mean or softmax; where all are dropped, v is unchanged. The floor is compared with the *z-score* of a neighbour: its
similarity in standard deviations above the mean similarity to the background set (`impart.retrieval.znorm`). A ramp
makes the gate smooth: it rises from 0 where the best z-score is `floor` to 1 at `floor + ramp`.

A target bounds what the texts add: v is turned towards them until its cosine with them is the target, and no further.
An image that the model already encodes as near to these texts is unchanged. An image that is new to the model comes as
near to its name as well-encoded images are, not nearer. A weight alone cannot do both, and depends on the encoder.

This module is the arithmetic alone; `impart.blending.tune` chooses the settings.
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
from impart.retrieval.rows import StoredRows

__all__ = ["Vanilla", "gate", "mixture", "neighbour_shares", "within_target"]

_PART = 512  # images at a time


@dataclass(frozen=True)
class Vanilla:
    """Training-free blender: computes the weights of the neighbours from their similarities."""

    settings: VanillaSettings

    @property
    def name(self) -> str:
        return "vanilla"

    @property
    def k(self) -> int:
        """K, pairs to retrieve per image."""
        return self.settings.k

    @property
    def digest(self) -> str:
        """JSON of the settings; Vanilla has no other state."""
        return json.dumps(dataclasses.asdict(self.settings), sort_keys=True)

    def check_encoder(self, base: Encoder) -> None:
        """Accept any encoder."""

    def amounts(
        self,
        images: ImageEmbeddings,
        neighbours: Neighbours,
        z_scores: Float32,
        references: ReferenceSet,
    ) -> Amounts:
        """Compute the sparse blend."""
        img, txt = self.coefficients(neighbours.sims, z_scores)
        if self.settings.target > 0:
            opened = gate(z_scores, floor=self.settings.floor, ramp=self.settings.ramp)
            for first in range(0, len(txt), _PART):
                part = slice(first, first + _PART)
                texts = mixture(txt[part], neighbours.ids[part], references.text_rows)
                left = within_target(images.embeddings[part], texts, opened[part], target=self.settings.target)
                txt[part] *= left[:, None]
        return Amounts(img, txt)

    def coefficients(self, sims: Float32, z_scores: Float32) -> tuple[Float32, Float32]:
        """Compute the weights of the neighbours' image and text embeddings, before the target bounds them.

        Args:
            sims: (B, K) cosines, best first; -1 where there is no neighbour.
            z_scores: (B, K) z-scores of these cosines.

        Returns:
            img (B, K) and txt (B, K), float32; each row sums to `gate * w`, or to 0 where no neighbour is kept.

        >>> sims = np.array([[0.9, 0.1]], np.float32)
        >>> Vanilla(VanillaSettings(k=2, w_img=0.5, w_txt=1.0)).coefficients(sims, sims)[1]
        array([[0.5, 0.5]], dtype=float32)
        """
        options = self.settings
        shares = neighbour_shares(sims, z_scores, tau=options.tau, floor=options.floor)
        shares *= gate(z_scores, floor=options.floor, ramp=options.ramp)[:, None]
        return np.float32(options.w_img) * shares, np.float32(options.w_txt) * shares


def neighbour_shares(sims: Float32, z_scores: Float32, *, tau: float, floor: float) -> Float32:
    """Compute the shares a (B, K): they sum to 1 over the kept neighbours of an image; all are 0 where none is kept."""
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
    """Compute the gate (B,): 0 below the floor, rising to 1 at `floor + ramp`; always 1 with a floor of 0."""
    best: Float32 = z_scores.max(axis=1)
    if floor <= 0:
        return np.ones_like(best)
    if ramp <= 0:
        return (best >= floor).astype(np.float32)
    rising: Float32 = np.clip((best - np.float32(floor)) / np.float32(ramp), 0, 1).astype(np.float32, copy=False)
    return rising


def mixture(weights: Float32, ids: npt.NDArray[np.int32], vectors: Float32 | StoredRows) -> Float32:
    """Compute weighted sums (B, D) of vectors (N, D) with row numbers (B, K); weights of absent rows (-1) are 0.

    Of stored rows, those with a weight are gathered at once. The order of the sums is the same.
    """
    rows = np.maximum(ids, 0)
    total = np.zeros((len(rows), vectors.shape[1]), dtype=np.float32)
    if isinstance(vectors, StoredRows):
        images, places = np.nonzero(weights)
        gathered = vectors[rows[images, places]]
        gathered *= weights[images, places, None]
        for k in range(rows.shape[1]):
            total[images[places == k]] += gathered[places == k]
        return total
    taken = np.empty_like(total)
    for k in range(rows.shape[1]):
        if weights[:, k].any():
            np.take(vectors, rows[:, k], axis=0, out=taken, mode="clip")  # checking each number costs as much
            taken *= weights[:, k, None]
            total += taken
    return total


def within_target(v: Float32, texts: Float32, opened: Float32, *, target: float) -> Float32:
    """Compute the factors that limit added texts, so that they bring v to at most the target cosine with them.

    Where the gate is 1, v reaches the target with t of length `|v_rest| target / sqrt(1 - target^2) - v.t`: here t is
    the direction of the texts and `v_rest` the part of v at right angles to it. A gate of one half allows half of this.

    Args:
        v: (B, D), L2-normalised.
        texts: (B, D) sums of the texts to be added, already multiplied by the gate.
        opened: (B,) the gate, from 0 to 1.
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
