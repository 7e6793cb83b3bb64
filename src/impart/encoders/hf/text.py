"""Read the tokenizers of transformers models, with the defaults of their classes.

`tokenizer.json` is read as it is. Without one, transformers makes the tokenizer from the older files; a sentencepiece
model of SigLIP (`spiece.model`), for which it has no fast tokenizer, is converted here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from impart.encoders.hf.families import Family
from impart.encoders.tokens import PADDING_SIDE, TextTokenizer, read_json
from impart.encoders.torch_towers import quiet
from impart.errors import EncoderError, MissingExtraError

__all__ = ["read_tokenizer"]

_CLEAN_BY_TOKENIZER = {
    "CLIPTokenizer": "whitespace",
    "SiglipTokenizer": "canonicalize",
    "Siglip2Tokenizer": "lower",
    "GemmaTokenizer": "lower",  # the fixed-size SigLIP 2 models: model_type "siglip" with Gemma's tokenizer
    "PreTrainedTokenizer": "whitespace",
    "TokenizersBackend": "whitespace",
}
"""Cleaning of transformers' tokenizer classes, which `tokenizer.json` does not include."""
_UNIGRAM = 1
"""`model_type` of a sentencepiece model."""
_SPIECE_TOKENS = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
"""Special tokens of transformers' `SiglipTokenizer` where its config does not name them."""


def read_tokenizer(folder: Path, *, family: Family, context_tokens: int) -> TextTokenizer:
    """Read the tokenizer of a two-tower model.

    Args:
        folder: with the model.
        family: of the model.
        context_tokens: L, longest input.

    Raises:
        EncoderError: files are missing or damaged.
        MissingExtraError: sentencepiece is needed and not installed.
    """
    path = folder / "tokenizer_config.json"
    config = read_json(path) if path.is_file() else {}
    kind = family.tokenizer or str(config.get("tokenizer_class") or "").removesuffix("Fast")
    known = {} if family.tokenizer or family.clean == "none" else _CLEAN_BY_TOKENIZER
    clean = known.get(kind, family.clean)
    if clean == "canonicalize" and config.get("do_lower_case") is False:
        clean = "no_punctuation"
    # Texts that are padded to the longest of their batch must begin at the first position.
    side = None if family.pad_to_context else "right"
    slow = _ByTransformers(folder)
    if (folder / "tokenizer.json").is_file():
        return TextTokenizer.from_folder(
            folder,
            context_tokens=context_tokens,
            clean=clean,
            padding_side=side,
            tokenizer_class=kind,
            default=slow.default,
        )
    if (folder / "spiece.model").is_file() and (kind == "SiglipTokenizer" or (not kind and family.pad_to_context)):
        tokenizer, pad_token = _from_spiece(folder / "spiece.model", config), str(_content(config, "pad_token", "</s>"))
        side = side or str(config.get("padding_side") or PADDING_SIDE["SiglipTokenizer"])
    else:
        tokenizer, pad_token = slow.backend(), slow.default("pad_token")
        side = side or slow.default("padding_side")
    return TextTokenizer.of(
        tokenizer, context_tokens=context_tokens, pad_token=pad_token, clean=clean, padding_side=side, source=folder
    )


class _ByTransformers:
    """The tokenizer as transformers makes it, made when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def _made(self) -> Any:
        import transformers

        with quiet():
            return transformers.AutoTokenizer.from_pretrained(str(self._folder), local_files_only=True)

    def default(self, name: str) -> str:
        """Return a property that the files do not state, such as `padding_side`.

        Raises:
            EncoderError: transformers cannot make the tokenizer, or it has no such property.
        """
        path = self._folder / "tokenizer_config.json"
        try:
            value = getattr(self._made, name)
        except Exception as error:  # the type depends on what is missing
            raise EncoderError(
                f"{path} does not state {name!r}, and transformers cannot make the tokenizer to tell its default "
                f"({_first_line(error)}); write {name!r} there"
            ) from error
        if not isinstance(value, str):
            raise EncoderError(f"{path} does not state {name!r}, and its class has no default; write {name!r} there")
        return value

    def backend(self) -> Any:
        """Return the `tokenizers.Tokenizer` that transformers makes from the older files.

        Raises:
            EncoderError: there is none.
        """
        try:
            return self._made.backend_tokenizer
        except Exception as error:  # the type depends on what is missing
            raise EncoderError(
                f"{self._folder / 'tokenizer.json'} is missing, and the other files give no fast tokenizer "
                f"({_first_line(error)}); copy tokenizer.json, or the files that this names, from the model's source"
            ) from error


def _from_spiece(path: Path, config: Mapping[str, Any]) -> Any:
    """Convert the sentencepiece model of `SiglipTokenizer` to a `tokenizers.Tokenizer`.

    Raises:
        EncoderError: it is damaged, or not a unigram model.
        MissingExtraError: sentencepiece is not installed.
    """
    try:
        from sentencepiece import sentencepiece_model_pb2 as protocol
    except ImportError as error:
        raise MissingExtraError("sentencepiece", extra="torch", purpose=f"the tokenizer in {path}") from error
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    proto = protocol.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except Exception as error:  # DecodeError of protobuf, OSError
        raise EncoderError(f"{path} is not a sentencepiece model ({error}); fetch the model again") from error
    training, normalising = proto.trainer_spec, proto.normalizer_spec
    if training.model_type != _UNIGRAM or not proto.pieces:
        raise EncoderError(f"{path} is not a unigram model, as SigLIP's are; save a tokenizer.json beside it")
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    tokenizer = Tokenizer(models.Unigram(pieces, training.unk_id, byte_fallback=training.byte_fallback))
    steps: list[Any] = []
    if normalising.precompiled_charsmap:
        steps.append(normalizers.Precompiled(normalising.precompiled_charsmap))
    if normalising.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="\u2581", prepend_scheme="always")
    special = {name: str(_content(config, name, default)) for name, default in _SPIECE_TOKENS.items()}
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in dict.fromkeys(special.values())])
    end = special["eos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", end], special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    return tokenizer


def _content(config: Mapping[str, Any], name: str, default: str) -> Any:
    """Read a special token, which is a text or an object with `content`."""
    token = config.get(name, default)
    return token.get("content", default) if isinstance(token, dict) else token


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
