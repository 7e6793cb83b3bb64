"""Open ONNX graphs on ONNX Runtime, and run the towers of encoders in batches."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32
from impart.encoders.device import CPU, CUDA, check_onnx_cuda, onnx_providers, report_cuda, warn_of_cpu
from impart.errors import EncoderError
from impart.validation import check_names

__all__ = ["OnnxSession", "OnnxTower", "RuntimeOptions"]

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}
_EMBEDDING_OUTPUTS = ("embedding", "{side}_embedding", "{side}_embeds", "{side}_features", "pooler_output")
"""Names of the output with the embeddings, in order of preference: ours, our exports, then those of other exporters."""
_PIECE = 4
"""Images per pass of one thread. Their activations fit the caches: 16 images per pass took 25% more CPU time."""


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """Threads and devices of ONNX Runtime.

    Attributes:
        threads: CPU threads per graph; 0 = one per core.
        split: cut a batch into pieces as for this many threads; 0 = for those of this process. Equal pieces give equal
            bits, whatever the number of threads.
        spin: waiting threads spin. Off, because beside a busy decoder it cost a third of the speed.
        device: `auto` (CUDA where it is there, else the CPU), `cpu` or `cuda`.
        providers: execution providers in order of preference, in place of a device; empty = those of the device.

    Raises:
        ConfigError: the device is unknown, or is `cuda` and ONNX Runtime has no CUDA provider.
    """

    threads: int = 0
    split: int = 0
    spin: bool = False
    device: str = "auto"
    providers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.device != "auto" and not self.providers:
            onnx_providers(self.device)  # checks it

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> RuntimeOptions:
        """Convert the options of a loader.

        Raises:
            ConfigError: an option is unknown.
        """
        known = (field.name for field in dataclasses.fields(cls))
        check_names(options, known, where="a model on ONNX Runtime", kind="option")
        return cls(**options)


class OnnxSession:
    """An open ONNX graph. Failures of ONNX Runtime are raised as `EncoderError`.

    Args:
        path: of the graph.
        options: threads and devices; None = all cores, on the CPU.
        remedy: end of the error messages, for a graph that cannot be opened or run.

    Attributes:
        inputs, outputs: of the graph, each with `name`, `type` and `shape`.
        on_cpu: whether the CPU computes it.

    Raises:
        ConfigError: the device is `cuda`, and CUDA cannot be used.
        EncoderError: the graph cannot be opened.
    """

    def __init__(
        self, path: Path, options: RuntimeOptions | None = None, *, remedy: str = "fetch or export the model again"
    ) -> None:
        import onnxruntime

        options = options or RuntimeOptions(device="cpu")
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.add_session_config_entry("session.intra_op.allow_spinning", "1" if options.spin else "0")
        # Without VNNI, int8 products overflow where the sum of two exceeds 16 bits; with VNNI this has no effect.
        settings.add_session_config_entry("session.x64quantprecision", "1")
        settings.log_severity_level = 3
        self._path = path
        self._remedy = remedy
        self._settings = settings
        wanted = options.providers or onnx_providers(options.device)
        if options.providers or CUDA not in wanted:
            self._session = self._open(wanted)
        else:
            self._session = self._open_on_cuda(wanted, required=options.device == "cuda")
        used: list[str] = self._session.get_providers()
        self.on_cpu = used[0] == CPU
        if CUDA in used:
            report_cuda(f"ONNX Runtime {onnxruntime.__version__}")
        self.inputs: list[Any] = self._session.get_inputs()
        self.outputs: list[Any] = self._session.get_outputs()

    def _open(self, providers: Sequence[str], **options: Any) -> Any:
        import onnxruntime

        try:
            return onnxruntime.InferenceSession(str(self._path), self._settings, providers=list(providers), **options)
        except Exception as error:  # the runtime's exceptions have no public base class
            raise self._failure("cannot be opened", error) from error

    def _open_on_cuda(self, providers: Sequence[str], *, required: bool) -> Any:
        """Open the graph on CUDA; on the CPU where that fails and is not required.

        The runtime would change to the CPU by itself: without an error, or with a text on standard output.
        """
        reason = "its libraries cannot be loaded, or there is no GPU"
        try:
            session = self._open(providers, enable_fallback=0)
            if CUDA in session.get_providers():
                return session
        except EncoderError as error:
            session = self._open([CPU])  # raises the error of a graph that no device can open
            reason = _first_line(error.__cause__ or error)
        if required:
            check_onnx_cuda(reason)
        warn_of_cpu(reason)
        return session

    def run(self, outputs: Sequence[str], feeds: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Run the graph.

        Args:
            outputs: names of the wanted outputs.
            feeds: name of each input -> array.

        Raises:
            EncoderError: the graph fails.
        """
        try:
            results: list[npt.NDArray[Any]] = self._session.run(list(outputs), dict(feeds))
        except Exception as error:  # as above
            raise self._failure("failed", error) from error
        return results

    def _failure(self, verb: str, error: Exception) -> EncoderError:
        return EncoderError(f"{self._path} {verb} ({_first_line(error)}); {self._remedy}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class OnnxTower:
    """One tower of an encoder. Inputs are identified by shape and type, since their names differ between exports.

    An image tower on CPUs splits a batch into pieces and runs each piece on one thread. Threads that share one piece
    wait for each other after every layer, and wait longer on a busy machine. Until the first batch, a single image
    runs on all threads.

    Attributes:
        inputs: role (`pixels`, `ids` or `mask`) -> (name in the graph, number type).
        outputs: role (`embedding`, `retrieval`) -> name in the graph.
        length: L where the graph has a fixed number of tokens, else None.

    Raises:
        EncoderError: the graph cannot be opened, or has unknown inputs.
    """

    def __init__(self, path: Path, options: RuntimeOptions) -> None:
        self._path = path
        self._options = options
        self._session = OnnxSession(path, options)
        self._on_cpu = self._session.on_cpu
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        graph_inputs = self._session.inputs
        self.inputs: dict[str, tuple[str, Any]] = {}
        for item in graph_inputs:
            role = "pixels" if len(item.shape) == 4 else "mask" if "mask" in item.name else "ids"
            if role in self.inputs or item.type not in _TYPES:
                names = ", ".join(f"{item.name} {item.type}" for item in graph_inputs)
                raise EncoderError(f"{path} has unknown inputs: {names}; export each tower to a graph of its own")
            self.inputs[role] = (item.name, _TYPES[item.type])
        shape = list(graph_inputs[0].shape)
        self._shape = shape
        self._batch = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else None
        self.length = shape[1] if len(shape) == 2 and isinstance(shape[1], int) and shape[1] > 0 else None
        self.outputs = {"embedding": self._embedding_output()}
        if "retrieval" in (item.name for item in self._session.outputs):
            self.outputs["retrieval"] = "retrieval"

    def check_image(self, size_px: int) -> None:
        """Check that the graph takes images of this size.

        Raises:
            EncoderError: it does not.
        """
        side = self._shape[-1]
        if "pixels" not in self.inputs or (isinstance(side, int) and side != size_px):
            raise EncoderError(
                f"{self._path} takes input of shape {self._shape}, but the preprocessing gives {size_px} px squares; "
                "the files do not belong together: fetch or export the model again"
            )

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, Float32]:
        """Run B rows.

        Args:
            feeds: role -> array with B rows.

        Returns:
            Role of each output -> float32 array with B rows.

        Raises:
            EncoderError: an input is missing, or the graph fails.
        """
        if not set(self.inputs) <= set(feeds):
            raise EncoderError(
                f"{self._path} takes {', '.join(self.inputs)}, not {', '.join(feeds)}; is it the other tower?"
            )
        typed = {name: feeds[role].astype(kind, copy=False) for role, (name, kind) in self.inputs.items()}
        parts = list(self._passes(self._pieces(len(next(iter(typed.values())))), typed))
        columns = zip(*parts, strict=True)
        return {
            role: np.concatenate(column).astype(np.float32, copy=False)
            for role, column in zip(self.outputs, columns, strict=True)
        }

    def _pieces(self, total: int) -> list[tuple[int, int]]:
        """Split rows into passes (first row, one past the last): of the fixed batch size, else nearly equal pieces."""
        if self._batch:
            return [(first, min(first + self._batch, total)) for first in range(0, total, self._batch)]
        count = 1
        if self._in_pieces:
            split = self._options.split or self._threads
            rounds = -(-total // (_PIECE * split))
            count = min(total, rounds * split)
        return [(total * i // count, total * (i + 1) // count) for i in range(count)]

    def _passes(
        self, pieces: list[tuple[int, int]], feeds: Mapping[str, npt.NDArray[Any]]
    ) -> Iterable[list[npt.NDArray[Any]]]:
        """Compute the outputs of each piece, in order."""
        names = list(self.outputs.values())
        session = self._session

        def one(piece: tuple[int, int]) -> list[npt.NDArray[Any]]:
            first, last = piece
            rows = np.arange(first, first + self._batch).clip(max=last - 1) if self._batch else slice(first, last)
            outputs = session.run(names, {name: feed[rows] for name, feed in feeds.items()})
            return [output[: last - first] for output in outputs]

        if len(pieces) == 1 or not self._in_pieces or self._threads == 1:
            return map(one, pieces)
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="impart-onnx")
                self._session = OnnxSession(self._path, dataclasses.replace(self._options, threads=1, device="cpu"))
            session = self._session
        return self._pool.map(one, pieces)

    def _embedding_output(self) -> str:
        """Choose the output with the embeddings: by its name, else the only one with two dimensions (B, D).

        Raises:
            EncoderError: no output or several could be it; the first is not taken for it.
        """
        side = "image" if "pixels" in self.inputs else "text"
        flat: dict[str, Any] = {  # the shape is empty where the graph does not declare it
            item.name: item.shape for item in self._session.outputs if not item.shape or len(item.shape) == 2
        }
        for name in (pattern.format(side=side) for pattern in _EMBEDDING_OUTPUTS):
            if name in flat:
                return name
        others = [name for name in flat if name != "retrieval"]
        if len(others) == 1:
            return others[0]
        found = ", ".join(f"{item.name} {item.shape}" for item in self._session.outputs)
        raise EncoderError(
            f"{self._path}: {len(others)} outputs could be the embedding (outputs: {found}); export the tower with an "
            f"output 'embedding', '{side}_embeds' or 'pooler_output' of shape (batch, width)"
        )

    @property
    def _threads(self) -> int:
        return self._options.threads or os.cpu_count() or 1

    @property
    def _in_pieces(self) -> bool:
        return "pixels" in self.inputs and self._on_cpu
