"""Gather the neighbours of a batch for RAM: embeddings, similarities, z-scores, masks.

Letters: B images, K neighbours, N references, D embedding width, R retrieval width.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from impart.blending.ram import Retrieved
from impart.retrieval.znorm import ZNorm

__all__ = ["ZNormTensors", "gather", "replace_at_random", "shows_itself"]


class ZNormTensors:
    """Background statistics on a device, for z-scores of similarities (see `ZNorm`).

    Args:
        mean: (R,) of the background set's retrieval embeddings.
        covariance: (R, R).
    """

    def __init__(self, mean: Tensor, covariance: Tensor):
        self.mean, self.covariance = mean, covariance

    @classmethod
    def of(cls, retrieval: Tensor) -> ZNormTensors:
        """Compute the statistics of the references' retrieval embeddings (N, R)."""
        znorm = ZNorm.of(np.asarray(retrieval.detach().float().cpu().numpy()))
        return cls.on(znorm, retrieval.device)

    @classmethod
    def on(cls, znorm: ZNorm, device: torch.device | str) -> ZNormTensors:
        """Copy background statistics to a device."""
        return cls(torch.as_tensor(znorm.mean, device=device), torch.as_tensor(znorm.covariance, device=device))

    def z_scores(self, q: Tensor, sims: Tensor) -> Tensor:
        """Return the z-scores (B, K) of similarities (B, K) of queries q (B, R)."""
        spread = ((q @ self.covariance) * q).sum(1).clamp(min=1e-12).sqrt()  # (B,)
        return (sims - (q @ self.mean)[:, None]) / spread[:, None]


def gather(
    v: Tensor,
    q: Tensor,
    ids: Tensor,
    *,
    image: Tensor,
    text: Tensor,
    retrieval: Tensor,
    znorm: ZNormTensors,
) -> Retrieved:
    """Gather the neighbours of a batch.

    Args:
        v: (B, D) unit embeddings.
        q: (B, R) unit retrieval embeddings.
        ids: (B, K) rows of the references, best first; -1 = none.
        image: (N, D) of the references; like `text` (N, D) and `retrieval` (N, R).
        znorm: of the references.
    """
    mask = ids >= 0  # (B, K)
    rows = ids.clamp(min=0)
    r_ret = retrieval[rows].to(q.dtype)  # (B, K, R)
    sims = torch.einsum("br,bkr->bk", q, r_ret).masked_fill(~mask, -1.0)
    return Retrieved(
        v=v,
        q=q,
        r_img=image[rows].to(v.dtype),
        r_txt=text[rows].to(v.dtype),
        r_ret=r_ret,
        sims=sims,
        z_scores=znorm.z_scores(q, sims),
        mask=mask,
    )


def replace_at_random(ids: Tensor, count: int, share: float, rng: np.random.Generator) -> Tensor:
    """Replace the neighbours (B, K) of a share of the rows by random references out of `count`."""
    if not share:
        return ids
    chosen = torch.as_tensor(rng.random(len(ids)) < share, device=ids.device)
    drawn = torch.as_tensor(rng.integers(count, size=tuple(ids.shape)), dtype=ids.dtype, device=ids.device)
    return torch.where(chosen[:, None], drawn, ids)


def shows_itself(q: Tensor, retrieval: Tensor, ids: Tensor, *, near_duplicate: float) -> Tensor:
    """Return which neighbours `ids` (B, K), rows of `retrieval` (N, R), show the image q (B, R) itself: (B, K) bool.

    Precomputed neighbours never do; those drawn at random may.
    """
    found = F.normalize(retrieval[ids.clamp(min=0)].to(q.dtype), dim=-1)  # (B, K, R)
    return (torch.einsum("br,bkr->bk", q, found) > near_duplicate) & (ids >= 0)
