"""A small training task for tests of the loop, with dropout, an average and a state; also a script to be killed."""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from impart.train.task import Average, Temperature, TrainingTask

ROWS = 56


class ToyTask(TrainingTask):
    def __init__(
        self, *, poison: int = -1, hidden: int = 16, batch: int = 8, accumulate: int = 1, dropout: float = 0.2
    ):
        torch.manual_seed(0)
        self.x, self.poison, self.slow = torch.randn(ROWS, 6), poison, False
        self.y = self.x @ torch.randn(6, 3)
        self.batch, self.accumulate = batch, accumulate
        self.pairs_per_step = batch * accumulate
        self.steps_per_epoch = ROWS // self.pairs_per_step
        self.net = torch.nn.Sequential(
            torch.nn.Linear(6, hidden), torch.nn.ReLU(), torch.nn.Dropout(dropout), torch.nn.Linear(hidden, 3)
        )
        self.highest = math.log(2.0)
        self.temperature = Temperature(1.9, 2.0)
        self.average = Average(self.modules(), 0.9)
        self.epoch_noise = torch.zeros(3)
        self.steps_seen = 0
        self.seen_dtype = None
        self.net[0].register_forward_hook(self._record_dtype)

    def _record_dtype(self, module, inputs, output):
        self.seen_dtype = output.dtype

    def modules(self):
        return {"net": self.net, "temperature": self.temperature}

    def start_epoch(self, epoch):
        self.epoch_noise = 0.01 * torch.randn(3, generator=torch.Generator().manual_seed(self.steps_seen))

    def batches(self, *, seed, epoch, position):
        order = np.random.default_rng((seed, epoch)).permutation(ROWS)
        for number in range(position * self.accumulate, self.steps_per_epoch * self.accumulate):
            yield order[number * self.batch : (number + 1) * self.batch]

    def training_step(self, batch, accelerator):
        if self.slow:
            time.sleep(0.05)
        with accelerator.autocast():
            output = self.net(self.x[batch])
            loss = F.mse_loss(output.float(), self.y[batch] + self.epoch_noise) - 0.5 * self.temperature()
        if self.steps_seen == self.poison:
            loss = loss * float("nan")
        accelerator.backward(loss)
        return {"loss": loss.detach() + 1.0}

    def after_step(self, step):
        self.steps_seen += 1
        self.average.update(step)

    def validate(self):
        self.net.eval()
        with torch.no_grad():
            error = F.mse_loss(self.net(self.x), self.y).item()
        self.net.train()
        return {"error": error}

    def state(self):
        return {"noise": self.epoch_noise, "seen": self.steps_seen, "average": self.average.state()}

    def load_state(self, state):
        self.epoch_noise, self.steps_seen = state["noise"], state["seen"]
        self.average.load_state(state["average"])


def main() -> int:
    from impart.train.loop import fit
    from impart.train.settings import LogSettings, LoopSettings, TrainConfig

    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--slow", action="store_true")
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    loop = LoopSettings(steps=40, batch=8, checkpoint_every=4, validate_every=8, device="cpu")
    config = TrainConfig(seed=5, loop=loop, log=LogSettings(every=3, tensorboard=False))
    task = ToyTask()
    task.slow = options.slow
    for _ in fit(task, config, out=options.out, resume=options.resume):
        pass
    weights = {f"{part}.{k}": v for part, module in task.modules().items() for k, v in module.state_dict().items()}
    torch.save(weights, options.out / "weights.pt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
