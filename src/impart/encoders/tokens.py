"""Convert texts to token ids with a `tokenizer.json`, without transformers.

Text cleaning is part of the model: SigLIP was trained on lower-case text without punctuation, and its `tokenizer.json`
does not include that step. `whitespace`, `lower` and `canonicalize` are open_clip's, which all join whitespace.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from impart.errors import ConfigError, EncoderError
from impart.validation import check_value

__all__ = ["CLEANERS", "PADDING_SIDE", "TextTokenizer", "TokenIds", "read_json", "tokenizer_of"]

TokenIds: TypeAlias = npt.NDArray[np.int64]

_SIZE: Any = int | list[int] | dict[str, int]
_IMAGES: dict[str, Any] = {
    "size": _SIZE,
    "crop_size": _SIZE,
    "mean": float | list[float],
    "std": float | list[float],
    "image_mean": float | list[float],
    "image_std": float | list[float],
    "interpolation": str,
    "resize_mode": str,
    "crop_start": str,
    "resample": int,
    "rescale_factor": float,
    "do_resize": bool,
    "do_center_crop": bool,
    "do_rescale": bool,
    "do_normalize": bool,
}
_ENTRIES: dict[str, dict[str, Any]] = {
    "model.json": {
        "dim": int,
        "retrieval_dim": int,
        "context_tokens": int,
        "logit_scale": float,
        "clean": str,
        "preprocess": dict[str, Any],
        **{f"preprocess.{name}": kind for name, kind in _IMAGES.items()},
        "small_pictures": dict[str, Any],
        "small_pictures.up_to_px": int,
        "small_pictures.size": int,
    },
    "config.json": {
        "model_type": str,
        "embed_dim": int,
        "projection_dim": int,
        "retrieval_dim": int,
        "logit_scale": float,
        "text_cfg": dict[str, Any],
        "text_cfg.context_length": int,
        "text_cfg.tokenizer_kwargs": dict[str, Any],
    },
    "preprocess_cfg.json": _IMAGES,
    "preprocessor_config.json": _IMAGES,
    "processor_config.json": {
        "image_processor": dict[str, Any],
        **{f"image_processor.{name}": kind for name, kind in _IMAGES.items()},
    },
    "tokenizer_config.json": {"pad_token": str | dict[str, Any], "padding_side": str, "tokenizer_class": str},
    "special_tokens_map.json": {"pad_token": str | dict[str, Any]},
    "retrieval.json": {"encoder": str, "fingerprint": str},
    "projection.json": {"encoder": str, "fingerprint": str},
}
"""Types of the entries that are read, by file and dotted key; other entries are not checked, null is no value."""

_SHORT_PIECES = 2.0  # letters per token, up to which a word is read by letters
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _whitespace(text: str) -> str:
    return " ".join(text.split())


def _lower_only(text: str) -> str:
    return text.lower()


def _lower(text: str) -> str:
    return _whitespace(text).lower()


def _canonicalize(text: str) -> str:
    return _whitespace(text.translate(_NO_PUNCTUATION)).lower()


def _no_punctuation(text: str) -> str:
    return _whitespace(text.translate(_NO_PUNCTUATION))


def _none(text: str) -> str:
    return text


CLEANERS: Mapping[str, Callable[[str], str]] = {
    "none": _none,
    "no_punctuation": _no_punctuation,
    "lower_only": _lower_only,
    "whitespace": _whitespace,
    "lower": _lower,
    "canonicalize": _canonicalize,
}
"""Name -> cleaning of a text before it is split into tokens."""

PADDING_SIDE: Mapping[str, str] = {
    "BertTokenizer": "right",
    "CLIPTokenizer": "right",
    "GemmaTokenizer": "left",
    "PreTrainedTokenizer": "right",
    "SiglipTokenizer": "right",
    "Siglip2Tokenizer": "left",
    "TokenizersBackend": "right",
    "XLMRobertaTokenizer": "right",
}
"""Tokenizer class of transformers -> `padding_side` where `tokenizer_config.json` does not state it."""


@dataclass(frozen=True, kw_only=True)
class TextTokenizer:
    """Tokenizer of a text tower.

    Attributes:
        tokenizer: a `tokenizers.Tokenizer` that adds special tokens and truncates to `context_tokens`.
        context_tokens: L, longest input.
        pad_id: id of the padding token.
        pad_left: pad before the text instead of after it. SigLIP pools the last position, padding or not.
        clean: a name in `CLEANERS`.
    """

    tokenizer: Any
    context_tokens: int
    pad_id: int
    clean: str
    pad_left: bool = False

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        *,
        context_tokens: int,
        clean: str,
        padding_side: str | None = None,
        tokenizer_class: str = "",
        default: Callable[[str], str] | None = None,
    ) -> TextTokenizer:
        """Read `tokenizer.json`, and the padding from the files beside it.

        Args:
            folder: with the files.
            context_tokens: L, longest input.
            clean: a name in `CLEANERS`.
            padding_side: `left` or `right`, where the files do not matter; None = of the files, else of the class.
            tokenizer_class: of transformers, without `Fast`; empty = as the files name it.
            default: returns `pad_token` or `padding_side` where neither the files nor a known class state it;
                None = no padding token is an error, and the side is `right`.

        Raises:
            EncoderError: a file is missing or damaged, or no padding token is named.
        """
        if clean not in CLEANERS:
            raise EncoderError(f"{folder}: text cleaning {clean!r} is unknown; there are {', '.join(CLEANERS)}")
        if context_tokens < 1:
            raise EncoderError(f"{folder}: a context of {context_tokens} tokens is too short: at least 1")
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise EncoderError(f"{path} is missing: the text tower needs it; fetch or export the model again")
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the Rust library raises Exception itself
            raise EncoderError(f"{path} is not a tokenizer ({error}); fetch or export the model again") from error
        config = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
        kind = tokenizer_class or str(config.get("tokenizer_class") or "").removesuffix("Fast")
        side = padding_side or config.get("padding_side") or PADDING_SIDE.get(kind)
        if side is None:
            side = default("padding_side") if default is not None else "right"
        pad_token = _pad_token(folder, tokenizer)
        if pad_token is None and default is not None:
            pad_token = default("pad_token")
        return cls.of(
            tokenizer,
            context_tokens=context_tokens,
            pad_token=pad_token,
            clean=clean,
            padding_side=side,
            source=folder,
        )

    @classmethod
    def of(
        cls,
        tokenizer: Any,
        *,
        context_tokens: int,
        pad_token: str | int | None,
        clean: str,
        padding_side: str,
        source: Path,
    ) -> TextTokenizer:
        """Set up a `tokenizers.Tokenizer`; the other arguments are those of `from_folder`.

        Args:
            tokenizer: of any settings.
            context_tokens, clean, padding_side: as in `from_folder`.
            pad_token: the padding token or its id.
            source: named in messages.

        Raises:
            EncoderError: the cleaning is unknown, or there is no such padding token.
        """
        if clean not in CLEANERS:
            raise EncoderError(f"{source}: text cleaning {clean!r} is unknown; there are {', '.join(CLEANERS)}")
        if pad_token is None:
            raise EncoderError(
                f"{source} does not name a padding token: put a tokenizer_config.json with 'pad_token' beside "
                "tokenizer.json"
            )
        pad_id = tokenizer.token_to_id(pad_token) if isinstance(pad_token, str) else pad_token
        if pad_id is None:
            raise EncoderError(f"{source} pads with {pad_token!r}, which is not a token of its tokenizer")
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length=context_tokens)
        return cls(
            tokenizer=tokenizer,
            context_tokens=context_tokens,
            pad_id=int(pad_id),
            clean=clean,
            pad_left=padding_side == "left",
        )

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Convert T texts to T lists of ids, with special tokens, at most `context_tokens` long, not padded."""
        clean = CLEANERS[self.clean]
        return [row.ids for row in self.tokenizer.encode_batch([clean(text) for text in texts])]

    def remark(self, text: str) -> str:
        """Return why a text is not read as a whole, as the end of a sentence; empty where it is."""
        row = self.tokenizer.encode(CLEANERS[self.clean](text))
        if row.overflowing:
            return f"is longer than the {self.context_tokens} tokens that the model reads: its end is ignored"
        unknown = getattr(self.tokenizer.model, "unk_token", None)
        words = [token for token, special in zip(row.tokens, row.special_tokens_mask, strict=True) if not special]
        if all(token == unknown for token in words):
            return "has no word that the model knows: the hits are arbitrary, write it in other words"
        if not text.translate(_NO_PUNCTUATION).strip():
            return "has punctuation only: the hits are arbitrary, write what to look for in words"
        if _in_letters(CLEANERS[self.clean](text), row):
            return (
                "has no word of the model's vocabulary, it is read in pieces of one or two letters: if the hits look "
                "arbitrary, write it in other words"
            )
        return ""

    def pad(self, rows: Sequence[Sequence[int]], *, length: int | None = None) -> tuple[TokenIds, TokenIds]:
        """Pad T lists of ids.

        Args:
            rows: from `encode`.
            length: L; None = that of the longest row.

        Returns:
            ids (T, L), and mask (T, L): 1 for a token, 0 for padding.
        """
        length = length or max((len(row) for row in rows), default=1) or 1
        ids = np.full((len(rows), length), self.pad_id, dtype=np.int64)
        mask = np.zeros((len(rows), length), dtype=np.int64)
        for index, row in enumerate(rows):
            cut = row[:length]
            place = slice(length - len(cut), length) if self.pad_left else slice(0, len(cut))
            ids[index, place] = cut
            mask[index, place] = 1
        return ids, mask


def tokenizer_of(encoder: Any) -> TextTokenizer | None:
    """Return the tokenizer of an encoder, or of the encoder that it is made of; None where it has none of this kind."""
    while encoder is not None:
        tokenizer = getattr(encoder, "tokenizer", None)
        if isinstance(tokenizer, TextTokenizer):
            return tokenizer
        encoder = getattr(encoder, "base", None)
    return None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a model.

    Raises:
        EncoderError: it is missing, not a JSON object, or has an entry of another type.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EncoderError(f"{path} cannot be read ({error.strerror}); fetch or export the model again") from error
    except (ValueError, RecursionError) as error:
        raise EncoderError(f"{path} is not JSON ({error}); fetch or export the model again") from error
    if not isinstance(values, dict):
        raise EncoderError(f"{path} is not a JSON object; fetch or export the model again")
    try:
        for key, kind in _ENTRIES.get(path.name, {}).items():
            if (value := _entry(values, key)) is not None:
                check_value(kind, value, name=key, where=str(path))
    except ConfigError as error:
        raise EncoderError(f"{error}; fetch or export the model again") from error
    return values


def _entry(values: Any, key: str) -> Any:
    """Return the value under a dotted key; None where there is none."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _pad_token(folder: Path, tokenizer: Any) -> str | int | None:
    """Read the padding token from the files of the repository, else from `tokenizer.json`."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if not (folder / name).is_file():
            continue
        token = read_json(folder / name).get("pad_token")
        token = token.get("content") if isinstance(token, dict) else token
        if token is not None:
            return str(token)
    return None if tokenizer.padding is None else int(tokenizer.padding["pad_id"])


def _in_letters(text: str, row: Any) -> bool:
    """Test whether a tokenizer cuts each word of a text into pieces of one or two letters.

    Single letters and punctuation are no words. Scripts without cases, such as Chinese, are not tested: a token of one
    character is a word there.
    """
    spans: dict[int, list[tuple[int, int]]] = {}
    for word, span in zip(row.word_ids, row.offsets, strict=True):
        if word is not None:
            spans.setdefault(word, []).append(span)
    found = False
    for pieces in spans.values():
        word = text[pieces[0][0] : pieces[-1][1]].strip()
        if not any(character.isalnum() for character in word) or len(word) == 1:
            continue
        if len(pieces) == 1 or word.lower() == word.upper() or len(word) / len(pieces) > _SHORT_PIECES:
            return False
        found = True
    return found
