"""Log of a run: log.jsonl, one object per line, and the same figures for TensorBoard."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from impart.errors import TrainingError, install_command
from impart.files import make_folder, write_atomic

__all__ = ["RunLog", "read_log"]

_log = logging.getLogger(__name__)


class RunLog:
    """Writer of the figures by step.

    Args:
        folder: of the run; `log.jsonl` and `tensorboard/` are made in it.
        start: step to continue after. Later lines, of a killed run, are dropped, so that the log equals that of an
            undisturbed run.
        tensorboard: whether TensorBoard files are written.

    Raises:
        TrainingError: the log cannot be written.
    """

    def __init__(self, folder: Path, *, start: int = 0, tensorboard: bool = True):
        self._path = folder / "log.jsonl"
        self._writer: Any = None
        try:
            make_folder(folder)
            kept = [line for line in read_log(folder) if line["step"] <= start] if start else []
            write_atomic(self._path, "".join(json.dumps(line) + "\n" for line in kept))
            self._file = self._path.open("a", encoding="utf-8")
        except OSError as error:
            raise TrainingError(f"cannot write the log {self._path}: {error.strerror}") from error
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                _log.warning("tensorboard is not installed (%s): only log.jsonl is written", install_command("train"))
            else:
                writer: Any = SummaryWriter
                self._writer = writer(str(folder / "tensorboard"), purge_step=start + 1 if start else None)

    def write(self, step: int, kind: str, figures: dict[str, float]) -> None:
        """Append one line: `{"step": ..., "kind": ..., figures}`."""
        self._file.write(json.dumps({"step": step, "kind": kind, **figures}) + "\n")
        self._file.flush()
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Close the log and the TensorBoard writer."""
        self._file.close()
        if self._writer is not None:
            self._writer.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Read all complete lines of a run's log; a line cut off by a kill is left out."""
    path = folder / "log.jsonl"
    if not path.is_file():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return [line for line in lines if isinstance(line, dict) and isinstance(line.get("step"), int)]
