"""Arms and runs of `benchmarks/ra_clip_scratch.py`, in order of worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from impart.train.config_file import load_config
from impart.train.settings import TrainConfig
from ra_clip import CLASS_SETS
from ra_clip_scratch_tests import PROBES

__all__ = ["ARMS", "WEAK", "Arm", "Run", "plan"]

CONFIG = "ra_clip_scratch"
"""Bundled config of `impart train`; arms change its settings."""
EPOCHS, LONGER = 4.0, 12.0
KS = (1, 2, 4, 8, 16, 32, 64)
SIZES = (0.01, 0.03, 0.1, 0.3, 1.0)
SHARES = (0.1, 0.25, 0.5)
EVERY = 27  # steps between two points of a learning curve
PART = 250  # images per test in a learning curve
TESTS = (*CLASS_SETS, "flickr8k", "coco", "panda", *(f"{name}/train" for name in PROBES))


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train.

    Attributes:
        sets: changes to the config, as `--set` of `impart train` takes them.
        control: `linear`, `head` or `fused`: a head on the retriever's features (see `ra_clip_scratch_model.build`).
        retriever: `mini` or `patches`.
        kept: leading numbers of the retrieval embedding that a weaker retriever keeps; 0 = all.
        all_references: whether the training images are references beside the held-out tenth.
    """

    sets: tuple[str, ...] = ()
    control: str = ""
    retriever: str = "mini"
    kept: int = 0
    all_references: bool = False

    @property
    def features(self) -> str:
        """Name of the retriever's features among those of a test."""
        return f"{self.retriever}{self.kept or ''}"


WEAK = (4, 8, 16, 32)
"""Leading numbers of `mini`'s retrieval embedding (a PCA) that weaker retrievers keep."""
_CLIP = ("reference.augment=none",)
_FROZEN = ("reference.embeddings=frozen",)
_TEXTS = (*_FROZEN, "pretrain.model=constant")
_NEAR = ("reference.near_duplicate=2",)  # among few numbers most images are near


def controls(prefix: str, *, retriever: str = "mini", kept: int = 0, near: tuple[str, ...] = ()) -> dict[str, Arm]:
    """Return the controls of a retriever by name."""
    heads = {
        f"{prefix}{control}": Arm(sets=_CLIP, control=control, retriever=retriever, kept=kept)
        for control in ("linear", "head", "fused")
    }
    return {f"{prefix}texts": Arm(sets=(*_TEXTS, *near), retriever=retriever, kept=kept)} | heads


ARMS = {
    "clip": Arm(sets=_CLIP),
    "normalised": Arm(),
    "paper": Arm(sets=("ram.norm=none",)),
    "gated": Arm(sets=("ram.gate=true",)),
    "random": Arm(sets=("reference.random=1.0",)),
    "by-tower": Arm(sets=("reference.retrieval=encoder",)),
    "frozen": Arm(sets=_FROZEN),
    "all": Arm(sets=_FROZEN, all_references=True),
    "all-texts": Arm(sets=_TEXTS, all_references=True),
    **controls(""),
    "free": Arm(sets=_FROZEN, retriever="patches"),
    "free-own": Arm(retriever="patches"),
    "free-all": Arm(sets=_FROZEN, retriever="patches", all_references=True),
    "free-all-texts": Arm(sets=_TEXTS, retriever="patches", all_references=True),
    **controls("free-", retriever="patches"),
}
for _kept in WEAK:
    ARMS[f"weak{_kept}"] = Arm(sets=(*_FROZEN, *_NEAR), kept=_kept)
    ARMS[f"weak{_kept}-own"] = Arm(sets=_NEAR, kept=_kept)
    ARMS |= controls(f"weak{_kept}-", kept=_kept, near=_NEAR)


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

    def config(self, *changes: str) -> TrainConfig:
        """Load the config of this run.

        Args:
            *changes: further ones, as `--set` takes them.
        """
        own = (f"seed={self.seed}", f"loop.epochs={self.epochs}", f"reference.use={self.share}")
        return load_config(CONFIG, sets=[*own, "loop.device=cpu", *ARMS[self.arm].sets, *changes])


def plan() -> list[Run]:
    """Return the runs in order of worth: the main arms with three seeds, then the others and the curves."""
    main = ("clip", "normalised", "linear", "texts", "paper")
    weak8 = ("weak8", "weak8-linear", "weak8-head", "weak8-texts")
    free = ("free", "free-linear", "free-head", "free-texts")
    once = ("gated", "by-tower", "random", "head", "weak8-fused", "weak8-own", "free-fused", "free-all")
    controlled = [f"weak{kept}{part}" for kept in WEAK for part in ("-linear", "-head", "-texts", "")]
    curves = ("clip", "normalised", "frozen")
    runs = _runs((*main, "frozen", *weak8), 0) + _runs(main, 1, 2) + _runs(weak8, 1, 2)
    runs += [Run(arm, 0, SHARES[0]) for arm in curves]
    runs += _runs((*free, *once), 0) + _runs(("frozen",), 1, 2)
    runs += [Run(arm, 0, share) for share in SHARES[1:] for arm in curves]
    runs += _runs((*controlled, "all", "all-texts", "free-all-texts", "fused", "free-own"), 0)
    runs += [Run(arm, 0, 1.0, LONGER) for arm in ("clip", "frozen", "weak8", "weak8-head", "free", "free-linear")]
    runs += _runs((*free, *once, *controlled), 1, 2)
    return list(dict.fromkeys(runs))


def _runs(arms: Sequence[str], *seeds: int) -> list[Run]:
    return [Run(arm, seed) for seed in seeds for arm in arms]
