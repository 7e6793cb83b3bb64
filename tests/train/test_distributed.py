"""Sharded weights: a part per process, equal scalars, gradients clipped together, tensors gathered again.

Run as a script under a launcher, the file is one of the two processes.
"""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Linear(5, 8), torch.nn.Linear(8, 3)
        self.scale, self.frozen = torch.nn.Parameter(torch.tensor(1.5)), torch.nn.Parameter(torch.tensor(2.0), False)

    def forward(self, x):
        return self.second(torch.relu(self.first(x))) * self.scale * self.frozen

    def halfway(self, x):
        return self.first(x)


def main() -> None:
    import torch.distributed as dist
    from torch.distributed.tensor import DTensor

    from impart.train.distributed import average_scalars, like, shard, whole
    from impart.train.optim import clip_sharded

    dist.init_process_group("gloo")
    model, plain = Model(), Model()
    shard(model, units=[model.first], methods=["halfway"], device=torch.device("cpu"))
    assert isinstance(model.first.weight, DTensor)
    assert model.first.weight.to_local().numel() == 20
    assert not isinstance(model.scale, DTensor)
    torch.manual_seed(1)
    x = torch.randn(4, 5)
    own = x[2 * dist.get_rank() :][:2]
    assert torch.equal(model.halfway(own), plain.halfway(own))
    for part in own:  # two backward passes, as with a cached loss
        (model(part).square().sum() / 2).backward()
    (plain(x).square().sum() / 4).backward()
    average_scalars(list(model.parameters()))
    learned = [each for each in model.parameters() if each.requires_grad]
    wanted = [each for each in plain.parameters() if each.requires_grad]
    for most in (math.inf, 0.5):
        norm = clip_sharded(learned, most)
        torch.testing.assert_close(torch.tensor(norm), torch.nn.utils.clip_grad_norm_(wanted, most))
        for found, expected in zip(learned, wanted, strict=True):
            torch.testing.assert_close(whole(found.grad), expected.grad)
    state = whole({"weights": model.state_dict(), "more": [model.second.bias, 7]})
    torch.testing.assert_close(state["weights"], plain.state_dict())
    assert state["more"][1] == 7
    back = like(state["more"][0], model.second.bias)
    assert isinstance(back, DTensor)
    assert torch.equal(back.to_local(), model.second.bias.to_local())
    assert like(7, model.second.bias) == 7
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.timeout(300)
def test_two_processes_share_a_model() -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*launcher, __file__], timeout=250, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


if __name__ == "__main__":
    main()
