"""The encoder contract: images and texts to unit vectors, and the registry of model ids.

Everything downstream (classification, video search, evaluation) takes an `Encoder` and never asks what is behind
it. From one forward pass an image gives two vectors: the *embedding*, which is compared with texts, and the
*retrieval embedding*, which finds neighbours among reference pairs (RA-CLIP retrieves with a frozen, unimodal image
encoder; models without one use the embedding itself).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image

from impart.errors import EncoderNotFoundError

__all__ = [
    "Encoder",
    "EncoderTraits",
    "Float32",
    "ImageEmbeddings",
    "ImageInput",
    "l2_normalise",
    "load_encoder",
    "register",
]

Float32: TypeAlias = npt.NDArray[np.float32]
ImageInput: TypeAlias = "Image.Image | npt.NDArray[np.uint8]"
"""A PIL image of any mode, or an RGB array (height, width, 3) of uint8."""


@dataclass(frozen=True, kw_only=True)
class EncoderTraits:
    """What a caller may want to know of an encoder without running it.

    Attributes:
        id: the id that `load_encoder` takes.
        dim: D, width of image and text embeddings.
        retrieval_dim: R, width of the retrieval embeddings.
        own_retrieval: whether retrieval embeddings come from a separate head; False where they are the embedding.
        image_size_px: side of the square that the image tower sees.
        context_tokens: texts are cut to this many tokens.
        logit_scale: what the model multiplies its cosines with to get logits (its learned inverse temperature); 100 is
            CLIP's.
    """

    id: str
    dim: int
    retrieval_dim: int
    own_retrieval: bool
    image_size_px: int
    context_tokens: int
    logit_scale: float = 100.0


@dataclass(frozen=True)
class ImageEmbeddings:
    """One forward pass over B images; both arrays float32 with L2-normalised rows.

    Attributes:
        embeddings: (B, D), comparable with text embeddings.
        retrieval: (B, R), comparable with the retrieval embeddings of reference pairs.
    """

    embeddings: Float32
    retrieval: Float32

    def __post_init__(self) -> None:
        assert self.embeddings.ndim == 2, self.embeddings.shape
        assert self.retrieval.ndim == 2, self.retrieval.shape
        assert len(self.embeddings) == len(self.retrieval)

    def __len__(self) -> int:
        return len(self.embeddings)


@runtime_checkable
class Encoder(Protocol):
    """Images and texts to L2-normalised float32 vectors of one space."""

    @property
    def traits(self) -> EncoderTraits: ...

    @property
    def fingerprint(self) -> str:
        """Hex digest over weights and preprocessing: equal fingerprints give equal vectors."""
        ...

    def encode_images(self, images: Sequence[ImageInput]) -> ImageEmbeddings:
        """Embed B images in one forward pass (the caller chooses B)."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        """Embed T texts: (T, D)."""
        ...


def l2_normalise(vectors: npt.NDArray[Any]) -> Float32:
    """Rows scaled to unit length, float32; a zero row stays zero.

    >>> l2_normalise(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    rows: Float32 = vectors.astype(np.float32, copy=False)
    norms = np.sqrt(np.einsum("...d,...d->...", rows, rows))
    return np.asarray(rows / np.maximum(norms, 1e-12)[..., None], dtype=np.float32)


Loader: TypeAlias = Callable[..., Encoder]
_REGISTRY: dict[str, Loader] = {}


def register(scheme: str, loader: Loader) -> None:
    """Make `load_encoder("scheme")` and `load_encoder("scheme:rest")` call `loader(rest, **options)`.

    `rest` is the empty string for a bare scheme. A researcher's own encoder needs one line.
    """
    _REGISTRY[scheme] = loader


def load_encoder(model_id: str = "mini", **options: Any) -> Encoder:
    """Load an encoder by id.

    Args:
        model_id: `mini` (bundled), `onnx:<folder or hub repo>`, `hf:<folder or hub repo>`,
            `open_clip:<model>/<tag>`, or a scheme added with `register`.
        options: passed to the backend, such as `threads=2` for the ONNX ones or `device="cuda"` for the torch ones.

    Raises:
        EncoderNotFoundError: the scheme is unknown, or there is no such model.
        MissingExtraError: the backend is not installed.
    """
    scheme, _, rest = model_id.partition(":")
    loader = _REGISTRY.get(scheme)
    if loader is None:
        known = ", ".join(sorted(_REGISTRY))
        raise EncoderNotFoundError(
            f"no encoder {model_id!r}: ids start with one of {known}, "
            "such as 'mini' or 'hf:openai/clip-vit-base-patch32'"
        )
    return loader(rest, **options)
