"""How near is near: similarities in standard deviations above what random images get.

Raw cosines do not compare across images: a blurry or dark one is similar to everything. A background statistics is the mean m and
covariance C of the retrieval embeddings of random images c. For a query q the cosines q.c have mean q.m and variance
q.C.q, so a similarity s to a reference stands

    z = (s - q.m) / sqrt(q.C.q)

standard deviations above chance. (Speaker verification calls this Z-norm.) It needs no image at query time, and costs
one (R, R) product.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32
from impart.errors import ReferenceSetError
from impart.files import atomic_path, sha256_hex

__all__ = ["ZNorm"]


@dataclass(frozen=True)
class ZNorm:
    """Statistics of random images' retrieval embeddings.

    Attributes:
        mean: (R,) float32.
        covariance: (R, R) float32.
    """

    mean: Float32
    covariance: Float32

    @classmethod
    def of(cls, retrieval: npt.NDArray[np.float32]) -> ZNorm:
        """From the retrieval embeddings (M, R) of M random images."""
        rows = retrieval.astype(np.float64)
        if not len(rows):  # nothing is known of chance: z-scores are cosines divided by almost nothing
            rows = np.zeros((1, retrieval.shape[1]))
        centred = rows - rows.mean(axis=0)
        covariance = centred.T @ centred / max(len(rows), 1)
        return cls(rows.mean(axis=0).astype(np.float32), covariance.astype(np.float32))

    @classmethod
    def load(cls, path: Path) -> ZNorm:
        """Read what `save` wrote.

        Raises:
            ReferenceSetError: missing or damaged.
        """
        try:
            stacked = np.load(path)
            return cls(stacked[0], stacked[1:])
        except (OSError, ValueError, IndexError) as error:
            raise ReferenceSetError(f"{path} cannot be read: {error}. Build the set again") from error

    def save(self, path: Path) -> None:
        """Write one (R + 1, R) array in one step."""
        with atomic_path(path) as part, part.open("wb") as file:
            np.save(file, np.vstack([self.mean[None], self.covariance]))

    @property
    def digest(self) -> str:
        """Equal digests give equal z-scores."""
        return sha256_hex(self.mean.tobytes(), self.covariance.tobytes())[:16]

    def z_scores(self, retrieval: Float32, sims: Float32) -> Float32:
        """Standard deviations above chance.

        Args:
            retrieval: (B, R) of the queries.
            sims: (B, K) cosines with references.

        Returns:
            (B, K) float32.
        """
        assert retrieval.shape[1] == len(self.mean), (retrieval.shape, self.mean.shape)
        spread = np.sqrt(np.einsum("br,br->b", retrieval @ self.covariance, retrieval).clip(min=1e-12))  # (B,)
        z_scores: Float32 = ((sims - (retrieval @ self.mean)[:, None]) / spread[:, None]).astype(np.float32)
        return z_scores
