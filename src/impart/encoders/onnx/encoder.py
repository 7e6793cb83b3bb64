"""Encoders on ONNX Runtime: the bundled `mini`, and `onnx:<folder or hub repo>`. No torch.

`onnx:` reads the layout of many published CLIP and SigLIP exports (`immich-app/*` for example):

    config.json                   open_clip's model config: embed_dim, text_cfg.context_length, ...; ours: logit_scale
    visual/model.onnx             pixels (B or 1, 3, S, S) -> embedding; optionally a second output `retrieval`
    visual/preprocess_cfg.json    open_clip's: size, mean, std, interpolation, resize_mode
    textual/model.onnx            ids (T or 1, L), int32 or int64, and optionally an attention mask -> embedding
    textual/tokenizer.json        and tokenizer_config.json, which names the padding token

Input names, types and fixed batch sizes are read from the graphs. Each tower is opened when it is first used: a text
search does not load the image tower.
"""

from __future__ import annotations

import dataclasses
import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from impart.encoders.base import EncoderTraits, Float32, ImageEmbeddings, ImageInput, l2_normalise
from impart.encoders.bundled import model_home
from impart.encoders.onnx.session import OnnxTower, RuntimeOptions
from impart.encoders.preprocess import PreprocessConfig, preprocess, short_side
from impart.encoders.tokens import TextTokenizer, read_json
from impart.errors import ConfigError, EncoderError
from impart.files import blake2b_of_file, new_blake2b

__all__ = ["MINI_FOLDER", "OnnxEncoder", "RuntimeOptions", "hash_files", "load_mini", "load_onnx"]

MINI_FOLDER = model_home("mini")
_TEXTS_AT_ONCE = 16


@dataclass(frozen=True)
class SmallImages:
    """Preprocessing of small images, for an image tower with two input sizes.

    Attributes:
        up_to_px: longest short side of a small image.
        config: preprocessing of small images.
    """

    up_to_px: int
    config: PreprocessConfig


class OnnxEncoder:
    """Two ONNX towers and a tokenizer as an `Encoder`.

    Args:
        traits: of the encoder.
        image_model: path of the image tower.
        text_model: path of the text tower.
        tokenizer: makes the tokenizer, called for the first text.
        preprocess_config: of images.
        small: of small images, where the image tower has separate weights for them.
        fingerprint_of: further files and settings that the vectors depend on, such as the tokenizer.
        options: threads and devices; also an attribute.

    Raises:
        EncoderError: a tower is missing.
    """

    def __init__(
        self,
        *,
        traits: EncoderTraits,
        image_model: Path,
        text_model: Path,
        tokenizer: Callable[[], TextTokenizer],
        preprocess_config: PreprocessConfig,
        small: SmallImages | None = None,
        fingerprint_of: tuple[Sequence[Path], Mapping[str, Any]] = ((), {}),
        options: RuntimeOptions | None = None,
    ) -> None:
        self.traits = traits
        self.preprocess_config = preprocess_config
        self._small = small
        self._paths = (image_model, text_model)
        self._make_tokenizer = tokenizer
        self._fingerprint_of = fingerprint_of
        self.options = options or RuntimeOptions()
        self._lock = threading.Lock()
        self._images: OnnxTower | None = None
        self._texts: tuple[OnnxTower, TextTokenizer] | None = None
        for path in self._paths:
            if not path.is_file():
                raise EncoderError(f"{path} is missing: fetch or export model {traits.id!r} again")

    @cached_property
    def fingerprint(self) -> str:
        """Digest of both towers (with external weights), the tokenizer and the preprocessing."""
        files, settings = self._fingerprint_of
        towers = [file for path in self._paths for file in sorted(path.parent.glob(f"{path.name}*"))]
        described: dict[str, Any] = {**settings, "preprocess": self.preprocess_config.to_dict()}
        if self._small:
            described["small"] = {"up_to_px": self._small.up_to_px, **self._small.config.to_dict()}
        return hash_files([*towers, *files], settings=described)

    def encode_images(self, images: Sequence[ImageInput]) -> ImageEmbeddings:
        """Embed B images in one forward pass, or in B passes where the graph has batch size 1.

        Small images are encoded in a separate pass, where the tower has separate weights for them.
        """
        if not images:
            return ImageEmbeddings(
                np.zeros((0, self.traits.dim), np.float32), np.zeros((0, self.traits.retrieval_dim), np.float32)
            )
        outputs = self._run_images(images)
        embeddings = l2_normalise(outputs["embedding"])  # (B, D)
        retrieval = l2_normalise(outputs["retrieval"]) if self.traits.own_retrieval else embeddings  # (B, R)
        self._check_width(embeddings, "image", self.traits.dim)
        self._check_width(retrieval, "retrieval", self.traits.retrieval_dim)
        return ImageEmbeddings(embeddings, retrieval)

    def _run_images(self, images: Sequence[ImageInput]) -> dict[str, Float32]:
        """Run the image tower: outputs with B rows."""
        tower, small = self._image_tower, self._small
        short = np.array([small is not None and short_side(image) <= small.up_to_px for image in images])
        if small is None or not short.any():
            return tower.run({"pixels": preprocess(images, self.preprocess_config)})
        outputs: dict[str, Float32] = {}
        for rows, config in ((short, small.config), (~short, self.preprocess_config)):
            if rows.any():
                chosen = [image for image, own in zip(images, rows, strict=True) if own]
                for name, values in tower.run({"pixels": preprocess(chosen, config)}).items():
                    outputs.setdefault(name, np.empty((len(images), values.shape[1]), np.float32))[rows] = values
        return outputs

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        """Embed T texts, 16 of about equal length at a time: (T, D)."""
        tower, tokenizer = self._text_tower
        result = np.zeros((len(texts), self.traits.dim), dtype=np.float32)
        # Pad to the longest text only where the graph has a mask and a free length; else to the length of training.
        free = "mask" in tower.inputs and tower.length is None
        length = None if free else tower.length or self.traits.context_tokens
        rows = tokenizer.encode(texts)
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            here = order[start : start + _TEXTS_AT_ONCE]
            ids, mask = tokenizer.pad([rows[row] for row in here], length=length)  # (t, L)
            embeddings = l2_normalise(tower.run({"ids": ids, "mask": mask})["embedding"])
            self._check_width(embeddings, "text", self.traits.dim)
            result[here] = embeddings
        return result

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer of the text tower."""
        return self._text_tower[1]

    @property
    def _image_tower(self) -> OnnxTower:
        with self._lock:
            if self._images is None:
                tower = OnnxTower(self._paths[0], self.options)
                for config in (self.preprocess_config, *([self._small.config] if self._small else [])):
                    tower.check_image(config.size_px)
                if ("retrieval" in tower.outputs) != self.traits.own_retrieval:
                    raise EncoderError(
                        f"{self._paths[0]} and its description disagree on the output 'retrieval': set "
                        "'retrieval_dim' in the model's JSON file to the width of that output, or remove it"
                    )
                self._images = tower
            return self._images

    @property
    def _text_tower(self) -> tuple[OnnxTower, TextTokenizer]:
        with self._lock:
            if self._texts is None:
                self._texts = OnnxTower(self._paths[1], self.options), self._make_tokenizer()
            return self._texts

    def _check_width(self, vectors: Float32, what: str, width: int) -> None:
        if vectors.ndim != 2 or vectors.shape[1] != width:
            raise EncoderError(
                f"model {self.traits.id!r} returned {what} vectors of shape {vectors.shape}, but its description has "
                f"width {width}; the files do not belong together: fetch or export the model again"
            )


def load_mini(rest: str = "", *, threads: int = 0, **options: Any) -> OnnxEncoder:
    """Load the bundled model, or a model of the same layout.

    Args:
        rest: folder of another model, as in `mini:my-training-run`; empty = the bundled model.
        threads: CPU threads; 0 = one per core.
        options: further fields of `RuntimeOptions`.

    Raises:
        EncoderError: a file is missing or damaged.
    """
    folder = Path(rest).expanduser().resolve() if rest else MINI_FOLDER
    if not (folder / "model.json").is_file():
        remedy = "check the path" if rest else "reinstall impart, or train it with 'python -m impart.recipes.mini'"
        raise EncoderError(f"{folder / 'model.json'} is missing: {remedy}")
    model = read_json(folder / "model.json")
    try:
        traits = EncoderTraits(
            id=f"mini:{folder}" if rest else "mini",
            dim=int(model["dim"]),
            retrieval_dim=int(model.get("retrieval_dim") or model["dim"]),
            own_retrieval=bool(model.get("retrieval_dim")),
            image_size_px=int(model["preprocess"]["size"]),
            context_tokens=int(model["context_tokens"]),
            logit_scale=float(model.get("logit_scale", EncoderTraits.logit_scale)),
        )
        config = PreprocessConfig.from_dict(model["preprocess"])
        small = model.get("small_pictures")
        small = small and SmallImages(int(small["up_to_px"]), dataclasses.replace(config, size_px=int(small["size"])))
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise EncoderError(f"{folder / 'model.json'} is not a model description: {error}; reinstall impart") from error
    clean = str(model.get("clean", "whitespace"))
    return OnnxEncoder(
        traits=traits,
        image_model=folder / "image.onnx",
        text_model=folder / "text.onnx",
        tokenizer=lambda: TextTokenizer.from_folder(folder, context_tokens=traits.context_tokens, clean=clean),
        preprocess_config=config,
        small=small,
        fingerprint_of=([folder / "tokenizer.json"], {"clean": clean, "context_tokens": traits.context_tokens}),
        options=RuntimeOptions.of({"threads": threads, **options}),
    )


def load_onnx(folder_or_repo: str, *, threads: int = 0, **options: Any) -> OnnxEncoder:
    """Load a CLIP or SigLIP export from a folder or from the hub.

    Args:
        folder_or_repo: in the layout of this module's docstring.
        threads: CPU threads; 0 = one per core.
        options: further fields of `RuntimeOptions`.

    Raises:
        EncoderNotFoundError: no folder and no repository has this name.
        EncoderError: a file is missing or damaged, or the hub cannot be reached.
    """
    folder = Path(folder_or_repo).expanduser() if folder_or_repo else None
    local = folder is not None and folder.is_dir()
    if folder is None or not local:
        from impart.encoders.hub import ONNX_FILES, resolve

        folder = resolve(folder_or_repo, ONNX_FILES)
    folder = folder.resolve()
    model = read_json(folder / "config.json")
    try:
        config = PreprocessConfig.from_dict(read_json(folder / "visual" / "preprocess_cfg.json"))
    except ConfigError as error:
        raise EncoderError(f"{folder / 'visual' / 'preprocess_cfg.json'}: {error}") from error
    text = model.get("text_cfg") or {}
    dim = model.get("embed_dim") or model.get("projection_dim")
    if not isinstance(dim, int) or not isinstance(text, dict):
        raise EncoderError(f"{folder / 'config.json'} has no 'embed_dim'; fetch or export the model again")
    retrieval_dim = int(model.get("retrieval_dim") or dim)
    clean = str((text.get("tokenizer_kwargs") or {}).get("clean", "whitespace"))
    context_tokens = int(text.get("context_length") or 77)
    return OnnxEncoder(
        traits=EncoderTraits(
            id=f"onnx:{folder if local else folder_or_repo}",
            dim=dim,
            retrieval_dim=retrieval_dim,
            own_retrieval="retrieval_dim" in model,
            image_size_px=config.size_px,
            context_tokens=context_tokens,
            logit_scale=_number(model, "logit_scale", EncoderTraits.logit_scale, path=folder / "config.json"),
            logit_bias=_number(model, "logit_bias", EncoderTraits.logit_bias, path=folder / "config.json"),
        ),
        image_model=folder / "visual" / "model.onnx",
        text_model=folder / "textual" / "model.onnx",
        tokenizer=lambda: TextTokenizer.from_folder(folder / "textual", context_tokens=context_tokens, clean=clean),
        preprocess_config=config,
        fingerprint_of=(
            sorted((folder / "textual").glob("tokenizer*.json")),
            {"clean": clean, "context_tokens": context_tokens},
        ),
        options=RuntimeOptions.of({"threads": threads, **options}),
    )


def _number(model: Mapping[str, Any], name: str, default: float, *, path: Path) -> float:
    """Read a finite number of a model's description; the default where it has none."""
    value = model.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise EncoderError(f"{path}: {name!r} is {value!r}, not a number; export the model again")
    return float(value)


def hash_files(paths: Sequence[Path], *, settings: Mapping[str, Any]) -> str:
    """Digest the contents of files, in order, and settings; in hex digits.

    Raises:
        EncoderError: a file cannot be read.
    """
    digest = new_blake2b(json.dumps(settings, sort_keys=True))
    for path in paths:
        try:
            digest.update(blake2b_of_file(path))
        except OSError as error:
            raise EncoderError(f"{path} cannot be read ({error.strerror}); fetch or export the model again") from error
    return digest.hexdigest()
