"""RAM of form `solved` in torch: kernel ridge and logistic regression on an episode's references, differentiable.

As in R2-D2 (Bertinetto et al., ICLR 2019) and MetaOptNet (Lee et al., CVPR 2019) an episode solves its own classifier,
and the gradient passes through the solution. Only the constants of the solver are learned, as functions of the
references per class. At step 0 the weights are the solved weights (kernel ridge) exactly. The NumPy form for indexing
and searching is `impart.blending.few_shot.logistic`.

Letters: B queries, N references, C concepts with references, D embedding width, R retrieval width.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impart.blending.few_shot.logistic import STEPS
from impart.blending.few_shot.support import LOGIT_SCALE, dual_texts
from impart.blending.ram import Ram, RamOutput
from impart.blending.ram_export import export_graph
from impart.blending.ram_solved import CONSTANTS
from impart.config import RamSettings
from impart.encoders.base import l2_normalise
from impart.train.episodes.episodes import Concepts, Episode
from impart.train.episodes.task import EpisodeTask
from impart.train.settings import ReferenceSettings

if TYPE_CHECKING:
    from impart.train.episodes.prepare import EpisodeData
    from impart.train.settings import TrainConfig

__all__ = ["LabelledEpisode", "SolvedModule", "SolvedTask"]

_START = {"beta": 1.0, "ridge": 0.035, "alpha": 150.0, "penalty": 0.012, "temperature": 0.08}
_MOST = 16.0  # references per class that the constants are extrapolated to


@dataclass(frozen=True)
class LabelledEpisode:
    """A batch of images with all references of their episode.

    Attributes:
        v: (B, D) unit image embeddings.
        q: (B, R) unit retrieval embeddings.
        embeddings: (N, D) of the references, unit.
        retrieval: (N, R) of the references, unit.
        labels: (N,) number of their concept.
        texts: (C, D) unit text embeddings of the concepts.
        duals: (C, D) their dual vectors.
    """

    v: Tensor
    q: Tensor
    embeddings: Tensor
    retrieval: Tensor
    labels: Tensor
    texts: Tensor
    duals: Tensor


class SolvedModule(Ram):
    """Learned constants, and the solver that they belong to.

    `level` (5,) has the logarithms of the constants with one reference per class and `slope` (5,) their change per unit
    of log(references per class), in the order of `CONSTANTS`; `share` is the last of these.
    """

    def __init__(self, settings: RamSettings):
        super().__init__()
        self.settings = settings
        self.level = nn.Parameter(torch.tensor([math.log(_START[name]) for name in CONSTANTS[:-1]]))
        self.slope = nn.Parameter(torch.zeros(len(CONSTANTS) - 1))
        self.share = nn.Parameter(torch.zeros(1))

    def constants(self, per_class: Tensor) -> Tensor:
        """Compute the constants (6,) for a number of references per class (1,)."""
        grown = (self.level + self.slope * per_class.clamp(1.0, _MOST).log()).exp()
        return torch.cat([grown, self.share])

    def weights(self, found: LabelledEpisode) -> Tensor:
        """Solve the weights W (N, C) of the references of an episode."""
        count = len(found.labels)
        per_class = found.v.new_full((1,), count / len(found.texts))
        beta, ridge, alpha, penalty, tau, share = self.constants(per_class)
        matrix = torch.exp(beta * (found.retrieval @ found.retrieval.T - 1))  # (N, N)
        one_hot = F.one_hot(found.labels, len(found.texts)).to(matrix.dtype)  # (N, C)
        own = torch.eye(count, dtype=matrix.dtype, device=matrix.device)
        solved = alpha * torch.linalg.solve(matrix + ridge * own, one_hot)
        zero_shot = tau * LOGIT_SCALE * found.embeddings @ found.texts.T
        inverse = torch.linalg.inv(matrix / 2 + penalty * own)
        weights = torch.zeros_like(one_hot)
        for _ in range(STEPS):
            shares = torch.softmax(zero_shot + matrix @ weights, dim=1)
            weights = weights + inverse @ (one_hot - shares - penalty * weights)
        mixed: Tensor = (1 - share) * solved + share * weights / tau
        return mixed

    def forward(self, found: LabelledEpisode) -> RamOutput:  # type: ignore[override]
        """Add the offsets along the dual texts; there are no weights of single neighbours."""
        beta = self.constants(found.v.new_full((1,), len(found.labels) / len(found.texts)))[0]
        near = torch.exp(beta * (found.q @ found.retrieval.T - 1))  # (B, N)
        added = near @ self.weights(found) @ found.duals / LOGIT_SCALE
        return RamOutput(added, img_weights=torch.zeros_like(near), txt_weights=torch.zeros_like(near))

    def export(self, path: Path, *, dim: int, retrieval_dim: int) -> None:  # noqa: ARG002
        """Write the constants as a graph of the references per class."""
        sample, other = (torch.tensor([value]) for value in (3.0, 1.0))
        export_graph(
            _Constants(copy.deepcopy(self).cpu().float().eval()),
            path,
            {"per_class": sample},
            outputs=("constants",),
            check={"per_class": other},
        )


class _Constants(nn.Module):
    """Constants alone, for the exporter."""

    def __init__(self, ram: SolvedModule):
        super().__init__()
        self.ram = ram

    def forward(self, per_class: Tensor) -> Tensor:
        return self.ram.constants(per_class)


class SolvedTask(EpisodeTask):
    """Train the constants; the loss is that of all the classes' logits, of v' before its normalisation."""

    ram: SolvedModule

    def build(self, config: TrainConfig, data: EpisodeData) -> Ram:  # noqa: ARG002
        return SolvedModule(config.ram)

    def after_step(self, step: int) -> None:  # noqa: ARG002
        with torch.no_grad():
            self.ram.share.clamp_(0, 1)

    def cosines(self, v: Tensor, added: Tensor, candidates: Tensor) -> Tensor:
        return (v + added) @ candidates.T

    def inputs(
        self,
        pool: Concepts,  # noqa: ARG002
        episode: Episode,
        views: tuple[int, int],
        names: tuple[npt.NDArray[np.float32], ...],
    ) -> tuple[LabelledEpisode, npt.NDArray[np.int64]]:
        data, (of_references, of_queries) = self._data, views
        shown, labels = np.unique(episode.shown, return_inverse=True)
        texts = l2_normalise(np.mean(names, axis=0)[shown])  # the candidates: the dual vectors are exact for them
        queries, references = data.retrieval[of_queries][episode.queries], data.retrieval[of_references]
        near = (queries @ references[episode.references].T).max(axis=1) > ReferenceSettings.near_duplicate
        kept = np.flatnonzero(~near) if not near.all() else np.arange(len(near))
        return LabelledEpisode(
            v=self._tensor(data.image[of_queries][episode.queries[kept]]),
            q=self._tensor(queries[kept]),
            embeddings=self._tensor(data.image[of_references][episode.references]),
            retrieval=self._tensor(references[episode.references]),
            labels=self._tensor(labels.reshape(-1)),
            texts=self._tensor(texts),
            duals=self._tensor(dual_texts(texts)),
        ), kept
