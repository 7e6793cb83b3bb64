"""Project the embeddings of an encoder with two learned matrices; the retrieval embeddings are unchanged.

Training mode `ram` can learn the matrices together with the RAM (`projections.learn`): v' = norm(P v) for images,
t' = norm(Q t) for texts. The folder of `projected:FOLDER` has the matrices and the id of the encoder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from impart.encoders.base import (
    Encoder,
    EncoderTraits,
    Float32,
    ImageEmbeddings,
    ImageInput,
    l2_normalise,
    load_encoder,
)
from impart.encoders.tokens import TextTokenizer, read_json, tokenizer_of
from impart.errors import EncoderError, EncoderMismatchError
from impart.files import atomic_path, blake2b_hex, make_folder, write_json_atomic

__all__ = ["ProjectedEncoder", "load_projected", "write_projected"]

_NAME, _MATRICES = "projection.json", "projection.npz"


class ProjectedEncoder:
    """An encoder with projected embeddings.

    Args:
        base: the encoder.
        image: P (D, D) float32, for image embeddings.
        text: Q (D, D) float32, for text embeddings.
        encoder_id: id that loads it again.
    """

    def __init__(self, base: Encoder, image: Float32, text: Float32, *, encoder_id: str) -> None:
        assert image.shape == text.shape == (base.traits.dim, base.traits.dim), (image.shape, text.shape)
        self._base, self._image, self._text = base, image, text
        # Retrieval embeddings are never projected, so neighbours do not change: also where they are the embeddings.
        self.traits: EncoderTraits = dataclasses.replace(base.traits, id=encoder_id, own_retrieval=True)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the encoder's fingerprint and the matrices."""
        matrices = self._image.tobytes() + self._text.tobytes()
        return blake2b_hex(self._base.fingerprint, matrices)

    @property
    def options(self) -> Any:
        """Options of `load_encoder` with which the encoder was loaded; empty where it does not tell."""
        return getattr(self._base, "options", {})

    @property
    def tokenizer(self) -> TextTokenizer | None:
        """The tokenizer of the encoder that embeds texts."""
        return tokenizer_of(self._base)

    def encode_images(self, images: Sequence[ImageInput]) -> ImageEmbeddings:
        """Embed B images."""
        plain = self._base.encode_images(images)
        return ImageEmbeddings(self.project_images(plain.embeddings), plain.retrieval)

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        """Embed T texts: (T, D)."""
        return self.project_texts(self._base.encode_texts(texts))

    def project_images(self, embeddings: Float32) -> Float32:
        """Project image embeddings (B, D): (B, D), L2-normalised."""
        return l2_normalise(embeddings @ self._image.T)

    def project_texts(self, embeddings: Float32) -> Float32:
        """Project text embeddings (T, D): (T, D), L2-normalised."""
        return l2_normalise(embeddings @ self._text.T)


def write_projected(folder: Path, base: Encoder, image: Float32, text: Float32) -> ProjectedEncoder:
    """Write the matrices (D, D) of an encoder; return the encoder that `projected:FOLDER` loads."""
    make_folder(folder)
    with atomic_path(folder / _MATRICES) as part, part.open("wb") as file:
        np.savez(file, image=image.astype(np.float32), text=text.astype(np.float32))
    content = {"encoder": base.traits.id, "fingerprint": base.fingerprint}
    write_json_atomic(folder / _NAME, content, ascii_only=True)
    return _joined(folder, base, encoder_id=f"projected:{folder}")


def load_projected(rest: str, **options: Any) -> ProjectedEncoder:
    """Load the encoder that a folder names, with the matrices of the folder.

    Args:
        rest: the folder.
        options: for the encoder, such as `threads=2`.

    Raises:
        EncoderError: the folder is damaged.
        EncoderMismatchError: the encoder has changed since training.
    """
    folder = Path(rest).expanduser()
    named = read_json(folder / _NAME)
    if not {"encoder", "fingerprint"} <= named.keys():
        raise EncoderError(f"{folder / _NAME} does not name an encoder: copy or train the model again")
    base = load_encoder(str(named["encoder"]), **options)
    if base.fingerprint != named["fingerprint"]:
        raise EncoderMismatchError(
            f"{folder} was trained with encoder {named['encoder']!r} of fingerprint "
            f"{str(named['fingerprint'])[:12]}, but the installed one has {base.fingerprint[:12]}: "
            "install the version it was trained with, or train again"
        )
    return _joined(folder, base, encoder_id=f"projected:{rest}")


def _joined(folder: Path, base: Encoder, *, encoder_id: str) -> ProjectedEncoder:
    path, dim = folder / _MATRICES, base.traits.dim
    try:
        with np.load(path, allow_pickle=False) as stored:
            image, text = stored["image"], stored["text"]
    except (OSError, ValueError, KeyError) as error:
        raise EncoderError(f"{path} cannot be read ({error}): copy or train the model again") from error
    if image.shape != (dim, dim) or text.shape != (dim, dim):
        raise EncoderError(f"{path} has matrices {image.shape} and {text.shape}, not ({dim}, {dim}): train again")
    return ProjectedEncoder(base, image, text, encoder_id=encoder_id)
