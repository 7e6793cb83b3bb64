"""Blenders that run a trained RAM, without torch.

`LearnedRam` runs its ONNX graph; indexing, searching and evaluation use it. `impart.blending.ram.ModuleRam`, for
research, runs the torch module itself.
"""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from impart.blending.base import Amounts
from impart.blending.encoder import vanilla_of
from impart.blending.tune import USUAL
from impart.blending.vanilla import gate, within_target
from impart.config import RamSettings, VanillaSettings
from impart.encoders.base import Encoder, Float32, ImageEmbeddings
from impart.encoders.onnx.session import OnnxSession, RuntimeOptions
from impart.errors import EncoderError, EncoderMismatchError
from impart.files import sha256_hex
from impart.refset.refset import ReferenceSet
from impart.retrieval.nearest import Neighbours

__all__ = ["LearnedRam", "RamBlender", "allowed"]

_NUMBERS = 4_000_000  # of one gathered (b, K, D): 16 MB

GRAPH_INPUTS = {"z_scores": "standing"}
"""Inputs of `ram.onnx` whose names differ from the fields of `Retrieved`: version 0.1.0 wrote them."""


class RamBlender(ABC):
    """Base class of the blenders that run a RAM.

    Args:
        settings: of the training.
        encoder_id: id of the encoder that the RAM was trained with.
        encoder_fingerprint: its fingerprint.
    """

    def __init__(self, settings: RamSettings, *, encoder_id: str, encoder_fingerprint: str) -> None:
        self.encoder_id = encoder_id
        self.encoder_fingerprint = encoder_fingerprint
        self._settings = settings

    @property
    def name(self) -> str:
        return "ram"

    @property
    def settings(self) -> RamSettings:
        return self._settings

    @property
    def k(self) -> int:
        """K, pairs to retrieve per image."""
        return self._settings.k

    @property
    @abstractmethod
    def place(self) -> str:
        """Name of the RAM in messages."""

    @abstractmethod
    def run(self, feeds: dict[str, npt.NDArray[Any]]) -> tuple[Float32, Float32, Float32]:
        """Run the module: the fields of `impart.blending.ram.Retrieved` as arrays to those of `RamOutput`."""

    def check_encoder(self, base: Encoder) -> None:
        """Check that a base encoder is the one of the training.

        Raises:
            EncoderMismatchError: it is another one.
        """
        if base.fingerprint != self.encoder_fingerprint:
            raise EncoderMismatchError(
                f"the RAM {self.place} was trained with encoder {self.encoder_id!r} "
                f"({self.encoder_fingerprint[:12]}), not with {base.traits.id!r} ({base.fingerprint[:12]}): "
                "use that encoder, or train a RAM with this one"
            )

    def amounts(
        self, images: ImageEmbeddings, neighbours: Neighbours, z_scores: Float32, references: ReferenceSet
    ) -> Amounts:
        """Compute the dense blend, limited by the settings of a tuned set (see `allowed`)."""
        count, dim = images.embeddings.shape
        shape = neighbours.ids.shape  # (B, K)
        added = np.zeros((count, dim), np.float32)
        img, txt = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        if not len(references):
            return Amounts(img, txt, added)
        step = max(1, _NUMBERS // (shape[1] * max(dim, images.retrieval.shape[1])))
        for first in range(0, count, step):
            part = slice(first, first + step)
            ids = neighbours.ids[part]
            rows = np.maximum(ids, 0)
            feeds = {
                "v": images.embeddings[part],
                "q": images.retrieval[part],
                "r_img": references.image_rows[rows],
                "r_txt": references.text_rows[rows],
                "r_ret": references.retrieval_rows[rows],
                "sims": neighbours.sims[part],
                "z_scores": z_scores[part],
            }
            added[part], img[part], txt[part] = self.run(feeds | {"mask": ids >= 0})
        share = allowed(images.embeddings, added, z_scores, vanilla_of(references))[:, None]
        return Amounts(img * share, txt * share, added * share)


class LearnedRam(RamBlender):
    """Blender that runs the ONNX graph of a RAM, with any reference set of the encoder of its training.

    The graph is opened at its first run: a text search does not run it.

    Args:
        path: of `ram.onnx`.
        settings, encoder_id, encoder_fingerprint: see `RamBlender`.
        options: of ONNX Runtime.
    """

    def __init__(
        self,
        path: Path,
        settings: RamSettings,
        *,
        encoder_id: str,
        encoder_fingerprint: str,
        options: RuntimeOptions | None = None,
    ) -> None:
        super().__init__(settings, encoder_id=encoder_id, encoder_fingerprint=encoder_fingerprint)
        self.path = path
        self._options = options or RuntimeOptions(device="cpu")

    def __repr__(self) -> str:
        return f"LearnedRam({str(self.path)!r}, {self._settings})"

    @property
    def place(self) -> str:
        return str(self.path.parent)

    @cached_property
    def digest(self) -> str:
        """Digest over graph and settings.

        Raises:
            EncoderError: the graph cannot be read.
        """
        settings = json.dumps(dataclasses.asdict(self._settings), sort_keys=True)
        try:
            graph = self.path.read_bytes()
        except OSError as error:
            raise EncoderError(f"cannot read {self.path}: {error.strerror}; train or copy the RAM again") from error
        return sha256_hex(graph, settings)

    def run(self, feeds: dict[str, npt.NDArray[Any]]) -> tuple[Float32, Float32, Float32]:
        inputs = {GRAPH_INPUTS.get(name, name): array for name, array in feeds.items()}
        read = {item.name: inputs[item.name] for item in self._session.inputs if item.name in inputs}
        added, img, txt = self._session.run(["added", "img_weights", "txt_weights"], read)
        return added, img, txt

    @cached_property
    def _session(self) -> OnnxSession:
        return OnnxSession(self.path, self._options, remedy="train or copy the RAM again")


def allowed(v: Float32, added: Float32, z_scores: Float32, settings: VanillaSettings | None) -> Float32:
    """Limit what a RAM adds by the settings of a tuned set.

    - The gate, which tuning chose by the background set, multiplies it.
    - Weights below the usual ones reduce it in proportion: such a set helps only with small weights.
    - The target bounds it: v is turned towards what is added only until their cosine is the target.

    Args:
        v: (B, D), L2-normalised.
        added: (B, D).
        z_scores: (B, K), see `impart.retrieval.znorm`.
        settings: None = the set is not tuned.

    Returns:
        (B,) factors from 0 to 1; 1 where the set is not tuned, 0 where tuning switched augmentation off.
    """
    if settings is None:
        return np.ones(len(v), np.float32)
    if settings.off:
        return np.zeros(len(v), np.float32)
    opened = gate(z_scores, floor=settings.floor, ramp=settings.ramp)
    share = opened * np.float32(min(1.0, (settings.w_img + settings.w_txt) / (USUAL.w_img + USUAL.w_txt)))
    if settings.target > 0:
        share *= within_target(v, added * share[:, None], opened, target=settings.target)
    return share
