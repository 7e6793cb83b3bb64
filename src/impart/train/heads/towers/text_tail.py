"""The upper layers of the sentence tower as a part that learns: stored token states in, sentence embeddings out.

The states below these layers are read from disk (`train/heads/towers/token_states.py`): with two layers a step runs two
of six.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from impart.train.heads.towers.sentences import SentenceTower, attention_bias, pool
from impart.train.heads.towers.token_states import TokenStates

__all__ = ["TextRows", "TextTail"]

_BUCKET = 128  # texts of about the same length that go through the layers together
_MANY = 4096  # texts whose states are read at once

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class TextRows:
    """Rows of the token states of all texts of a training.

    Attributes:
        states: of all texts.
        texts: (m,) row of each text of the corpus.
        names: C arrays of rows, the filled prompts of each class name.
        kinds: K arrays of rows, likewise for the kinds.
        validation: (T,) rows of the captions for validation.
    """

    states: TokenStates
    texts: Rows
    names: tuple[Rows, ...]
    kinds: tuple[Rows, ...] = ()
    validation: Rows

    @classmethod
    def of(
        cls,
        texts: Sequence[str],
        names: Sequence[Sequence[str]],
        kinds: Sequence[Sequence[str]] = (),
        validation: Sequence[str] = (),
        *,
        cache: Path,
        tower: SentenceTower,
        layers: int,
    ) -> TextRows:
        """Compute the states, or read them from `cache`; equal texts have one row."""
        parts = [texts, *names, *kinds, validation]
        place = {text: row for row, text in enumerate(dict.fromkeys(text for part in parts for text in part))}

        def rows(part: Sequence[str]) -> Rows:
            return np.array([place[text] for text in part], dtype=np.int64)

        return cls(
            states=TokenStates.of(list(place), cache, layers=layers, tower=tower),
            texts=rows(texts),
            names=tuple(rows(part) for part in names),
            kinds=tuple(rows(part) for part in kinds),
            validation=rows(validation),
        )


class TextTail(nn.Module):
    """The upper layers.

    Args:
        tower: its upper layers learn in place.
        rows: of the texts of the training.
        layers: how many, counted from the top.
        dropout: on the input of the first of them.
    """

    def __init__(self, tower: SentenceTower, rows: TextRows, *, layers: int, dropout: float):
        super().__init__()
        self.rows = rows
        self.layers = nn.ModuleList(list(tower.layers)[-layers:])
        self.layers.requires_grad_(True)
        self.drop = nn.Dropout(dropout)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Map states (T, L, D) and mask (T, L) to sentence embeddings (T, D), L2-normalised."""
        x = self.drop(states)
        with torch.autocast(x.device.type, torch.bfloat16):
            bias = attention_bias(mask, x.dtype)
            for layer in self.layers:
                x = layer(x, bias)
        return pool(x.float(), mask)

    def sentences(self, rows: Rows) -> Tensor:
        """Embed texts by their rows of the token states: (T, D)."""
        order = np.argsort(self.rows.states.lengths[rows], kind="stable")  # equal lengths pad little
        device = next(self.layers.parameters()).device
        parts = [
            self(*self.rows.states.padded(rows[part], device))
            for part in np.array_split(order, max(1, len(order) // _BUCKET))
        ]
        return torch.cat(parts)[torch.as_tensor(np.argsort(order), device=device)]

    @torch.no_grad()
    def embedded(self, rows: Rows) -> Tensor:
        """Embed any number of texts (T, D) without dropout and gradients."""
        learning = self.training
        self.eval()
        distinct, places = np.unique(rows, return_inverse=True)
        parts = [self.sentences(part) for part in np.array_split(distinct, len(distinct) // _MANY + 1)]
        self.train(learning)
        return torch.cat(parts)[torch.as_tensor(places, device=parts[0].device)]

    def drawn(self, prompts: Sequence[Rows], rng: np.random.Generator, *, chosen: Rows | None = None) -> Tensor:
        """Embed one random prompt of each name, or of the `chosen` names: (c, D)."""
        numbers = np.arange(len(prompts)) if chosen is None else chosen
        rows = np.array([prompts[number][rng.integers(len(prompts[number]))] for number in numbers])
        return self.sentences(rows)
