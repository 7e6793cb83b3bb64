"""The encoder contract: images and texts to unit vectors, and the registry of model ids.

Classification, video search and evaluation take any `Encoder`: a plain one, an augmented one, or the caller's own. One
forward pass computes two vectors per image. The *embedding* is compared with texts. The *retrieval embedding* finds
neighbours in a reference set: RA-CLIP retrieves with a frozen, unimodal image encoder, and models without one use the
embedding itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image

from impart.errors import EncoderNotFoundError
from impart.validation import closest

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
    """Properties of an encoder that need no forward pass.

    Attributes:
        id: argument of `load_encoder`.
        dim: D, width of image and text embeddings.
        retrieval_dim: R, width of the retrieval embeddings.
        own_retrieval: whether retrieval embeddings have their own head; False where they equal the embeddings.
        image_size_px: side of the square input of the image tower.
        context_tokens: texts are cut to this many tokens.
        logit_scale: factor from cosines to logits, the learned inverse temperature of the model; 100 in CLIP.
        logit_bias: added to the scaled cosines, for the sigmoid of SigLIP; 0 in models that are trained with softmax.
    """

    id: str
    dim: int
    retrieval_dim: int
    own_retrieval: bool
    image_size_px: int
    context_tokens: int
    logit_scale: float = 100.0
    logit_bias: float = 0.0


@dataclass(frozen=True)
class ImageEmbeddings:
    """One forward pass over B images; both arrays float32 with L2-normalised rows.

    Attributes:
        embeddings: (B, D), for cosines with text embeddings.
        retrieval: (B, R), for cosines with the retrieval embeddings of references.
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
    """Embeds images and texts as L2-normalised float32 vectors of one space.

    Any object with these members is an encoder.

    Example:
        >>> import impart
        >>> encoder = impart.load_encoder("mini")
        >>> isinstance(encoder, impart.Encoder)
        True
        >>> red, blue = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))
        >>> images = encoder.encode_images([red, blue])
        >>> images.embeddings.shape, images.retrieval.shape
        ((2, 384), (2, 256))
        >>> texts = encoder.encode_texts(["a red square", "a blue square"])
        >>> (texts @ images.embeddings.T).argmax(axis=1).tolist()  # nearest image of each text
        [0, 1]
    """

    @property
    def traits(self) -> EncoderTraits: ...

    @property
    def fingerprint(self) -> str:
        """Hex digest of weights and preprocessing: equal fingerprints give equal vectors."""
        ...

    def encode_images(self, images: Sequence[ImageInput]) -> ImageEmbeddings:
        """Embed B images in one forward pass; the caller chooses B."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        """Embed T texts: (T, D)."""
        ...


def l2_normalise(vectors: npt.NDArray[Any]) -> Float32:
    """Scale rows to unit length, in float32; a zero row stays zero.

    >>> l2_normalise(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    rows: Float32 = vectors.astype(np.float32, copy=False)
    norms = np.sqrt(np.einsum("...d,...d->...", rows, rows))
    return np.asarray(rows / np.maximum(norms, 1e-12)[..., None], dtype=np.float32)


Loader: TypeAlias = Callable[..., Encoder]
_REGISTRY: dict[str, Loader] = {}


def register(scheme: str, loader: Loader) -> None:
    """Register a loader: `load_encoder("scheme:rest", **options)` calls `loader(rest, **options)`.

    Args:
        scheme: first part of the model id.
        loader: `rest` is empty where the id is the scheme alone.
    """
    _REGISTRY[scheme] = loader


def load_encoder(model_id: str = "mini", **options: Any) -> Encoder:
    """Load an encoder by id.

    Args:
        model_id: `mini` (bundled), `onnx:<folder or hub repo>`, `hf:<folder or hub repo>`,
            `open_clip:<model>/<tag>`, or a scheme added with `register`.
        options: of the backend: `threads=2`; `device`, which is `auto` (CUDA where it is there, else the CPU), `cpu`
            or `cuda`; and further ones, such as `dtype="float16"` on torch.

    Raises:
        EncoderNotFoundError: the scheme is unknown, or there is no such model.
        EncoderError: a file of the model is missing or damaged.
        ConfigError: an option is unknown, or the device is `cuda` and CUDA is missing.
        MissingExtraError: the backend is not installed.

    Example:
        >>> import impart
        >>> encoder = impart.load_encoder("mini", threads=1)
        >>> encoder.traits.id, encoder.traits.dim, encoder.traits.image_size_px
        ('mini', 384, 256)
    """
    scheme, _, rest = model_id.partition(":")
    loader = _REGISTRY.get(scheme)
    if loader is None:
        known = ", ".join(sorted(_REGISTRY))
        if Path(model_id).expanduser().is_dir():
            raise EncoderNotFoundError(
                f"the folder {model_id} is not the id of a model: write onnx:{model_id} or hf:{model_id} for a model "
                "in it. The folder of a trained RAM is opened by commands as it is, in Python by "
                "impart.blending.ram_checkpoint.open_checkpoint"
            )
        raise EncoderNotFoundError(
            f"no encoder {model_id!r}{closest(scheme, _REGISTRY)}: ids start with one of {known}, "
            "such as 'mini' or 'hf:openai/clip-vit-base-patch32'"
        )
    return loader(rest, **options)
