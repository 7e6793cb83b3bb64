"""Tokenizer of a text tower that learns from scratch: lower-case byte-level BPE, learned from the captions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from impart.encoders.tokens import TextTokenizer
from impart.files import make_folder, write_json_atomic
from impart.train.pretrain.settings import PretrainSettings
from impart.train.pretrain.towers.presets import context_of

__all__ = ["END", "START", "learn_tokenizer", "open_tokenizer", "save_tokenizer"]

START, END = "<|startoftext|>", "<|endoftext|>"


def learn_tokenizer(texts: Iterable[str], settings: PretrainSettings) -> TextTokenizer:
    """Learn a lower-case byte-level BPE tokenizer; a function of the captions and settings alone."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    context = context_of(settings)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary,
        min_frequency=2,
        special_tokens=[START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((" ".join(text.split()) for text in texts), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(mark, tokenizer.token_to_id(mark)) for mark in (START, END)]
    )
    tokenizer.enable_truncation(max_length=context)
    return TextTokenizer(
        tokenizer=tokenizer, context_tokens=context, pad_id=tokenizer.token_to_id(END) or 0, clean="whitespace"
    )


def save_tokenizer(tokenizer: TextTokenizer, folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`."""
    make_folder(folder)
    tokenizer.tokenizer.save(str(folder / "tokenizer.json"))
    pad = tokenizer.tokenizer.id_to_token(tokenizer.pad_id)
    kind = {"whitespace": "TokenizersBackend", "lower": "Siglip2Tokenizer", "canonicalize": "SiglipTokenizer"}
    values = {"tokenizer_class": kind[tokenizer.clean], "pad_token": pad, "model_max_length": tokenizer.context_tokens}
    write_json_atomic(folder / "tokenizer_config.json", values, ascii_only=True)


def open_tokenizer(folder: Path, settings: PretrainSettings) -> TextTokenizer:
    """Open a tokenizer's folder; texts are cut to the text tower's context.

    Raises:
        EncoderError: a file is missing or damaged.
    """
    context = context_of(settings)
    return TextTokenizer.from_folder(folder, context_tokens=context, clean="whitespace")
