"""Measure the time that retrieval and RAM add to a training step of mode `pretrain`.

    python benchmarks/train_speed.py [--model small] [--batch 32] [--repeat 15] [--out FILE]
    python benchmarks/train_speed.py --model vit-b-32 --batch 4096 --chunk 1024 --device cuda

Plain CLIP and RA-CLIP run in one process, in turn (A B A B ...), so that the load of the machine is the same for both.
The figures are medians, and the ratio per pair of turns. A step has everything from pixels to new weights: neighbours
from memory-mapped tables, tokens, forward and backward pass, AdamW. Images are random and in memory, since reading
takes the same time in both cases. The references are embedded again in every epoch. This time is measured as a forward
pass and divided among the steps of the epoch, by `reference.fraction`.

On a GPU the output includes samples/s and model FLOP utilisation: three times the multiplications and additions of the
forward pass, divided by the dense bf16 peak of the device. Repeated computations of a cached loss count once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from impart.refset.pairs import Pair
from impart.train.config_file import config_of
from impart.train.loop import make_accelerator
from impart.train.optim import parameter_groups
from impart.train.prepare.neighbours import NeighbourTable
from impart.train.prepare.pairs import ListedImage
from impart.train.pretrain.batches import Batch
from impart.train.pretrain.prepare import PretrainData, PretrainImages
from impart.train.pretrain.task import PretrainTask
from impart.train.pretrain.towers.build import build_towers
from impart.train.pretrain.towers.clip import ClipTowers
from impart.train.pretrain.towers.tokenizer import learn_tokenizer
from impart.train.settings import TrainConfig

PEAK_TFLOPS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "4090": 165}
"""Dense bf16 peaks of the vendor, by a part of the device name."""
RETRIEVAL_DIM = 256
WORDS = ("a", "the", "dog", "cat", "woman", "red", "blue", "runs", "sits", "on", "in", "street", "park", "with", "ball")


@dataclass(kw_only=True)
class Report:
    """Figures of a measurement.

    `added` and `refresh` are fractions of the plain step. `added_cpu` is a fraction of its CPU time, which depends less
    on the load of the machine.
    """

    device: str
    model: str
    batch: int
    chunk: int
    precision: str
    references: int
    k: int
    plain_s: float
    ra_clip_s: float
    added: float
    added_cpu: float
    added_low: float
    added_high: float
    refresh: float
    plain_pairs_per_s: float
    ra_clip_pairs_per_s: float
    gflop_per_pair: float
    plain_mfu: float | None
    ra_clip_mfu: float | None


def flop_per_pair(towers: ClipTowers, tokens: int) -> float:
    """Count the multiplications and additions of a forward pass of one pair; ViT-B/32 alone: 8.7e9."""
    vision, text = towers.model.config.vision_config, towers.model.config.text_config
    patches = (vision.image_size // vision.patch_size) ** 2
    patch = 2 * patches * 3 * vision.patch_size**2 * vision.hidden_size
    return float(patch) + _blocks(vision, patches + 1) + _blocks(text, tokens)


def _blocks(config: Any, length: int) -> float:
    width, hidden = config.hidden_size, config.intermediate_size
    return float(config.num_hidden_layers * length * (8 * width**2 + 4 * width * hidden + 4 * length * width))


def synthetic(count: int, references: int, k: int, folder: Path) -> PretrainData:
    """Make data of the given size, with random neighbours in memory-mapped tables."""
    rng = np.random.default_rng(0)
    np.save(folder / "retrieval.npy", rng.standard_normal((count + references, RETRIEVAL_DIM)).astype(np.float16))
    np.save(folder / "ids.npy", rng.integers(references, size=(count, k)).astype(np.int32))
    vectors = np.load(folder / "retrieval.npy", mmap_mode="r")
    ids = np.load(folder / "ids.npy", mmap_mode="r")
    one = ListedImage(Pair(image=Path("none"), text="none"), ["none"])

    def part(first: int, size: int, table: NeighbourTable | None) -> PretrainImages:
        return PretrainImages(
            [one] * size, np.arange(first, first + size), vectors, np.arange(first, first + size), table
        )

    table = NeighbourTable(ids, np.zeros((0, k), np.float32))
    return PretrainData(part(0, count, table), part(count, references, None), part(0, 0, None), [])


class Way:
    """Plain CLIP or RA-CLIP, ready for training steps."""

    def __init__(self, config: TrainConfig, data: PretrainData) -> None:
        self.config, self.accelerator = config, make_accelerator(config)
        tokenizer = learn_tokenizer([" ".join(WORDS)] * 2, config.pretrain)
        towers = build_towers(config.pretrain, data=Path(), tokenizer=tokenizer, seed=0)
        assert isinstance(towers, ClipTowers), "the model must be a CLIP of transformers"
        self.towers = towers
        self.task = PretrainTask(data, config, towers)
        groups = parameter_groups(self.task.parts(), config.optimiser)
        model, self.optimiser = self.accelerator.prepare(self.task.model, torch.optim.AdamW(groups, lr=1e-5))
        self.task.prepare(self.accelerator, {"model": model})
        if self.task.model.ram is not None:
            rows = torch.randn(2, len(data.references), towers.dim, device=self.accelerator.device)
            image, text = torch.nn.functional.normalize(rows, dim=-1).half()
            self.task._fill(image, text)

    def step(self, batch: Batch) -> tuple[float, float]:
        """Run a training step; return its wall time and CPU time in seconds."""
        self._wait()
        began, cpu = time.perf_counter(), time.process_time()
        self.task.training_step(batch, self.accelerator)
        self.accelerator.clip_grad_norm_(self.task.model.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self._wait()
        return time.perf_counter() - began, time.process_time() - cpu

    @torch.no_grad()
    def embed(self, batch: Batch) -> float:
        """Run a forward pass as in a refresh of the reference bank; return its seconds."""
        towers, device = self.task.towers, self.accelerator.device
        size = self.config.pretrain.chunk or len(batch.pixels)
        pixels, ids = batch.pixels.to(device), towers.tokens(batch.texts).to(device)
        self._wait()
        began = time.perf_counter()
        with self.accelerator.autocast():
            for part, tokens in zip(torch.split(pixels, size), torch.split(ids, size), strict=True):
                towers(part, tokens)
        self._wait()
        return time.perf_counter() - began

    def _wait(self) -> None:
        if self.accelerator.device.type == "cuda":
            torch.cuda.synchronize()


def measure(options: argparse.Namespace) -> Report:
    """Measure plain CLIP and RA-CLIP in turn."""
    table: dict[str, Any] = {
        "mode": "pretrain",
        "pretrain": {
            "model": options.model,
            "chunk": options.chunk,
            "vocabulary": 400 if options.device == "cpu" else 49408,
        },
        "ram": {"k": options.k, "layers": options.layers, "norm": "l2"},
        "reference": {"fraction": options.fraction},
        "loop": {"batch": options.batch, "device": "cpu" if options.device == "cpu" else "auto"},
    }
    table["loop"]["precision"] = "float32" if options.device == "cpu" else "bf16"
    plain = {**table, "reference": {"fraction": options.fraction, "augment": "none"}}
    with tempfile.TemporaryDirectory() as folder:
        data = synthetic(options.images, options.references, options.k, Path(folder))
        ways = [Way(config_of(one, where="benchmark"), data) for one in (plain, table)]
        rng = np.random.default_rng(1)
        times: list[list[float]] = [[], []]
        cpu: list[list[float]] = [[], []]
        forward = []
        for turn in range(options.warmup + options.repeat):
            batch = _batch(ways[0].towers, options, rng)
            order = (0, 1) if turn % 2 else (1, 0)
            taken = {number: ways[number].step(batch) for number in order}
            again = ways[1].embed(batch)
            if turn >= options.warmup:
                for number in order:
                    times[number].append(taken[number][0])
                    cpu[number].append(taken[number][1])
                forward.append(again)
    plain_s, ra_clip_s = (statistics.median(one) for one in times)
    ratios = sorted(b / a for a, b in zip(*times, strict=True))
    flop = flop_per_pair(ways[0].towers, ways[0].towers.tokenizer.context_tokens)
    name = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    peak = 1e12 * (options.peak_tflops or next((tf for part, tf in PEAK_TFLOPS.items() if part in name), 0))
    return Report(
        device=name if name != "cpu" else f"cpu, {torch.get_num_threads()} threads",
        model=options.model,
        batch=options.batch,
        chunk=options.chunk,
        precision=table["loop"]["precision"],
        references=options.references,
        k=options.k,
        plain_s=plain_s,
        ra_clip_s=ra_clip_s,
        added=ra_clip_s / plain_s - 1,
        added_cpu=statistics.median(cpu[1]) / statistics.median(cpu[0]) - 1,
        added_low=ratios[len(ratios) // 4] - 1,
        added_high=ratios[3 * len(ratios) // 4] - 1,
        refresh=options.fraction / (1 - options.fraction) * statistics.median(forward) / plain_s,
        plain_pairs_per_s=options.batch / plain_s,
        ra_clip_pairs_per_s=options.batch / ra_clip_s,
        gflop_per_pair=3 * flop / 1e9,
        plain_mfu=3 * flop * options.batch / plain_s / peak if peak else None,
        ra_clip_mfu=3 * flop * options.batch / ra_clip_s / peak if peak else None,
    )


def _batch(towers: ClipTowers, options: argparse.Namespace, rng: np.random.Generator) -> Batch:
    size = towers.preprocess.size_px
    pixels = torch.from_numpy(rng.integers(0, 256, (options.batch, 3, size, size), dtype=np.uint8))
    texts = [" ".join(rng.choice(WORDS, towers.tokenizer.context_tokens)) for _ in range(options.batch)]
    return Batch(rng.integers(options.images, size=options.batch), pixels, texts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--chunk", type=int, default=0)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--layers", type=int, default=2, help="layers of RAM")
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--references", type=int, default=20_000)
    parser.add_argument("--fraction", type=float, default=0.1, help="fraction of the pairs that are references")
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--peak-tflops", type=float, default=0.0, help="dense bf16 peak of an unknown device")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here: samples/s and model FLOP utilisation were not measured", file=sys.stderr)
        return 1
    report = measure(options)
    print(f"{report.device}, {report.model}, batch {report.batch}, {report.precision}, K {report.k}")
    for name, seconds, rate, mfu in (
        ("plain CLIP", report.plain_s, report.plain_pairs_per_s, report.plain_mfu),
        ("RA-CLIP", report.ra_clip_s, report.ra_clip_pairs_per_s, report.ra_clip_mfu),
    ):
        used = f", {100 * mfu:.1f}% of the peak" if mfu is not None else ""
        print(f"  {name:<10} {1000 * seconds:8.1f} ms a step, {rate:8.1f} pairs/s{used}")
    low, high, cpu = (100 * share for share in (report.added_low, report.added_high, report.added_cpu))
    print(f"  retrieval and RAM add {100 * report.added:+.1f}% to a step, quartiles {low:+.1f}% to {high:+.1f}%")
    print(f"  and {cpu:+.1f}% CPU time")
    print(f"  embedding the references once an epoch adds {100 * report.refresh:.1f}%")
    if options.out:
        options.out.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
