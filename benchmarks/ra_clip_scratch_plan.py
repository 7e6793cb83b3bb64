"""Arms and runs of `benchmarks/ra_clip_scratch.py`, in order of worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from impart.train.config_file import config_of
from impart.train.settings import TrainConfig
from ra_clip import CLASS_SETS
from ra_clip_scratch_tests import PROBES

__all__ = ["ARMS", "WEAK", "Arm", "Run", "plan"]

DIM = 384
SIZE_PX, VIEW_PX = 48, 64
WIDTHS = (32, 64, 128, 256)
EPOCHS, LONGER = 4.0, 12.0
KS = (1, 2, 4, 8, 16, 32, 64)
SIZES = (0.01, 0.03, 0.1, 0.3, 1.0)
SHARES = (0.1, 0.25, 0.5)
EVERY = 27  # steps between two points of a learning curve
PART = 250  # images per test in a learning curve
TESTS = (*CLASS_SETS, "flickr8k", "coco", "panda", *(f"{name}/train" for name in PROBES))

CONFIG: dict[str, Any] = {
    "mode": "pretrain",
    "data": {
        "pairs": [
            {"path": "images/flickr8k", "where": {"split": "train"}},
            {"path": "images/openstax", "text": "alt"},
            {"path": "images/more/*", "text": "text"},
        ],
        "validation": [{"path": "images/flickr8k", "where": {"split": "val"}}],
    },
    "reference": {"fraction": 0.1},
    "ram": {"k": 8, "heads": 8, "layers": 1},
    "optimiser": {"learning_rate": 2e-3, "warmup": 0.05},
    "loop": {
        "epochs": EPOCHS,
        "batch": 256,
        "precision": "bf16",
        "device": "cpu",
        "checkpoint_every": 0,
        "validate_every": 0,
    },
    "log": {"tensorboard": False},
}


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train: what replaces the image tower, the retriever, and settings.

    `image` is a kind of `build_image`. `ram` are changes to [ram], None = no RAM. `frozen` takes the retriever's
    features and the sentence embeddings as reference embeddings, not those of the towers. `all_references` adds the
    training images to the held-out tenth.
    """

    image: str = "tower"
    retriever: str = "mini"
    ram: Mapping[str, Any] | None = None
    frozen: bool = False
    random: bool = False
    by_tower: bool = False
    all_references: bool = False


_L2 = {"norm": "l2"}
WEAK = (4, 8, 16, 32)
"""Leading numbers of `mini`'s retrieval embedding (a PCA) that weaker retrievers keep."""


def controls(prefix: str, retriever: str) -> dict[str, Arm]:
    """Return the controls of a retriever by name."""
    return {
        f"{prefix}texts": Arm(image="constant", ram=_L2, frozen=True, retriever=retriever),
        f"{prefix}linear": Arm(image="linear", retriever=retriever),
        f"{prefix}head": Arm(image="head", retriever=retriever),
        f"{prefix}fused": Arm(image="fused", retriever=retriever),
    }


ARMS = {
    "clip": Arm(),
    "normalised": Arm(ram=_L2),
    "paper": Arm(ram={}),
    "gated": Arm(ram={"norm": "l2", "gate": True}),
    "random": Arm(ram=_L2, random=True),
    "by-tower": Arm(ram=_L2, by_tower=True),
    "frozen": Arm(ram=_L2, frozen=True),
    "all": Arm(ram=_L2, frozen=True, all_references=True),
    "all-texts": Arm(image="constant", ram=_L2, frozen=True, all_references=True),
    **controls("", "mini"),
    "free": Arm(ram=_L2, frozen=True, retriever="patches"),
    "free-own": Arm(ram=_L2, retriever="patches"),
    "free-all": Arm(ram=_L2, frozen=True, retriever="patches", all_references=True),
    "free-all-texts": Arm(image="constant", ram=_L2, frozen=True, retriever="patches", all_references=True),
    **controls("free-", "patches"),
}
for _kept in WEAK:
    ARMS[f"weak{_kept}"] = Arm(ram=_L2, frozen=True, retriever=f"mini{_kept}")
    ARMS[f"weak{_kept}-own"] = Arm(ram=_L2, retriever=f"mini{_kept}")
    ARMS |= controls(f"weak{_kept}-", f"mini{_kept}")
CHEAP = ("texts", "free-texts", "linear", "head", "free-linear", "free-head")


@dataclass(frozen=True)
class Run:
    """One training."""

    arm: str
    seed: int
    share: float = 1.0
    epochs: float = EPOCHS

    @property
    def change(self) -> str:
        changes = [f"share{100 * self.share:g}"] if self.share != 1 else []
        return "-".join(changes + ([f"epochs{self.epochs:g}"] if self.epochs != EPOCHS else []))

    @property
    def name(self) -> str:
        return "-".join(filter(None, (self.arm, self.change, f"s{self.seed}")))

    def config(self, changes: Mapping[str, Mapping[str, Any]]) -> TrainConfig:
        arm = ARMS[self.arm]
        table = {name: dict(part) if isinstance(part, Mapping) else part for name, part in CONFIG.items()}
        table["seed"] = self.seed
        table["loop"]["epochs"] = self.epochs
        table["ram"] |= dict(arm.ram or {})
        table["reference"] |= {"augment": "none" if arm.ram is None else "ram"}
        table["reference"] |= {"random": 1.0} if arm.random else {}
        if arm.retriever.startswith("mini") and arm.retriever != "mini":
            table["reference"]["near_duplicate"] = 2.0  # among few numbers most images are near
        for name, part in changes.items():
            table[name] |= dict(part)
        return config_of(table, where="ra_clip_scratch")


def plan() -> list[Run]:
    """Return the runs in order of worth: the main arms with three seeds, then one seed of the others and the curves."""
    weak = [f"weak{kept}-{part}" for kept in WEAK for part in ("linear", "head", "texts")]
    weak8 = [arm for arm in weak if arm.startswith("weak8")]
    main = ("clip", "normalised", "frozen", "free", *CHEAP, "paper", "free-all")
    runs = [Run(arm, 0) for arm in (*main, *weak8, "weak8")]
    runs += [Run(arm, 0, SHARES[0]) for arm in ("clip", "normalised", "frozen")]
    runs += [Run(arm, 1) for arm in ("clip", "normalised", "linear", "texts")]
    runs += [Run(arm, 2) for arm in ("clip", "normalised", "linear", "texts")]
    runs += [Run("weak8", 1), *(Run(arm, 1) for arm in weak8), Run("weak16", 0), Run("weak8-own", 0), Run("frozen", 1)]
    runs += [Run(arm, 0) for arm in (*weak, "all-texts", "gated", "by-tower", "random", "weak32", "weak8-fused")]
    runs += [Run(arm, 2) for arm in ("weak8", *weak8, "frozen")]
    runs += [Run(arm, seed) for seed in (1, 2) for arm in (*main, "gated")]
    runs += [Run(arm, 0) for arm in ("fused", "free-fused", "weak4", "free-own", "all", "free-all-texts")]
    runs += [Run(arm, 0, share) for share in SHARES[1:] for arm in ("clip", "normalised", "frozen", "free")]
    runs += [Run(arm, 0, 1.0, LONGER) for arm in ("clip", "frozen", "weak8", "weak8-head", "free", "free-linear")]
    runs += [Run(arm, seed) for seed in (1, 2) for arm in ("by-tower", "random", "weak16", "weak32", *weak)]
    return runs
