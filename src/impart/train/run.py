"""One call from a config to a trained folder: checks the folder, keeps the settings, runs the mode.

OUT/config.json      the resolved settings, and the number of processes
OUT/checkpoints/     the last states, for --resume
OUT/log.jsonl        figures by step; the same in OUT/tensorboard/
OUT/failures.csv     images and texts that could not be used
OUT/model/           what was trained
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from impart.errors import ConfigError, TrainingError
from impart.files import write_json_atomic
from impart.train.events import TrainEvent
from impart.train.settings import TrainConfig

__all__ = ["MODES", "train"]

MODES = {
    "ram": "impart.train.ram.task",
    "episodes": "impart.train.episodes.task",
    "heads": "impart.train.heads.run",
    "pretrain": "impart.train.pretrain.run",
}
"""Modules with `run(config, *, data, out, resume)`, imported when asked for."""

_FREE = {
    ("loop", "checkpoint_every"),
    ("loop", "validate_every"),
    ("loop", "keep"),
    ("loop", "device"),
    ("pretrain", "workers"),
}
"""Settings that may change between two parts of a run; so may all of [log], and where computed things are cached."""


def train(config: TrainConfig, *, data: Path, out: Path, resume: bool = False) -> Iterator[TrainEvent]:
    """Train as a config says.

    Args:
        config: the settings.
        data: folder that relative paths of the config start from.
        out: folder of the run, made when missing.
        resume: go on with the run that is there (from its start, if it had no checkpoint yet).

    Yields:
        Events; the last is `Finished`.

    Raises:
        TrainingError: the folder holds a run and `resume` is not set, or the run cannot go on.
        ConfigError: a resumed run had other settings.
    """
    settings = json.loads(json.dumps(config.as_dict())) | {"processes": int(os.environ.get("WORLD_SIZE", "1"))}
    path = out / "config.json"
    if int(os.environ.get("RANK", "0")) == 0:  # of several processes the first speaks for all
        _take(path, settings, out, resume=resume)
    yield from importlib.import_module(MODES[config.mode]).run(config, data=data, out=out, resume=resume)


def _take(path: Path, settings: Mapping[str, Any], out: Path, *, resume: bool) -> None:
    """Check the folder of the run and keep the settings there."""
    if path.is_file():
        if not resume:
            raise TrainingError(f"{out} holds a run already: go on with --resume, or name another folder")
        _check_same(_read(path), settings, out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json_atomic(path, settings, ascii_only=True)
    except OSError as error:
        raise TrainingError(f"cannot write to {out}: {error.strerror}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read ({error}): start in another folder") from error
    return content if isinstance(content, dict) else {}


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], out: Path) -> None:
    """Raise where a setting that shapes the run has changed."""
    before = {"processes": 1, **before}
    # a stream is shared out among the workers, so their number is part of its order
    free = _FREE - ({("pretrain", "workers")} if (now.get("pretrain") or {}).get("stream") else set())
    for table in sorted(before.keys() | now.keys()):
        if table == "log":
            continue
        old, new = before.get(table), now.get(table)
        old_values = old if isinstance(old, dict) else {"": old}
        new_values = new if isinstance(new, dict) else {"": new}
        for name in sorted(old_values.keys() | new_values.keys()):
            if (table, name) in free or (table, name) in {("data", "cache"), ("data", "threads"), ("data", "batch")}:
                continue
            if old_values.get(name) != new_values.get(name):
                setting = f"{table}.{name}" if name else table
                raise ConfigError(
                    f"{setting} was {old_values.get(name)!r} when the run in {out} began and is "
                    f"{new_values.get(name)!r} now: resume with the same settings, or train in another folder"
                )
