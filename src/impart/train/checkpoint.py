"""Checkpoints of a run: one file per checkpoint, complete or absent."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from impart.errors import TrainingError
from impart.files import atomic_path, make_folder

__all__ = ["Checkpoints"]

_NAME = re.compile(r"^step-(\d+)\.pt$")


class Checkpoints:
    """Checkpoints of one run.

    Args:
        folder: made when the first one is written.
        keep: number of checkpoints kept, the newest.
    """

    def __init__(self, folder: Path, *, keep: int = 2):
        self._folder = folder
        self._keep = keep

    def steps(self) -> list[int]:
        """List the steps of the checkpoints, newest first."""
        if not self._folder.is_dir():
            return []
        found = (_NAME.match(path.name) for path in self._folder.iterdir())
        return sorted((int(match[1]) for match in found if match), reverse=True)

    def path(self, step: int) -> Path:
        """Return the file of the checkpoint of a step."""
        return self._folder / f"step-{step:08d}.pt"

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write a checkpoint in one step and remove old ones.

        Raises:
            TrainingError: the folder cannot be written.
        """
        target = self.path(step)
        try:
            make_folder(self._folder)
            with atomic_path(target) as part, part.open("wb") as file:
                torch.save(state, file)
            for old in self.steps()[self._keep :]:
                self.path(old).unlink(missing_ok=True)
            for left in self._folder.glob(".step-*"):  # by a killed run
                left.unlink(missing_ok=True)
        except OSError as error:
            raise TrainingError(
                f"cannot write checkpoint {target}: {error.strerror}. Free some space, then continue with --resume"
            ) from error
        return target

    def newest(self) -> tuple[int, dict[str, Any]] | None:
        """Read the newest checkpoint that is not damaged: (step, state); None where there is none at all.

        Raises:
            TrainingError: all checkpoints are damaged.
        """
        problems: list[str] = []
        for step, state in self._readable(problems):
            return step, state
        if problems:
            raise TrainingError(f"no checkpoint in {self._folder} can be read ({problems[0]}): start in another folder")
        return None

    def _readable(self, problems: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        for step in self.steps():
            try:
                yield step, torch.load(self.path(step), map_location="cpu", weights_only=True)
            except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
                problems.append(f"{self.path(step).name}: {error}".split("\n")[0])
