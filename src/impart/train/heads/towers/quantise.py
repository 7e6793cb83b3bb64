"""The backbone in int8 arithmetic, quantised before the heads are trained.

Weights have one scale per channel, activations are unsigned bytes; the ranges come from training images, as they are,
cropped and shrunk. On processors with VNNI this is twice as fast as float32. The heads are trained on the features of
the quantised network, so that quantisation changes nothing when they are used.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from PIL import Image
from torch import nn

from impart.encoders.onnx.session import OnnxSession, RuntimeOptions
from impart.encoders.preprocess import PreprocessConfig, preprocess
from impart.files import atomic_path, make_folder, sha256_hex
from impart.train.heads.onnx_export import export_graph
from impart.train.heads.towers.backbone import MEAN, STD
from impart.train.prepare.views import try_open_view

__all__ = ["BackboneSession", "backbone_session", "calibration_sample", "quantise_backbone"]

_log = logging.getLogger(__name__)
_CALIBRATION_VIEWS = ("clean", "crop0", "small0")
_CALIBRATION_IMAGES = 192
_PIECE = 4
"""Images in one pass of one thread."""


def backbone_session(backbone: nn.Module, images: Sequence[Path], cache: Path, *, size_px: int) -> BackboneSession:
    """Open the backbone in int8; it is quantised if the cache does not have it.

    Args:
        backbone: in float32.
        images: training images; some two hundred of them give the ranges of the activations.
        cache: folder of the ONNX file.
        size_px: side of the square input.
    """
    preprocessing = PreprocessConfig(
        size_px=size_px, resize_mode="shortest", crop="center", interpolation="bicubic", mean=MEAN, std=STD
    )
    path = cache / f"lite2-{size_px}-int8.onnx"
    if not path.is_file():
        quantise_backbone(backbone, calibration_sample(images), path, preprocessing=preprocessing)
    return BackboneSession(path, preprocessing)


def calibration_sample(images: Sequence[Path]) -> Sequence[Path]:
    """Return some two hundred of the images, evenly spaced."""
    return images[:: max(1, len(images) // _CALIBRATION_IMAGES)]


def quantise_backbone(
    backbone: nn.Module,
    images: Sequence[Path],
    path: Path,
    *,
    preprocessing: PreprocessConfig,
    views: Sequence[str] = _CALIBRATION_VIEWS,
) -> None:
    """Write the backbone, `pixels` (B, 3, S, S) to `features` (B, F'), with int8 convolutions.

    Args:
        backbone: in float32.
        images: some two hundred training images, for the ranges of the activations; unreadable ones are left out.
        path: of the ONNX file.
        preprocessing: images to pixels.
        views: names of views (`views.view`), used in turn.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    make_folder(path.parent)
    plain, prepared, quantised = (path.with_suffix(f".{step}.onnx") for step in ("fp32", "prepared", "quantised"))
    size_px = preprocessing.size_px
    export_graph(
        backbone,
        (torch.zeros(2, 3, size_px, size_px),),
        plain,
        inputs=["pixels"],
        outputs=["features"],
        shapes=({0: torch.export.Dim("B")},),
        int8=None,
    )
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # the quantiser logs to the root logger
    try:
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(quantised),
            _Calibration(images, preprocessing, views),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=["Conv", "Add", "Clip", "Relu"],
        )
    finally:
        root.setLevel(level)
    model = onnx.load(quantised)
    del model.graph.value_info[:]
    onnx.checker.check_model(model)
    with atomic_path(path, keep_suffix=True) as part:
        onnx.save(model, part)
    for file in (plain, prepared, quantised):
        file.unlink()


class _Calibration:
    """Batches of pixels through the quantiser's reader interface."""

    def __init__(self, images: Sequence[Path], preprocessing: PreprocessConfig, views: Sequence[str]) -> None:
        self._batches = self._read(images, preprocessing, views)

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        return next(self._batches, None)

    @staticmethod
    def _read(
        images: Sequence[Path], preprocessing: PreprocessConfig, views: Sequence[str]
    ) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
        for first in range(0, len(images), 8):
            batch = [
                try_open_view((path, views[(first + number) % len(views)], 0))
                for number, path in enumerate(images[first : first + 8])
            ]
            if opened := [image for image in batch if image is not None]:
                yield {"pixels": preprocess(opened, preprocessing)}


class BackboneSession:
    """The quantised backbone on ONNX Runtime: images to features.

    Attributes:
        path: the ONNX file.
        preprocessing: images to pixels.
        key: digest of weights and preprocessing.
        width: F', numbers per image.
    """

    def __init__(self, path: Path, preprocessing: PreprocessConfig) -> None:
        self.path = path
        self.key = sha256_hex(path.read_bytes(), repr(preprocessing))[:16]
        self.preprocessing = preprocessing
        # One piece per thread: threads that work on one piece wait for each other.
        self._session = OnnxSession(path, RuntimeOptions(threads=1, device="cpu"))
        self.width: int = self._session.outputs[0].shape[1]
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1)

    def __call__(self, images: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        """Compute features (B, F') of B images."""
        pieces = [images[first : first + _PIECE] for first in range(0, len(images), _PIECE)]
        return np.concatenate(list(self._pool.map(self._features, pieces)))

    def _features(self, images: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        return self._session.run(["features"], {"pixels": preprocess(images, self.preprocessing)})[0]
