"""A run of training mode `pretrain` on generated images, as a script for a launcher or for tests that kill it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.tiny_encoder import COLOURS, TinyEncoder

IMAGES = 72


def write_pairs(folder: Path, count: int = IMAGES) -> Path:
    """Write noisy images of two colours, with captions that name the colours."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows, names = ["file,text"], list(COLOURS)
    for number in range(count):
        first, second = rng.choice(len(names), 2, replace=False)
        pixels = np.empty((40, 48, 3))
        pixels[:, :24], pixels[:, 24:] = COLOURS[names[first]], COLOURS[names[second]]
        noise = rng.normal(0, 12, pixels.shape)
        Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(folder / f"{number:03}.png")
        rows.append(f"{number:03}.png,{names[first]} beside {names[second]} number {number}")
    (folder / "captions.csv").write_text("\n".join(rows) + "\n")
    return folder


def config(**changes):
    """Make a config with tiny towers; `table__name=value` changes a setting."""
    from impart.train.config_file import config_of

    table = {
        "mode": "pretrain",
        "seed": 3,
        "data": {"encoder": "tiny", "pairs": [{"path": "pairs"}], "validation_images": 6},
        "reference": {"fraction": 0.2, "augment": "ram"},
        "ram": {"k": 4, "heads": 4, "form": "paper", "norm": "l2"},
        "pretrain": {
            "model": "tiny",
            "image": {"image_size": 32, "patch_size": 16, "hidden_size": 32, "intermediate_size": 64},
            "text": {"hidden_size": 32, "intermediate_size": 64},
            "dim": 32,
            "vocabulary": 400,
            "workers": 0,
        },
        "optimiser": {"learning_rate": 2e-3, "rates": {"ram": 0.5}},
        "loop": {"steps": 8, "batch": 12, "device": "cpu", "checkpoint_every": 2, "validate_every": 0},
        "log": {"every": 1, "tensorboard": False},
    }
    for name, value in changes.items():
        part, _, setting = name.partition("__")
        table[part][setting] = value
    return config_of(table, where="test")


@contextmanager
def small_sentence_tower() -> Iterator[None]:
    """Put a sentence tower of one layer in the place of all-MiniLM-L6-v2, whose export takes many seconds."""
    import pytest
    import torch

    from impart.train.heads.towers import sentences

    torch.manual_seed(0)
    tower = sentences.SentenceTower(hidden=32, layers=1)
    torch.nn.init.normal_(tower.segment, std=0.02)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sentences, "load_minilm", lambda: tower)
        yield


def train_once(data: Path, out: Path, *, resume: bool = False, export: bool = False, **changes):
    """Train with the tiny encoder as frozen encoder, and yield the events.

    Without `export` the run stops at the last checkpoint, since writing the ONNX graph takes longer than the run.
    """
    import torch

    from impart.encoders import register
    from impart.train.events import Saved
    from impart.train.run import train

    register("tiny", lambda rest, **_: TinyEncoder(int(rest or 0)))
    torch.set_num_threads(1)
    settings = config(**changes)
    for event in train(settings, data=data, out=out, resume=resume):
        yield event
        if not export and isinstance(event, Saved) and event.step == settings.loop.steps:
            return


def main() -> int:
    import json
    import time

    from impart.train.events import StepDone

    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=json.loads, help="changed settings by folder of the run")
    parser.add_argument("--slow", action="store_true")
    parser.add_argument("--export", action="store_true")
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    for out, changes in options.runs.items():
        chosen = {"resume": options.resume, "export": options.export}
        for event in train_once(options.data, Path(out), **chosen, **changes):
            if options.slow and isinstance(event, StepDone):
                time.sleep(0.3)
    import torch

    if torch.distributed.is_initialized():  # a process that ends early makes the other one abort
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
