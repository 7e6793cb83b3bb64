"""Calibrate similarities with a background set of unrelated images.

Raw cosines are not comparable across images: a blurry or dark image is similar to everything. `ZNorm` has the mean m
and the covariance C of the retrieval embeddings c of a background set. For a query q the cosines q.c have mean q.m and
variance q.C.q. The z-score of a similarity s is

    z = (s - q.m) / sqrt(q.C.q)

standard deviations above the mean similarity to the background set. Speaker verification calls this Z-norm. It needs
one (R, R) product per query, and no background image.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32
from impart.errors import ReferenceSetError
from impart.files import atomic_path, sha256_hex
from impart.retrieval.rows import StoredRows

__all__ = ["ZNorm"]


@dataclass(frozen=True)
class ZNorm:
    """Statistics of the retrieval embeddings of a background set.

    Attributes:
        mean: m (R,) float32.
        covariance: C (R, R) float32.
    """

    mean: Float32
    covariance: Float32

    @classmethod
    def of(cls, retrieval: npt.NDArray[np.float32] | StoredRows) -> ZNorm:
        """Compute the statistics of the retrieval embeddings (M, R) of M background images."""
        if isinstance(retrieval, StoredRows):
            return cls._of_blocks(retrieval)
        rows = retrieval.astype(np.float64)
        if not len(rows):  # no background: z-scores are cosines divided by a tiny constant
            rows = np.zeros((1, retrieval.shape[1]))
        centred = rows - rows.mean(axis=0)
        covariance = centred.T @ centred / max(len(rows), 1)
        return cls(rows.mean(axis=0).astype(np.float32), covariance.astype(np.float32))

    @classmethod
    def _of_blocks(cls, retrieval: StoredRows) -> ZNorm:
        """Compute the statistics of rows on disk, read once: C = mean of c c' - m m'."""
        width = retrieval.shape[1]
        total, products = np.zeros(width), np.zeros((width, width))
        for _, part in retrieval.blocks():
            rows = part.astype(np.float64)
            total += rows.sum(axis=0)
            products += rows.T @ rows
        mean = total / len(retrieval)
        covariance = products / len(retrieval) - np.outer(mean, mean)
        return cls(mean.astype(np.float32), covariance.astype(np.float32))

    @classmethod
    def load(cls, path: Path, *, width: int) -> ZNorm:
        """Read what `save` wrote, for retrieval embeddings of a width R.

        Raises:
            ReferenceSetError: the file is missing or damaged, or of another width.
        """
        try:
            stacked = np.load(path)
        except (OSError, ValueError, EOFError) as error:
            raise ReferenceSetError(f"{path} cannot be read: {error}. Build the set again") from error
        if stacked.dtype.kind != "f" or stacked.shape != (width + 1, width) or not np.isfinite(stacked).all():
            raise ReferenceSetError(f"{path} has no statistics of width {width}: build the set again")
        return cls(stacked[0], stacked[1:])

    def save(self, path: Path) -> None:
        """Write mean and covariance as one array (R + 1, R), atomically."""
        with atomic_path(path) as part, part.open("wb") as file:
            np.save(file, np.vstack([self.mean[None], self.covariance]))

    @property
    def digest(self) -> str:
        """Digest of mean and covariance: equal digests give equal z-scores."""
        return sha256_hex(self.mean.tobytes(), self.covariance.tobytes())[:16]

    def z_scores(self, retrieval: Float32, sims: Float32) -> Float32:
        """Compute the z-scores of similarities.

        Args:
            retrieval: (B, R) retrieval embeddings of the queries, L2-normalised.
            sims: (B, K) cosines with references.

        Returns:
            (B, K) float32.
        """
        assert retrieval.shape[1] == len(self.mean), (retrieval.shape, self.mean.shape)
        spread = np.sqrt(np.einsum("br,br->b", retrieval @ self.covariance, retrieval).clip(min=1e-12))  # (B,)
        z_scores: Float32 = ((sims - (retrieval @ self.mean)[:, None]) / spread[:, None]).astype(np.float32)
        return z_scores
