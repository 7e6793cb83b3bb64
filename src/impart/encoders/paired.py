"""Combine two encoders: embeddings of the first, retrieval embeddings of the second.

RA-CLIP finds neighbours with a frozen, unimodal image encoder beside the trained towers. The folder of `paired:FOLDER`
has a file `retrieval.json` with the ids of both. Where it names no first encoder, that is the one in the folder:
`mini:FOLDER` if there is a `model.json`, else `hf:FOLDER`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from impart.encoders.base import Encoder, EncoderTraits, Float32, ImageEmbeddings, ImageInput, load_encoder
from impart.encoders.tokens import TextTokenizer, read_json, tokenizer_of
from impart.errors import EncoderError, EncoderMismatchError
from impart.files import blake2b_hex, write_json_atomic

__all__ = ["PairedEncoder", "load_paired", "write_paired"]

_NAME = "retrieval.json"


class PairedEncoder:
    """Two encoders as one `Encoder`.

    Args:
        base: for the embeddings of images and texts.
        retrieval: for the retrieval embeddings.
        encoder_id: id that loads the pair again.
    """

    def __init__(self, base: Encoder, retrieval: Encoder, *, encoder_id: str) -> None:
        self._base, self._retrieval = base, retrieval
        self.traits: EncoderTraits = dataclasses.replace(
            base.traits, id=encoder_id, retrieval_dim=retrieval.traits.retrieval_dim, own_retrieval=True
        )

    @property
    def fingerprint(self) -> str:
        """Digest of both fingerprints."""
        both = f"{self._base.fingerprint} {self._retrieval.fingerprint}"
        return blake2b_hex(both)

    @property
    def options(self) -> Any:
        """Options of `load_encoder` with which the first encoder was loaded; empty where it does not tell."""
        return getattr(self._base, "options", {})

    @property
    def tokenizer(self) -> TextTokenizer | None:
        """The tokenizer of the encoder that embeds texts."""
        return tokenizer_of(self._base)

    def encode_images(self, images: Sequence[ImageInput]) -> ImageEmbeddings:
        """Embed B images with both encoders."""
        return ImageEmbeddings(
            self._base.encode_images(images).embeddings, self._retrieval.encode_images(images).retrieval
        )

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        """Embed T texts with the first encoder: (T, D)."""
        return self._base.encode_texts(texts)


def write_paired(folder: Path, retrieval: Encoder, *, base: Encoder | None = None) -> str:
    """Write `retrieval.json`; return the id `paired:FOLDER`.

    Args:
        folder: of the pair.
        retrieval: for the retrieval embeddings.
        base: for the embeddings; None = the encoder in the folder.
    """
    content = {"encoder": retrieval.traits.id, "fingerprint": retrieval.fingerprint}
    if base is not None:
        content |= {"base": base.traits.id, "base_fingerprint": base.fingerprint}
    write_json_atomic(folder / _NAME, content, ascii_only=True)
    return f"paired:{folder}"


def load_paired(rest: str, **options: Any) -> PairedEncoder:
    """Load both encoders of a folder.

    Args:
        rest: the folder.
        options: for the first encoder; `threads` and `device` are for both.

    Raises:
        EncoderError: the folder does not name a retrieval encoder.
        EncoderMismatchError: an encoder has changed since the pair was made.
    """
    folder = Path(rest).expanduser().resolve()
    named = read_json(folder / _NAME)
    if not {"encoder", "fingerprint"} <= named.keys() or ("base" in named) != ("base_fingerprint" in named):
        raise EncoderError(f"{folder / _NAME} does not name a retrieval encoder: copy or train the model again")
    shared = {name: value for name, value in options.items() if name in ("threads", "device")}
    retrieval = load_encoder(str(named["encoder"]), **shared)
    _check(retrieval, named["fingerprint"], f"{folder} was made with retrieval encoder {named['encoder']!r}")
    inside = f"mini:{folder}" if (folder / "model.json").is_file() else f"hf:{folder}"
    base = load_encoder(str(named.get("base", inside)), **options)
    if "base" in named:
        _check(base, named["base_fingerprint"], f"{folder} was made with encoder {named['base']!r}")
    return PairedEncoder(base, retrieval, encoder_id=f"paired:{folder}")


def _check(encoder: Encoder, fingerprint: object, made: str) -> None:
    if encoder.fingerprint != fingerprint:
        raise EncoderMismatchError(
            f"{made} of fingerprint {str(fingerprint)[:12]}, but the installed one has {encoder.fingerprint[:12]}: "
            "install the version it was made with, or make it again"
        )
