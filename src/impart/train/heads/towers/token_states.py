"""Token states of texts below the last layers of a sentence tower, on disk: tuning those layers runs no other layer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from impart.files import sha256_hex
from impart.train.heads.towers.sentences import SentenceTower, encode_tokens
from impart.train.prepare.columns import Column, ColumnStore, column_key

__all__ = ["TokenStates"]

_log = logging.getLogger(__name__)
_BATCH = 64


@dataclass(frozen=True)
class TokenStates:
    """States of M texts of different lengths.

    Attributes:
        states: (P, D) float16, the tokens of all texts end to end; memory-mapped.
        starts: (M,) row of `states` at which each text begins.
        lengths: (M,) tokens of each text.
    """

    states: npt.NDArray[np.float16]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    @classmethod
    def of(cls, texts: Sequence[str], folder: Path, *, layers: int, tower: SentenceTower) -> TokenStates:
        """Read the states of texts; those that are not on disk are computed.

        Args:
            texts: M texts.
            folder: of the cache.
            layers: upper layers of the tower that are not run.
            tower: frozen, on the device to compute on.
        """
        columns = {"states": Column(np.float16, (tower.words.embedding_dim,), ragged=True)}
        store = ColumnStore(folder / f"tokens-{_digest(tower, layers)}", "texts", columns)
        keys = [column_key(text) for text in texts]
        missing = sorted(store.missing(keys), key=lambda number: len(texts[number]))  # equal lengths pad little
        for first in range(0, len(missing), _BATCH):
            part = missing[first : first + _BATCH]
            states = _compute([texts[number] for number in part], layers, tower)
            store.append([keys[number] for number in part], {"states": states})
            if first // _BATCH % 200 == 199:
                _log.info("token states: %d of %d texts", first + len(part), len(missing))
        rows, offsets = store.rows(keys), store.offsets("states")
        return cls(store.column("states"), offsets[rows], offsets[rows + 1] - offsets[rows])

    def padded(self, rows: npt.NDArray[np.int64], device: torch.device | str) -> tuple[Tensor, Tensor]:
        """Return states (T, L, D) float32 and mask (T, L) of some texts, padded to the longest."""
        starts, lengths = self.starts[rows], self.lengths[rows]
        places = np.arange(lengths.max())[None]  # (1, L)
        inside = places < lengths[:, None]  # (T, L)
        taken = self.states[np.where(inside, starts[:, None] + places, 0)]  # (T, L, D)
        mask = torch.as_tensor(inside.astype(np.float32), device=device)
        return torch.as_tensor(taken, device=device).float() * mask.unsqueeze(-1), mask


@torch.inference_mode()
def _compute(texts: Sequence[str], layers: int, tower: SentenceTower) -> list[npt.NDArray[np.float16]]:
    """Return the states (L, D) of each text."""
    device = tower.words.weight.device
    ids, mask = encode_tokens(texts)
    states = tower.states(ids.to(device), mask.to(device), layers=layers).half().cpu().numpy()  # (T, L, D)
    return [row[:length] for row, length in zip(states, mask.sum(1).tolist(), strict=True)]


def _digest(tower: SentenceTower, layers: int) -> str:
    """Digest of the weights that the states depend on: all but those of the upper `layers` layers."""
    above = tuple(f"layers.{number}." for number in range(len(tower.layers) - layers, len(tower.layers)))
    used = [value for name, value in tower.state_dict().items() if not name.startswith(above)]
    return sha256_hex(str(len(tower.layers) - layers), *(value.cpu().numpy().tobytes() for value in used))[:16]
