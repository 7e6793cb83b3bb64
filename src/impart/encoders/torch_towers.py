"""Two torch modules as an `Encoder`, and their export to ONNX.

`hf.py` and `open_clip.py` load the models. No other module of this folder imports torch.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from impart.encoders.base import EncoderTraits, Float32, ImageEmbeddings, ImageInput, l2_normalise
from impart.encoders.device import torch_device_name
from impart.encoders.preprocess import PreprocessConfig
from impart.encoders.tokens import TextTokenizer
from impart.errors import ConfigError, EncoderError, MissingExtraError
from impart.files import make_folder, new_blake2b

try:
    import torch
    from torch import nn
except ImportError as error:
    raise MissingExtraError("torch", extra="torch", purpose="an 'hf:' or 'open_clip:' model") from error

__all__ = ["Inputs", "TorchTower", "TorchEncoder", "as_tensor", "hash_weights", "quiet", "write_graph"]

Inputs: TypeAlias = Sequence[npt.NDArray[Any]]
"""Inputs of a tower, arrays of equally many rows."""
_TEXTS_AT_ONCE = 64
INLINE_BYTES = 1.5e9
"""Larger weights are written to a file beside the graph: one ONNX file has at most 2 GB."""
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class TorchEncoder:
    """Two torch towers and a tokenizer as an `Encoder`.

    Args:
        traits: of the encoder.
        image_tower: inputs from `prepare`, usually pixels (B, 3, S, S) -> (B, D).
        prepare: B images -> the inputs of the image tower, arrays of B rows.
        text_tower: inputs from `tokenize`, ids (T, L) and perhaps a mask (T, L) -> (T, D); None for an image model.
        tokenize: T texts -> the inputs of the text tower, arrays of T rows.
        fingerprint: computes the digest, called at most once.
        preprocess_config: of the images, for the export; None where they are not preprocessed to squares.
        tokenizer: that `tokenize` uses, for the export; None where it is not a `TextTokenizer`.
        device: of the towers, as in `torch_device_name`.
        dtype: number type of the towers.
        threads: CPU threads of torch, for the whole process; 0 = unchanged.

    Attributes:
        options: of `load_encoder`, but for the threads.

    Raises:
        ConfigError: the number type or the device is unknown, or there is no CUDA device.
    """

    def __init__(
        self,
        *,
        traits: EncoderTraits,
        image_tower: nn.Module,
        prepare: Callable[[Sequence[ImageInput]], Inputs],
        text_tower: nn.Module | None,
        tokenize: Callable[[Sequence[str]], Inputs],
        fingerprint: Callable[[], str],
        preprocess_config: PreprocessConfig | None = None,
        tokenizer: TextTokenizer | None = None,
        device: str = "auto",
        dtype: str = "float32",
        threads: int = 0,
    ) -> None:
        if dtype not in _DTYPES:
            raise ConfigError(f"dtype is {dtype!r}: use {', '.join(_DTYPES)}")
        if threads:
            torch.set_num_threads(threads)
        self.traits = traits
        self.preprocess_config = preprocess_config
        self.options: dict[str, Any] = {"device": device, "dtype": dtype}
        self.device = _device(device)
        self.image_tower = image_tower.eval().requires_grad_(False).to(self.device, _DTYPES[dtype])
        self.text_tower = text_tower and text_tower.eval().requires_grad_(False).to(self.device, _DTYPES[dtype])
        self.tokenizer = tokenizer
        self.tokenize = tokenize
        self._prepare = prepare
        self._dtype = _DTYPES[dtype]
        self._fingerprint = fingerprint

    @cached_property
    def fingerprint(self) -> str:
        """Digest of weights, configuration, tokenizer and preprocessing (not of the device)."""
        return self._fingerprint()

    @torch.inference_mode()
    def encode_images(self, images: Sequence[ImageInput]) -> ImageEmbeddings:
        """Embed B images in one forward pass."""
        if not images:
            empty = np.zeros((0, self.traits.dim), dtype=np.float32)
            return ImageEmbeddings(empty, empty)
        embeddings = self._run(self.image_tower, self._prepare(images), "image")  # (B, D)
        return ImageEmbeddings(embeddings, embeddings)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Float32:
        """Embed T texts, 64 at a time: (T, D).

        Raises:
            EncoderError: it is an image model.
        """
        if self.text_tower is None:
            raise EncoderError(
                f"{self.traits.id} has no text tower: it can find neighbours, but not compare images with texts; join "
                "it to a two-tower model with 'impart models pair'"
            )
        rows = [np.zeros((0, self.traits.dim), dtype=np.float32)]
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            rows.append(self._run(self.text_tower, self.tokenize(texts[start : start + _TEXTS_AT_ONCE]), "text"))
        return np.concatenate(rows)

    def _run(self, tower: nn.Module, arrays: Inputs, side: str) -> Float32:
        """Run a tower: L2-normalised rows."""
        inputs = [torch.from_numpy(array).to(self.device) for array in arrays]
        try:
            vectors = tower(*(each.to(self._dtype) if each.is_floating_point() else each for each in inputs))
        except Exception as error:  # RuntimeError of torch, ValueError of transformers, ...
            raise EncoderError(f"{self.traits.id}: the {side} tower failed ({error})") from error
        return l2_normalise(vectors.float().cpu().numpy())


class TorchTower(nn.Module):
    """One tower of a two-tower model as a module, with L2-normalised output.

    Args:
        model: has the weights.
        side: runs the tower.
    """

    def __init__(self, model: nn.Module, side: Callable[..., Any]) -> None:
        super().__init__()
        self.model = model
        self._side = side

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        output = self._side(*inputs)
        # transformers 5 wraps the projected features; 4 returns them.
        features = output if isinstance(output, torch.Tensor) else output.pooler_output
        return nn.functional.normalize(features, dim=-1)


def as_tensor(vectors: Float32) -> torch.Tensor:
    """Make a tensor of the same memory."""
    return torch.from_numpy(vectors)


def hash_weights(*modules: nn.Module, settings: str) -> str:
    """Digest the weights in memory, for models that are not loaded from their own files; in hex digits."""
    digest = new_blake2b(settings)
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def write_graph(encoder: TorchEncoder, path: Path, *, side: str) -> None:
    """Export one tower to ONNX, for any batch size.

    The input is `image` (float32) or `text` (int32), with `attention_mask` (int32) where the text tower takes one; the
    output is `image_embedding` or `text_embedding`.

    Args:
        encoder: float32, on the CPU.
        path: of the .onnx file; weights above `INLINE_BYTES` are written to a file beside it.
        side: `image` or `text`.

    Raises:
        EncoderError: torch cannot export the model.
    """
    size = encoder.traits.image_size_px
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=encoder.traits.context_tokens)
    names, shapes = [side], [{0: batch}]
    if side == "image":
        tower: Any = encoder.image_tower
        samples = [torch.zeros(2, 3, size, size)]
    else:
        tower = encoder.text_tower
        arrays = encoder.tokenize(["a", "a photo of a dog"])
        if len(arrays) == 1:  # padding is a part of the text: always the length of training
            samples = [torch.ones(2, encoder.traits.context_tokens, dtype=torch.int32)]
        else:
            names, shapes = [side, "attention_mask"], [{0: batch, 1: length}] * 2
            samples = [torch.from_numpy(array).int() for array in arrays]
    weights = sum(parameter.numel() * parameter.element_size() for parameter in tower.parameters())
    make_folder(path.parent)
    with quiet():
        try:
            program = torch.onnx.export(
                tower,
                tuple(samples),
                input_names=names,
                output_names=[f"{side}_embedding"],  # the exporter itself uses "embedding"
                dynamic_shapes=(tuple(shapes),),
                opset_version=18,
                dynamo=True,
                verbose=False,
            )
            assert program is not None
            for node in program.model.graph.all_nodes():
                node.metadata_props.clear()  # the exporter's notes contain paths of this machine
            program.save(str(path), external_data=weights > INLINE_BYTES)
        except Exception as error:  # many types, of three packages
            raise EncoderError(
                f"{encoder.traits.id}: torch cannot export the {side} tower to {path}: {error}"
            ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings of exporters about their own deprecations and about optional packages."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _device(name: str) -> torch.device:
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    try:
        return torch.device(torch_device_name(name, cuda=cuda, mps=mps, version=torch.__version__))
    except RuntimeError as error:
        raise ConfigError(f"device is {name!r}: use auto, cpu, cuda, cuda:1 or mps") from error
