"""Blender of a RAM of form `solved`: weights solved on the whole reference set, with learned constants.

    v' = v + (1 / s) sum_i k(q(x), q_i) sum_c W_ic d_c

W is that of `few_shot/logistic.py`, d are the dual vectors of the set's texts. The graph `ram.onnx` gives the constants
by the number of references per class. The weights are solved once per set. The neighbours serve the gate and the
explanation: the weight of a neighbour is what it adds to the logit of its own text, divided by s.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from impart.blending.base import Amounts
from impart.blending.encoder import vanilla_of
from impart.blending.few_shot.logistic import Constants, KernelLogistic, choose_temperature
from impart.blending.few_shot.ridge import kernel
from impart.blending.few_shot.support import LOGIT_SCALE, Support, dual_texts
from impart.blending.ram_onnx import LearnedRam, allowed
from impart.blending.solved.blender import names_of
from impart.config import RamSettings
from impart.encoders.base import Float32, ImageEmbeddings, l2_normalise
from impart.encoders.onnx.session import OnnxSession
from impart.errors import ReferenceSetError
from impart.refset.refset import ReferenceSet
from impart.retrieval.nearest import Neighbours

__all__ = ["CONSTANTS", "LARGEST", "SolvedRam", "constants_of", "learned_ram", "support_of"]

CONSTANTS = ("beta", "ridge", "alpha", "penalty", "temperature", "share")
"""Order of the output of the graph, whose input is the number of references per class."""

LARGEST = 4096
"""Largest number of reference images: the solver inverts a matrix of this size."""

_PART = 1024  # images at a time


@dataclass(frozen=True)
class _Solved:
    """Solved weights of a set.

    Attributes:
        key: fingerprint of the set, and whether it is closed.
        beta: sharpness of the kernel.
        retrieval: (R, Q) of the reference images.
        added: (R, D) that a kernel value of 1 adds.
        own: (N,) by row of the set, the weight of its image for its own text, divided by s.
    """

    key: tuple[str, bool]
    beta: float
    retrieval: Float32
    added: Float32
    own: Float32


class SolvedRam(LearnedRam):
    """RAM of form `solved`, with any reference set of the encoder of its training; see `LearnedRam`."""

    def __init__(self, path: Path, settings: RamSettings, **options: Any) -> None:
        super().__init__(path, settings, **options)
        self._lock = threading.Lock()
        self._of_set: _Solved | None = None

    def amounts(
        self, images: ImageEmbeddings, neighbours: Neighbours, z_scores: Float32, references: ReferenceSet
    ) -> Amounts:
        """Compute the dense blend, limited by the settings of a tuned set (see `allowed`).

        Raises:
            ReferenceSetError: the set has more than `LARGEST` images.
        """
        count, dim = images.embeddings.shape
        img = np.zeros(neighbours.ids.shape, np.float32)  # (B, K)
        if not len(references):
            return Amounts(img, img.copy(), np.zeros((count, dim), np.float32))
        solved = self._solved(references)
        added = np.empty((count, dim), np.float32)
        for first in range(0, count, _PART):
            part = slice(first, first + _PART)
            added[part] = kernel(images.retrieval[part], solved.retrieval, beta=solved.beta) @ solved.added
        share = allowed(images.embeddings, added, z_scores, vanilla_of(references))[:, None]
        near = np.exp(np.float32(solved.beta) * (neighbours.sims - 1)) * (neighbours.ids >= 0)
        txt: Float32 = (share * near * solved.own[np.maximum(neighbours.ids, 0)]).astype(np.float32)
        return Amounts(img, txt, added * share)

    def _solved(self, references: ReferenceSet) -> _Solved:
        """Solve the weights of a set; those of the last set are kept."""
        settings = vanilla_of(references)
        key = (references.fingerprint, settings is None or settings.floor <= 0)
        with self._lock:
            if self._of_set is None or self._of_set.key != key:
                self._of_set = self._solve(references, key)
            return self._of_set

    def _solve(self, references: ReferenceSet, key: tuple[str, bool]) -> _Solved:
        support, number = support_of(references)
        constants = constants_of(self._session, per_class=len(support) / len(support.texts))
        if key[1]:  # cross-validation chooses among the names of the set, as in a closed set
            constants = choose_temperature(support, constants)
        fitted = KernelLogistic(support, constants)
        weights: Float32 = fitted.weights / np.float32(LOGIT_SCALE)  # (R, C)
        own: Float32 = weights[np.arange(len(support)), support.labels].astype(np.float32)
        return _Solved(
            key,
            fitted.constants.beta,
            support.retrieval,
            (weights @ dual_texts(support.texts)).astype(np.float32),
            own[number],
        )


_FORMS = {"solved": SolvedRam}


def learned_ram(path: Path, settings: RamSettings, **options: Any) -> LearnedRam:
    """Open the graph of a RAM of any form; `options` are those of `LearnedRam`."""
    return _FORMS.get(settings.form, LearnedRam)(path, settings, **options)


def constants_of(session: OnnxSession, *, per_class: float) -> Constants:
    """Run the graph for a number of references per class."""
    (values,) = session.run(["constants"], {"per_class": np.array([per_class], np.float32)})
    return Constants(**dict(zip(CONSTANTS, map(float, values), strict=True)))


def support_of(references: ReferenceSet) -> tuple[Support, npt.NDArray[np.int64]]:
    """Read the labelled images of a set: of each image its first row, labelled by its text.

    Returns:
        The support, and the number of the image (N,) of each row of the set.

    Raises:
        ReferenceSetError: it has more than `LARGEST` images.
    """
    rows, number = np.unique(references.images, return_index=True, return_inverse=True)[1:]
    if len(rows) > LARGEST:
        raise ReferenceSetError(
            f"reference set {references.name!r} has {len(rows):,} images; a RAM of form solved serves up to "
            f"{LARGEST:,}: take a part of the set, or a RAM of another form"
        )
    names = names_of(references.take(rows))
    support = Support(
        l2_normalise(references.image_rows[rows]),
        l2_normalise(references.retrieval_rows[rows]),
        names.labels,
        names.texts,
    )
    return support, number.reshape(-1)
