"""One ONNX graph on ONNX Runtime: opened, its inputs and outputs found by what they are, run in batches it takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32
from impart.errors import ConfigError, EncoderError

__all__ = ["RuntimeOptions", "Tower"]

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """How ONNX Runtime may use the machine.

    Threads do not spin while they wait unless asked to: next to a busy decoder spinning took a third of the speed.

    Attributes:
        threads: CPU threads of one tower; 0 = one a core.
        spin: let waiting threads spin.
        providers: execution providers in order of preference.
    """

    threads: int = 0
    spin: bool = False
    providers: tuple[str, ...] = ("CPUExecutionProvider",)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> RuntimeOptions:
        """From a loader's options.

        Raises:
            ConfigError: an option is not known.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in options:
            if name not in known:
                raise ConfigError(f"models on ONNX Runtime have no option {name!r}; they have {', '.join(known)}")
        return cls(**options)


class Tower:
    """One ONNX graph, with its inputs and outputs found by what they are instead of by name.

    Attributes:
        inputs: role (`pixels`, `ids` or `mask`) -> (name in the graph, number type).
        outputs: role (`embedding`, `retrieval`) -> name in the graph.
        length: L where the graph fixes the number of tokens.
    """

    def __init__(self, path: Path, options: RuntimeOptions) -> None:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.add_session_config_entry("session.intra_op.allow_spinning", "1" if options.spin else "0")
        settings.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), settings, providers=list(options.providers))
        except Exception as error:  # its exception classes share no public base
            reason = str(error).strip().splitlines()[0]
            raise EncoderError(f"{path} cannot be opened ({reason}); fetch or export the model again") from error
        self._path = path
        graph_inputs = self._session.get_inputs()
        self.inputs: dict[str, tuple[str, Any]] = {}
        for item in graph_inputs:
            role = "pixels" if len(item.shape) == 4 else "mask" if "mask" in item.name else "ids"
            if role in self.inputs or item.type not in _TYPES:
                names = ", ".join(f"{item.name} {item.type}" for item in graph_inputs)
                raise EncoderError(f"{path} has inputs that are not known: {names}; export the towers one by one")
            self.inputs[role] = (item.name, _TYPES[item.type])
        shape = list(graph_inputs[0].shape)
        self._shape = shape
        self._batch = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else None
        self.length = shape[1] if len(shape) == 2 and isinstance(shape[1], int) and shape[1] > 0 else None
        outputs = [item.name for item in self._session.get_outputs()]
        self.outputs = {"embedding": "embedding" if "embedding" in outputs else outputs[0]}
        if "retrieval" in outputs:
            self.outputs["retrieval"] = "retrieval"

    def check_image(self, size_px: int) -> None:
        """Raise where the graph does not take pictures of this size."""
        side = self._shape[-1]
        if "pixels" not in self.inputs or (isinstance(side, int) and side != size_px):
            raise EncoderError(
                f"{self._path} takes input of shape {self._shape}, but the preprocessing gives {size_px} px squares; "
                "the files do not belong together: fetch or export the model again"
            )

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, Float32]:
        """Role -> array with B rows, to output -> array with B rows, float32."""
        if not set(self.inputs) <= set(feeds):
            raise EncoderError(
                f"{self._path} takes {', '.join(self.inputs)}, not {', '.join(feeds)}; is it the other tower?"
            )
        pieces: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in self.outputs}
        typed = {name: feeds[role].astype(kind, copy=False) for role, (name, kind) in self.inputs.items()}
        try:
            for rows, chunk in self._chunks(typed):
                outputs = self._session.run(list(self.outputs.values()), chunk)
                for name, output in zip(self.outputs, outputs, strict=True):
                    pieces[name].append(output[:rows])
        except Exception as error:  # as above
            reason = str(error).strip().splitlines()[0]
            raise EncoderError(f"{self._path} failed ({reason}); fetch or export the model again") from error
        return {name: np.concatenate(parts).astype(np.float32, copy=False) for name, parts in pieces.items()}

    def _chunks(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Iterator[tuple[int, dict[str, npt.NDArray[Any]]]]:
        """All rows at once, or as many as the graph's fixed batch takes, the last one filled up by repetition."""
        total = len(next(iter(feeds.values())))
        size = self._batch or total
        for start in range(0, total, size):
            rows = min(size, total - start)
            index = np.minimum(np.arange(start, start + size), total - 1)
            yield rows, {name: feed if size == total else feed[index] for name, feed in feeds.items()}
