"""Choose the device of an encoder: one rule for ONNX Runtime and for torch.

`auto` computes on CUDA where it is there, else on the CPU. `cuda` is refused where it is missing, with the package that
brings it. A device never changes a fingerprint: the vectors differ in the last bits alone.

Each runtime reports its first use of CUDA once per process, as a message of the logger `impart.encoders.device`.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import warnings
from typing import get_args

from impart.config import Device
from impart.errors import ConfigError, ImpartWarning

__all__ = ["CPU", "CUDA", "LOG", "check_onnx_cuda", "onnx_providers", "report_cuda", "torch_device_name", "warn_of_cpu"]

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
"""Execution providers of ONNX Runtime."""
LOG = logging.getLogger(__name__)


def onnx_providers(device: str) -> tuple[str, ...]:
    """Choose the execution providers of ONNX Runtime, in order of preference.

    Args:
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ConfigError: there is no such device, or CUDA is missing.

    >>> onnx_providers("cpu")
    ('CPUExecutionProvider',)
    """
    if device not in get_args(Device):
        raise ConfigError(f"device is {device!r}: on ONNX Runtime use {', '.join(get_args(Device))}")
    if device == "cpu":
        return (CPU,)
    if device == "cuda":
        check_onnx_cuda()
    elif not _has_onnx_cuda():
        return (CPU,)
    _preload()
    return (CUDA, CPU)


def check_onnx_cuda(reason: str = "") -> None:
    """Refuse CUDA where ONNX Runtime does not have it.

    Args:
        reason: why the provider cannot be used, although it is installed; empty = check whether it is.

    Raises:
        ConfigError: names the reason, the remedy and the device that `auto` takes.
    """
    import onnxruntime

    remedy = "; with the device auto or cpu this model runs on cpu"
    if reason:
        raise ConfigError(
            f"device is 'cuda', but the CUDA provider of ONNX Runtime cannot be used ({reason}): check that nvidia-smi "
            f"lists a GPU, and install CUDA and cuDNN with: pip install 'onnxruntime-gpu[cuda,cudnn]'{remedy}"
        )
    if not _has_onnx_cuda():
        there = ", ".join(onnxruntime.get_available_providers())
        raise ConfigError(
            f"device is 'cuda', but the installed ONNX Runtime has no CUDA provider (it has {there}): pip uninstall "
            f"onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]'{remedy}"
        )


def torch_device_name(name: str, *, cuda: bool, mps: bool, version: str) -> str:
    """Choose the device of torch; it is reported where it is CUDA.

    Args:
        name: `auto` (CUDA, else MPS, else CPU) or a device of torch, such as `cpu`, `cuda`, `cuda:1` or `mps`.
        cuda, mps: whether torch finds such a device.
        version: of torch.

    Raises:
        ConfigError: CUDA is missing.

    >>> torch_device_name("auto", cuda=False, mps=True, version="2.9.0")
    'mps'
    """
    other = "mps" if mps else "cpu"
    if name == "auto":
        name = "cuda" if cuda else other
    if name.partition(":")[0] == "cuda":
        if not cuda:
            raise ConfigError(
                f"device is {name!r}, but torch {version} finds no CUDA device: check that nvidia-smi lists a GPU, and "
                "install the package torch in its CUDA build (https://pytorch.org/get-started/locally); with the "
                f"device auto this model runs on {other}"
            )
        report_cuda("torch")
    return name


@functools.cache
def report_cuda(runtime: str) -> None:
    """Report that a runtime computes on CUDA; once per process."""
    LOG.info("device: cuda (%s)", runtime)


@functools.cache
def warn_of_cpu(reason: str) -> None:
    """Warn that the CUDA provider is installed and cannot be used; once per process and reason."""
    warnings.warn(
        f"the CUDA provider of ONNX Runtime cannot be used ({reason}), so the model runs on cpu; --device cpu leaves "
        "this message out",
        ImpartWarning,
        stacklevel=2,
    )


def _has_onnx_cuda() -> bool:
    import onnxruntime

    return CUDA in onnxruntime.get_available_providers()


@functools.cache
def _preload() -> None:
    """Load the libraries of CUDA from the packages of pip, where ONNX Runtime finds them there alone.

    What it prints is discarded: a provider that cannot be used is reported when a graph is opened.
    """
    import onnxruntime

    if hasattr(onnxruntime, "preload_dlls"):  # from 1.21 on
        with contextlib.redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()
