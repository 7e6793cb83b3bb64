"""Images that are near to every text, and how a search by text is kept from finding them all the time.

In a space of many dimensions some images lie near to most sentences (hubs) and turn up for queries they have nothing
to do with. So a score is lowered by what the image gets from other sentences b, its soft maximum over them:

    score(t, v) = t.v - W T log mean_b exp(b.v / T)

With W = 1 that is, in logarithms, the inverted softmax (Smith et al., ICLR 2017), which takes the other queries for b;
CSLS (Conneau et al., ICLR 2018) takes half the mean of the nearest. A search has no other queries. Here b are captions
that were used in training the model and stay the same: nothing is known of other queries, and the score of one image
does not depend on the others. Where many queries are asked together (`impart search --queries FILE --together`), they
may count as well: `CaptionBank.with_queries`.

A number an image is taken off, so which class an image is most like does not change: this is for ranking images by
a text. T and W were chosen on Flickr8k `val` with `mini`; T 0.03 to 0.07 and W 0.5 to 0.7 are all about as good there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from impart.blending.encoder import AugmentedEncoder, model_home
from impart.encoders.base import Encoder, Float32, l2_normalise
from impart.errors import EncoderError
from impart.files import atomic_path

__all__ = ["FILE", "CaptionBank", "bundled_bank"]

FILE = "captions.npz"
TEMPERATURE, WEIGHT = 0.05, 0.6
MANY = 50
"""Queries from which on they count half beside the captions; fewer count less."""
_BLOCK = 8192  # images at a time: 32 MB of cosines with a thousand captions


@dataclass(frozen=True)
class CaptionBank:
    """Embeddings of everyday captions, by one encoder.

    Attributes:
        captions: (M, D) float32, L2-normalised.
        shares: (M,) how much each counts, 1 in all; None = all the same.
    """

    captions: Float32
    shares: Float32 | None = None

    def __len__(self) -> int:
        return len(self.captions)

    def with_queries(self, queries: Float32) -> CaptionBank:
        """A bank in which the queries (T, D) count half, or less where they are few."""
        count, own = len(queries), len(self.captions)
        share = 0.5 * min(1.0, count / MANY) if own else 1.0
        shares = np.concatenate([np.full(own, (1 - share) / max(own, 1)), np.full(count, share / max(count, 1))])
        return CaptionBank(np.concatenate([self.captions, queries]), shares.astype(np.float32))

    def hubness(self, images: Float32) -> Float32:
        """What is taken off the scores of n images.

        Args:
            images: (n, D), L2-normalised.

        Returns:
            (n,) float32; 0 where the bank is empty.
        """
        result = np.zeros(len(images), np.float32)
        shares = self.shares
        if shares is None:
            shares = np.full(len(self), 1 / max(len(self), 1), np.float32)
        for first in range(0, len(images) if len(self) else 0, _BLOCK):
            near = images[first : first + _BLOCK] @ self.captions.T  # (b, M)
            near /= np.float32(TEMPERATURE)  # at most 20: its exponential is far from the end of float32
            result[first : first + _BLOCK] = np.log(np.exp(near, out=near) @ shares)
        return result * np.float32(WEIGHT * TEMPERATURE)

    def save(self, path: Path, *, fingerprint: str) -> None:
        """Write the bank in fifteen levels a number, which cosines of it hardly feel: 0.2 MB for a thousand of 384."""
        scale = np.abs(self.captions).max(axis=1, keepdims=True) / 7
        whole = np.rint(self.captions / np.maximum(scale, 1e-12)).astype(np.int8)
        with atomic_path(path) as part, part.open("wb") as file:
            np.savez_compressed(file, captions=whole, fingerprint=np.array(fingerprint))

    @classmethod
    def load(cls, path: Path, *, fingerprint: str) -> CaptionBank:
        """Read what `save` wrote; the lengths are made 1 again, so that no scale is needed.

        Raises:
            EncoderError: the file is damaged, or belongs to another model.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                captions, owner = stored["captions"], str(stored["fingerprint"])
        except (OSError, ValueError, KeyError) as error:
            raise EncoderError(f"{path} cannot be read: {error}. Reinstall the model") from error
        if owner != fingerprint:
            raise EncoderError(f"{path} belongs to another version of the model: reinstall it")
        return cls(l2_normalise(captions.astype(np.float32)))


def bundled_bank(encoder: Encoder) -> CaptionBank | None:
    """The bank that comes with a model, or None where it has none."""
    base = encoder.base if isinstance(encoder, AugmentedEncoder) else encoder
    path = model_home(base.traits.id) / FILE
    return CaptionBank.load(path, fingerprint=base.fingerprint) if path.is_file() else None
