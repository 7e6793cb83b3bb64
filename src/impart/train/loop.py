"""Training loop of all modes: `fit` runs a `TrainingTask` and yields events.

Random numbers are a function of (seed, step), the learning rate is one of the step, and a checkpoint contains the
rest. A run that was killed and resumed ends with the same weights, bit for bit, as an undisturbed one (same machine and
libraries). Devices, processes and precision are accelerate's.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import os
import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from impart.errors import MissingExtraError, TrainingError
from impart.train.checkpoint import Checkpoints
from impart.train.distributed import like, whole
from impart.train.events import Finished, Resumed, Saved, StepDone, TrainEvent, Validated
from impart.train.optim import build_optimiser, clip_gradients, learning_rate
from impart.train.runlog import RunLog
from impart.train.settings import TrainConfig
from impart.train.task import Temperature, TrainingTask

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["TrainingTask", "fit", "make_accelerator"]

_PATIENCE = datetime.timedelta(hours=12)
"""Time that processes wait for each other: the first one may have to embed millions of images before the start."""


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Set up devices, processes and precision from the config and the launcher (`accelerate launch`, `torchrun`).

    Several processes on a machine without a CUDA device compute on the CPU.

    Raises:
        MissingExtraError: accelerate is not installed.
        TrainingError: accelerate did not join all processes of the launcher.
    """
    try:
        from accelerate import Accelerator, InitProcessGroupKwargs
        from accelerate.state import AcceleratorState, PartialState
    except ImportError as error:
        raise MissingExtraError("accelerate", extra="train", purpose="training") from error
    if AcceleratorState._shared_state and PartialState().num_processes == 1:
        # accelerate keeps the settings of its first run in this process
        AcceleratorState._reset_state(reset_partial_state=True)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    accelerator = Accelerator(
        mixed_precision="bf16" if config.loop.precision == "bf16" else "no",
        gradient_accumulation_steps=config.loop.accumulate,
        # without this, each process would train alone where there is no CUDA device
        cpu=config.loop.device == "cpu" or (processes > 1 and not torch.cuda.is_available()),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
    )
    if accelerator.num_processes != processes:
        raise TrainingError(
            f"the launcher started {processes} processes and accelerate joined {accelerator.num_processes} of them: "
            'check distributed_type in accelerate\'s config, or set loop.device = "cpu"'
        )
    return accelerator


def fit(
    task: TrainingTask,
    config: TrainConfig,
    *,
    out: Path | None = None,
    resume: bool = False,
    accelerator: Accelerator | None = None,
) -> Generator[TrainEvent, None, Finished]:
    """Train until the last step.

    Args:
        task: what is trained; afterwards its modules have the final weights.
        config: `seed`, `optimiser`, `loop` and `log` are read.
        out: folder of checkpoints and logs; None = write neither.
        resume: continue from the newest checkpoint, or from the start where there is none.
        accelerator: None = one is made.

    Yields:
        Events, among them one `StepDone` per step.

    Returns:
        The number of steps, and the time taken.

    Raises:
        TrainingError: a loss or gradient is not finite (the newest checkpoint is kept), or a checkpoint is of another
            model.
    """
    run = _Run(task, config, out, accelerator or make_accelerator(config))
    return run.events(resume=resume)


class _Run:
    """State of one call of `fit`."""

    def __init__(self, task: TrainingTask, config: TrainConfig, out: Path | None, accelerator: Accelerator):
        self.task, self.config, self.accelerator = task, config, accelerator
        self.bare = task.modules()
        self.sharded = task.shard(accelerator)  # before the optimiser takes the parameters
        self.optimiser = build_optimiser(task.parts(), config.optimiser, sharded=self.sharded)
        learned = [name for name, module in self.bare.items() if any(p.requires_grad for p in module.parameters())]
        if self.sharded:  # accelerate sets the precision only: FSDP reduces the gradients
            prepared = [accelerator.prepare_model(self.bare[name], evaluation_mode=True) for name in learned]
            prepared.append(accelerator.prepare(self.optimiser))
        else:
            prepared = accelerator.prepare(*(self.bare[name] for name in learned), self.optimiser)
        self.wrapped: dict[str, nn.Module] = dict(zip(learned, prepared[:-1], strict=True))
        for name in self.bare.keys() - self.wrapped.keys():
            self.wrapped[name] = self.bare[name].to(accelerator.device)
        self.stepper: Any = prepared[-1]
        task.prepare(accelerator, {name: self.wrapped[name] for name in self.bare})
        self.steps = config.loop.total_steps(task.steps_per_epoch)
        self.step = 0
        self.meter = Meter()
        self.pace_s = 0.0
        self.out = out if accelerator.is_main_process else None
        self.checkpoints = Checkpoints(out / "checkpoints", keep=config.loop.keep) if out is not None else None

    def events(self, *, resume: bool) -> Generator[TrainEvent, None, Finished]:
        started = time.monotonic()
        mid_epoch = False
        if resume and self.checkpoints is not None and (found := self.checkpoints.newest()):
            self._restore(*found)
            mid_epoch = self.step % self.task.steps_per_epoch != 0
            yield Resumed(step=self.step, steps=self.steps)
        log = RunLog(self.out, start=self.step, tensorboard=self.config.log.tensorboard) if self.out else None
        try:
            while self.step < self.steps:
                epoch, position = divmod(self.step, self.task.steps_per_epoch)
                if not mid_epoch:  # else the checkpoint restored the epoch's state
                    self.task.start_epoch(epoch)
                mid_epoch = False
                batches = self.task.batches(seed=self.config.seed, epoch=epoch, position=position)
                for _ in range(min(self.task.steps_per_epoch - position, self.steps - self.step)):
                    yield self._one_step(batches)
                    if self.step % self.config.log.every == 0 or self.step == self.steps:
                        self._write_line(log)
                    if self._due(self.config.loop.validate_every):
                        metrics = self.task.validate()
                        if metrics and log is not None:
                            log.write(self.step, "validation", metrics)
                        yield Validated(step=self.step, metrics=metrics, items=self.task.validated)
                    if self._due(self.config.loop.checkpoint_every) and self.checkpoints is not None:
                        yield Saved(step=self.step, path=self._save())
        finally:
            if log is not None:
                log.close()
        return Finished(step=self.step, seconds=time.monotonic() - started)

    def _due(self, every: int) -> bool:
        return self.step == self.steps or (every > 0 and self.step % every == 0)

    def _one_step(self, batches: Iterator[Any]) -> StepDone:
        """Run one optimiser step over `accumulate` batches."""
        began = time.monotonic()
        share = learning_rate(self.step, self.steps, self.config.optimiser)
        for group in self.stepper.param_groups:
            group["lr"] = group["peak"] * share
        for number in range(self.config.loop.accumulate):
            try:
                batch = next(batches)
            except StopIteration as error:
                raise TrainingError(f"the data ended in step {self.step + 1} of {self.steps}: too few pairs") from error
            self._seed(number)
            with self.accelerator.accumulate(*self.wrapped.values()):
                figures = {
                    name: float(value) for name, value in self.task.training_step(batch, self.accelerator).items()
                }
                self._check("the loss", figures["loss"])
                self.meter.add(figures)
                if self.accelerator.sync_gradients:
                    norm = clip_gradients(
                        self._learned(),
                        self.config.optimiser.clip or math.inf,
                        accelerator=self.accelerator,
                        sharded=self.sharded,
                    )
                    self._check("the gradient's norm", norm)
                    self.meter.add({"gradient_norm": norm})
                self.stepper.step()
                self.stepper.zero_grad()
        self.step += 1
        for module in self.bare.values():
            for part in module.modules():
                if isinstance(part, Temperature):
                    part.clamp()
        self.task.after_step(self.step)
        taken_s = time.monotonic() - began
        self.pace_s = 0.95 * self.pace_s + 0.05 * taken_s if self.pace_s else taken_s
        return StepDone(
            step=self.step,
            steps=self.steps,
            loss=self.meter.means()["loss"],
            pairs_per_s=self.task.pairs_per_step / self.pace_s,
            eta_s=(self.steps - self.step) * self.pace_s,
        )

    def _learned(self) -> list[nn.Parameter]:
        return [parameter for group in self.stepper.param_groups for parameter in group["params"]]

    def _seed(self, number: int) -> None:
        """Seed torch from (seed, step, batch, process)."""
        parts = (self.config.seed, self.step, number, self.accelerator.process_index)
        torch.manual_seed(int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]) >> 1)

    def _check(self, what: str, value: float) -> None:
        """Raise before a number that is not finite reaches the weights."""
        if math.isfinite(value):
            return
        kept = self.checkpoints.steps() if self.checkpoints is not None else []
        last = f"the last good checkpoint is {self.checkpoints.path(kept[0])}" if self.checkpoints and kept else ""
        raise TrainingError(
            f"{what} became {value} in step {self.step + 1} of {self.steps}; {last or 'there is no checkpoint yet'}. "
            "Start again in another folder with a lower optimiser.learning_rate, a longer optimiser.warmup, "
            "or a smaller optimiser.clip"
        )

    def _write_line(self, log: RunLog | None) -> None:
        """Write one line of the log: means since the last one, over all processes."""
        figures = self.meter.means()
        if self.accelerator.num_processes > 1:
            names = sorted(figures)
            values = torch.tensor([figures[name] for name in names], device=self.accelerator.device)
            reduced: Any = self.accelerator.reduce(values, "mean")
            figures = dict(zip(names, reduced.tolist(), strict=True))
        self.meter = Meter()
        if log is not None:
            figures["epoch"] = self.step / self.task.steps_per_epoch
            figures["learning_rate"] = self.stepper.param_groups[0]["lr"]
            figures["pairs_per_s"] = round(self.task.pairs_per_step / self.pace_s, 1)
            log.write(self.step, "train", figures)

    def _save(self) -> Path:
        """Write a checkpoint from the main process; the others wait for it."""
        assert self.checkpoints is not None
        path = self.checkpoints.path(self.step)
        modules = {name: whole(module.state_dict()) for name, module in self.bare.items()}
        optimiser = whole(self.stepper.state_dict())
        if self.accelerator.is_main_process:
            for name, weights in modules.items():
                for own, weight in weights.items():
                    if not bool(torch.isfinite(weight).all()):
                        self._check(f"the weight {name}.{own}", math.nan)
            path = self.checkpoints.save(
                self.step,
                {
                    "modules": modules,
                    "optimiser": optimiser,
                    "task": self.task.state(),
                    "meter": {"sums": self.meter.sums, "counts": self.meter.counts},
                },
            )
        self.accelerator.wait_for_everyone()
        return path

    def _restore(self, step: int, state: Mapping[str, Any]) -> None:
        """Restore what `_save` wrote.

        Raises:
            TrainingError: the checkpoint is of another model, or later than the last step.
        """
        if step > self.steps:
            raise TrainingError(
                f"the checkpoint is of step {step}, but the run ends at {self.steps}: raise loop.epochs"
            )
        try:
            for name, module in self.bare.items():
                weights, own = state["modules"][name], module.state_dict()
                module.load_state_dict(
                    {each: like(value, own[each]) if each in own else value for each, value in weights.items()}
                )
            moments = {
                number: {name: like(value, parameter) for name, value in state["optimiser"]["state"][number].items()}
                for number, parameter in enumerate(self._learned())
                if number in state["optimiser"]["state"]
            }
            self.stepper.load_state_dict({**state["optimiser"], "state": moments})
            self.task.load_state(state["task"])
            self.meter = Meter(**state["meter"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise TrainingError(f"checkpoint {step} is of another model ({error}): start in another folder") from error
        self.step = step


@dataclasses.dataclass
class Meter:
    """Sums of logged figures since the last line of the log."""

    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    counts: dict[str, int] = dataclasses.field(default_factory=dict)

    def add(self, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        return {name: total / self.counts[name] for name, total in self.sums.items()}
