"""Correct the scores of hubs: images that are near to most texts.

In a space of many dimensions some images lie near to most sentences and are found for queries that they do not show.
`CaptionBank` lowers the score of an image v by its soft maximum over other sentences b:

    score(t, v) = t.v - W T log mean_b exp(b.v / T)

W = 1 is the logarithm of the inverted softmax (Smith et al., ICLR 2017), where b are the other queries. CSLS (Conneau
et al., ICLR 2018) subtracts half the mean of the nearest. A search has no other queries, so b are fixed captions from
the training data of the model, and the score of one image does not depend on other images. Queries that are asked
together (`impart search --queries FILE --together`) can be added to b: `CaptionBank.with_queries`.

The correction is one number per image. It orders images for a text, and does not change which class an image is
nearest to. T and W were chosen on Flickr8k `val` with `mini`; T from 0.03 to 0.07 and W from 0.5 to 0.7 are about
equally good there.

`dynamic_inverted_softmax` corrects with a bank of queries. Where the bank is the test queries, as in `impart eval`,
the figure is transductive (every query is answered with the others given) and is reported apart from the plain one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Encoder, Float32, l2_normalise
from impart.encoders.bundled import model_home
from impart.errors import EncoderError
from impart.files import atomic_path, sha256_hex

__all__ = ["BETA", "FILE", "CaptionBank", "bundled_bank", "dynamic_inverted_softmax"]

FILE = "captions.npz"
TEMPERATURE, WEIGHT = 0.05, 0.6
MANY = 50
"""From this number on, queries have half of the total weight beside the captions; fewer have less."""
BETA = 20.0
"""Inverse temperature of the dynamic inverted softmax (Bogolin et al., CVPR 2022)."""
_BLOCK = 8192  # images per product: 32 MB of cosines with a thousand captions


@dataclass(frozen=True)
class CaptionBank:
    """Embeddings of everyday captions by one encoder.

    Attributes:
        captions: (M, D) float32, L2-normalised.
        shares: (M,) weight of each caption, sum 1; None = equal weights.
    """

    captions: Float32
    shares: Float32 | None = None

    def __len__(self) -> int:
        return len(self.captions)

    @cached_property
    def digest(self) -> str:
        """Digest of the captions: equal ones give equal hubness, where all have equal weights."""
        return sha256_hex(np.ascontiguousarray(self.captions).tobytes())[:16]

    def with_queries(self, queries: Float32) -> CaptionBank:
        """Return a bank with the queries (T, D) added; their total weight is 0.5, less for fewer than `MANY`."""
        count, own = len(queries), len(self.captions)
        share = 0.5 * min(1.0, count / MANY) if own else 1.0
        shares = np.concatenate([np.full(own, (1 - share) / max(own, 1)), np.full(count, share / max(count, 1))])
        return CaptionBank(np.concatenate([self.captions, queries]), shares.astype(np.float32))

    def hubness(self, images: Float32) -> Float32:
        """Compute what is subtracted from the scores of n images.

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
            near /= np.float32(TEMPERATURE)  # at most 20, far below where exp overflows in float32
            result[first : first + _BLOCK] = np.log(np.exp(near, out=near) @ shares)
        return result * np.float32(WEIGHT * TEMPERATURE)

    def save(self, path: Path, *, fingerprint: str) -> None:
        """Write the captions with 15 levels per number: 0.2 MB for a thousand of width 384.

        Cosines with them hardly change. Shares are not written.
        """
        scale = np.abs(self.captions).max(axis=1, keepdims=True) / 7
        whole = np.rint(self.captions / np.maximum(scale, 1e-12)).astype(np.int8)
        with atomic_path(path) as part, part.open("wb") as file:
            np.savez_compressed(file, captions=whole, fingerprint=np.array(fingerprint))

    @classmethod
    def load(cls, path: Path, *, fingerprint: str) -> CaptionBank:
        """Read what `save` wrote. Rows are L2-normalised again, so that no scale is stored.

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


def bundled_bank(base: Encoder) -> CaptionBank | None:
    """Load the caption bank of a model; None where it has none.

    Args:
        base: the base encoder. An augmented encoder has the bank of its base.

    Raises:
        EncoderError: the bank is damaged, or belongs to another version of the model.
    """
    path = model_home(base.traits.id) / FILE
    return CaptionBank.load(path, fingerprint=base.fingerprint) if path.is_file() else None


def dynamic_inverted_softmax(
    scores: npt.NDArray[Any], bank: npt.NDArray[Any], *, beta: float = BETA, k: int = 1
) -> npt.NDArray[np.float64]:
    """Correct scores with a bank of queries, for queries whose best item is a hub of the bank.

    The paper divides exp(beta s) of an item by the sum of the same over the bank. This function returns the logarithm
    of that over beta: it orders the items of a query the same way and does not overflow. A query keeps its cosines
    where no bank query has the query's best item among its k best. Scores are comparable within a query only.

    Args:
        scores: (Q, n) cosines of queries and items.
        bank: (M, n) cosines of the bank's queries with the same items.
        beta: inverse temperature.
        k: items that each query of the bank marks.

    Returns:
        (Q, n) float64.

    Source:
        Bogolin et al., "Cross Modal Retrieval with Querybank Normalisation", CVPR 2022.

    >>> hub = np.array([[0.9, 0.8], [0.9, 0.1], [0.9, 0.2]])  # item 0 is near to every query
    >>> dynamic_inverted_softmax(hub, hub).argmax(axis=1).tolist()
    [1, 0, 0]
    """
    assert bank.shape[1] == scores.shape[1], (bank.shape, scores.shape)
    result = scores.astype(np.float64)
    k = min(k, bank.shape[1])
    marked = np.zeros(scores.shape[1], dtype=bool)
    marked[np.argpartition(-bank, k - 1, axis=1)[:, :k]] = True
    best = result.max(axis=1, keepdims=True)
    active = ((result == best) & marked).any(axis=1)  # (Q,)
    top = bank.max(axis=0).astype(np.float64)  # (n,)
    total = np.exp(beta * (bank - top)).sum(axis=0, dtype=np.float64)
    result[active] -= top + np.log(total) / beta
    return result
