"""`SentenceEncoder`: any encoder with the `encode` of sentence-transformers, for pipelines that expect such a model.

    model = SentenceEncoder(impart.load_encoder("mini"))
    vectors = model.encode(["a dog", Image.open("dog.jpg"), Path("cat.jpg")])      # (3, D)

Texts and images are in one space, so a mixed list is one array. sentence-transformers itself is not needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from impart.encoders.base import Encoder, Float32, ImageInput
from impart.errors import ConfigError, DataError, MissingExtraError
from impart.images import DRAFT_SIDES, load_image

__all__ = ["SentenceEncoder", "SentenceInput"]

SentenceInput: TypeAlias = "str | os.PathLike[str] | ImageInput"
"""A text (always, also where it looks like a path), a path object of an image file, a PIL image or an RGB array."""

_BATCH = 32


class SentenceEncoder:
    """An encoder, plain or augmented, as a model of sentence-transformers: `encode` and what belongs to it.

    All vectors are float32 and L2-normalised. What an encoder cannot do (token embeddings, quantised vectors, other
    devices than the one it was loaded on) is an error, never ignored.

    Args:
        encoder: any encoder.

    Attributes:
        encoder: as given.
        max_seq_length: texts are cut to this many tokens.
        similarity_fn_name: `cosine`.
        model_card_data: for the evaluators of sentence-transformers, which also return their metrics.

    Example:
        >>> import impart
        >>> model = SentenceEncoder(impart.load_encoder("mini"))
        >>> red = Image.new("RGB", (64, 64), "red")
        >>> vectors = model.encode(["a red square", red, "a blue square"])
        >>> vectors.shape, model.encode("a red square").shape
        ((3, 384), (384,))
        >>> similarity = model.similarity(red_vector := model.encode(red), vectors)[0]
        >>> bool(similarity[0] > similarity[2])
        True
    """

    similarity_fn_name = "cosine"

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.max_seq_length = encoder.traits.context_tokens
        self.model_card_data = _NoModelCard()

    def encode(
        self,
        inputs: SentenceInput | Iterable[SentenceInput] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = _BATCH,
        show_progress_bar: bool | None = None,  # noqa: ARG002 - a library prints nothing
        output_value: str | None = "sentence_embedding",
        precision: str | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | None = None,
        normalize_embeddings: bool = True,  # noqa: ARG002 - they always are
        truncate_dim: int | None = None,
        *,
        sentences: SentenceInput | Iterable[SentenceInput] | None = None,
    ) -> Any:
        """Embed texts and images, in their order.

        Args:
            inputs: one input or any number; a text is never taken as a path. `sentences` is its former name.
            prompt: put before each text.
            batch_size: inputs per forward pass.
            show_progress_bar: accepted; no bar is drawn.
            convert_to_numpy: False gives a list of torch tensors.
            convert_to_tensor: gives one torch tensor.
            normalize_embeddings: accepted; vectors always have unit length.
            prompt_name, output_value, precision, device, truncate_dim: accepted with their defaults alone.

        Returns:
            float32 (N, D), or (D,) for one input; L2-normalised.

        Raises:
            ConfigError: an input or a value that an encoder has no counterpart for.
            DataError: an image file cannot be read.
            MissingExtraError: tensors without torch.
        """
        given = inputs if inputs is not None else sentences
        if given is None:
            raise ConfigError("encode needs texts or images: give one, or a list of them")
        _refuse("prompt_name", prompt_name, None, "give the prompt itself, as prompt=")
        _refuse("output_value", output_value, "sentence_embedding", "an encoder gives one vector per input")
        _refuse("precision", precision or "float32", "float32", "quantise the float32 vectors yourself")
        _refuse("device", device, None, "choose it when the encoder is loaded, as in load_encoder(..., device='cuda')")
        _refuse("truncate_dim", truncate_dim, None, "a part of these vectors is not a vector of a smaller model")
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}: give 1 or more")
        single = _is_single(given)
        items: list[Any] = [given] if single else list(given)  # type: ignore[arg-type]
        vectors = self._vectors(items, prompt=prompt or "", batch_size=batch_size)
        if convert_to_tensor:
            tensors = _tensors(vectors)
            return tensors[0] if single else tensors
        if not convert_to_numpy:
            tensors = _tensors(vectors)
            return tensors[0] if single else list(tensors)
        return vectors[0] if single else vectors

    def encode_query(self, inputs: SentenceInput | Iterable[SentenceInput], **keywords: Any) -> Any:
        """Embed queries; the same as `encode`, since texts and images are in one space."""
        return self.encode(inputs, **keywords)

    def encode_document(self, inputs: SentenceInput | Iterable[SentenceInput], **keywords: Any) -> Any:
        """Embed what is searched; the same as `encode`."""
        return self.encode(inputs, **keywords)

    def get_embedding_dimension(self) -> int:
        """Return D."""
        return self.encoder.traits.dim

    def get_sentence_embedding_dimension(self) -> int:
        """Return D; the former name of `get_embedding_dimension`."""
        return self.get_embedding_dimension()

    def similarity(self, first: Any, second: Any) -> Any:
        """Compute the cosines of all pairs.

        Args:
            first: (N, D) or (D,), arrays or tensors; second: (M, D) or (D,), of the same type.

        Returns:
            (N, M), of that type.
        """
        rows, columns = _unit_rows(first), _unit_rows(second)
        return rows @ columns.T

    def similarity_pairwise(self, first: Any, second: Any) -> Any:
        """Compute the cosine of each row of `first` with the same row of `second`: (N,)."""
        return (_unit_rows(first) * _unit_rows(second)).sum(-1)

    def _vectors(self, items: Sequence[Any], *, prompt: str, batch_size: int) -> Float32:
        """Embed texts and images each in batches of their own, and put the vectors in the order of the inputs."""
        vectors = np.empty((len(items), self.encoder.traits.dim), np.float32)
        texts = [number for number, item in enumerate(items) if isinstance(item, str)]
        images = [number for number, item in enumerate(items) if not isinstance(item, str)]

        def fill(numbers: Sequence[int], embed: Callable[[list[Any]], npt.NDArray[Any]]) -> None:
            for first in range(0, len(numbers), batch_size):
                part = numbers[first : first + batch_size]
                vectors[part] = embed([items[number] for number in part])

        fill(texts, lambda part: self.encoder.encode_texts([f"{prompt}{text}" for text in part]))
        fill(images, lambda part: self.encoder.encode_images([self._image(item) for item in part]).embeddings)
        return vectors

    def _image(self, item: Any) -> ImageInput:
        """Return an image in memory; a file is read."""
        if isinstance(item, os.PathLike):
            path = Path(item)
            try:
                return load_image(path, draft_px=DRAFT_SIDES * self.encoder.traits.image_size_px)[0]
            except DataError as error:
                raise DataError(f"cannot encode {path}: {error}") from error
        if _is_image(item):
            image: ImageInput = item
            return image
        raise ConfigError(
            f"cannot encode a {type(item).__name__}: give texts, pathlib.Path of image files, PIL images or RGB arrays"
        )


class _NoModelCard:
    """Model card of a model that has none."""

    def set_evaluation_metrics(self, *_: object) -> None:
        """Take metrics, which the evaluator returns as well."""


def _is_image(item: Any) -> bool:
    if isinstance(item, np.ndarray):
        return item.ndim == 3 and item.dtype == np.uint8
    return isinstance(item, Image.Image)


def _is_single(given: Any) -> bool:
    """Whether the input is one text or image, not a list of them."""
    return isinstance(given, str | os.PathLike | dict) or _is_image(given)


def _refuse(name: str, value: object, allowed: object, remedy: str) -> None:
    if value != allowed:
        raise ConfigError(f"encode({name}={value!r}) is not possible: {remedy}")


def _tensors(vectors: Float32) -> Any:
    try:
        from impart.encoders.torch_towers import as_tensor
    except MissingExtraError as error:
        raise MissingExtraError("torch", extra="torch", purpose="encode(convert_to_tensor=True)") from error
    return as_tensor(vectors)


def _unit_rows(vectors: Any) -> Any:
    """Scale rows to unit length; (D,) becomes (1, D). Arrays and tensors keep their type."""
    rows = vectors if hasattr(vectors, "ndim") else np.asarray(vectors, np.float32)
    if rows.ndim == 1:
        rows = rows[None]
    norms = (rows * rows).sum(-1)[:, None] ** 0.5
    return rows / norms.clip(1e-12)
