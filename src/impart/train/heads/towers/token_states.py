"""What a sentence tower makes of texts before its last layers, on disk: tuning those layers never runs the others.

Texts differ in length, so the states lie end to end in one array (P, D) of float16 with the offsets beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from impart.files import atomic_path, sha256_hex
from impart.train.heads.towers.sentences import SentenceTower, encode_tokens

__all__ = ["TokenStates"]

_log = logging.getLogger(__name__)
_BATCH = 64


@dataclass(frozen=True)
class TokenStates:
    """States of M texts.

    Attributes:
        states: (P, D) float16, the tokens of all texts end to end; memory-mapped.
        offsets: (M + 1,) where each text begins.
    """

    states: npt.NDArray[np.float16]
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def of(cls, texts: Sequence[str], folder: Path, *, layers: int, tower: SentenceTower) -> TokenStates:
        """Compute the states of texts, or read them where this list was computed before.

        Args:
            texts: M texts.
            folder: where they are kept.
            layers: of the tower that are left to run.
            tower: frozen, on the device to compute on.
        """
        parts = sha256_hex("\n".join([str(layers), *texts]))[:16]
        states, offsets = folder / f"tokens-{parts}.npy", folder / f"tokens-{parts}-offsets.npy"
        if not offsets.is_file():  # written last: where it is, the other is whole
            _compute(texts, states, offsets, layers, tower)
        return cls(np.load(states, mmap_mode="r"), np.load(offsets))

    def padded(self, rows: npt.NDArray[np.int64], device: torch.device | str) -> tuple[Tensor, Tensor]:
        """States (T, L, D) float32 and mask (T, L) of some texts, padded to the longest."""
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        places = np.arange(lengths.max())[None]  # (1, L)
        inside = places < lengths[:, None]  # (T, L)
        taken = self.states[np.where(inside, starts[:, None] + places, 0)]  # (T, L, D)
        mask = torch.as_tensor(inside.astype(np.float32), device=device)
        return torch.as_tensor(taken, device=device).float() * mask.unsqueeze(-1), mask


@torch.inference_mode()
def _compute(texts: Sequence[str], states: Path, offsets: Path, layers: int, tower: SentenceTower) -> None:
    device = tower.words.weight.device
    lengths = np.zeros(len(texts), dtype=np.int64)
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))  # equal lengths pad little
    coded = []
    for first in range(0, len(order), _BATCH):
        part = order[first : first + _BATCH]
        ids, mask = encode_tokens([texts[number] for number in part])
        lengths[part] = mask.sum(1).numpy()
        coded.append((part, ids, mask))
    ends = np.concatenate([[0], np.cumsum(lengths)])
    with atomic_path(states) as scratch:
        kept = np.lib.format.open_memmap(
            scratch, mode="w+", dtype=np.float16, shape=(int(ends[-1]), tower.words.embedding_dim)
        )
        for number, (part, ids, mask) in enumerate(coded):
            found = tower.states(ids.to(device), mask.to(device), layers=layers).half().cpu().numpy()
            for row, text in enumerate(part):
                kept[ends[text] : ends[text + 1]] = found[row, : lengths[text]]
            if number % 200 == 199:
                _log.info("token states: %d of %d texts", (number + 1) * _BATCH, len(texts))
        kept.flush()
        del kept
    with atomic_path(offsets) as scratch, scratch.open("wb") as file:
        np.save(file, ends)
