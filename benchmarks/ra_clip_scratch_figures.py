"""Figures of `benchmarks/ra_clip_scratch.py` by arm and seed, paired intervals, and points of curves."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from impart.metrics import bootstrap
from ra_clip_scratch_pack import MEANS, unpack

__all__ = ["Figures", "difference", "first_reached", "share_reached", "shown"]

Line = dict[str, Any]
Clusters = Mapping[str, npt.NDArray[np.int64]]
COMPARED = ("main", "vanilla", "vanilla-paper")
"""Questions whose answers `Figures.over` compares."""


class Figures:
    """Lines of complete runs, by arm, question, change and seed.

    Args:
        lines: of figures.jsonl.
        clusters: items that are drawn together, by test; others are drawn one by one.
    """

    def __init__(self, lines: Sequence[Line], clusters: Clusters | None = None):
        done = {line["run"] for line in lines if line["question"] == "done"}
        last: dict[tuple[str, str, str], Line] = {}
        for line in lines:
            if line["question"] == "start":  # what an attempt that was stopped has written does not count
                last = {key: value for key, value in last.items() if key[0] != line["run"]}
            last[line["run"], line["question"], str(line.get("value"))] = line
        self.lines = [line for line in last.values() if line["run"] in done]
        self.clusters = clusters or {}

    @classmethod
    def read(cls, out: Path) -> Figures:
        """Read figures.jsonl and clusters.json; a run that was stopped does not count."""
        lines = [json.loads(line) for line in (out / "figures.jsonl").read_text(encoding="utf-8").splitlines()]
        file = out / "clusters.json"
        kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return cls(lines, {name: np.array(values) for name, values in kept.items()})

    def write(self, folder: Path) -> None:
        """Write the lines of complete runs, with right or wrong per item only where a comparison needs it.

        `read` reads them, and a copy in OUT lets `run` go on.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "figures.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            for line in self.lines:
                kept = {name: value for name, value in line.items() if name != "right" or line["question"] in COMPARED}
                file.write(json.dumps(kept) + "\n")
        clusters = {name: values.tolist() for name, values in self.clusters.items()}
        (folder / "clusters.json").write_text(json.dumps(clusters) + "\n", encoding="utf-8", newline="\n")

    def pick(self, arm: str, question: str = "main", *, change: str = "", **wanted: object) -> dict[int, list[Line]]:
        """Return the lines of an arm by seed."""
        found: dict[int, list[Line]] = {}
        for line in self.lines:
            fits = all(line.get(name) == value for name, value in wanted.items())
            if (line["arm"], line["question"], line["change"]) == (arm, question, change) and fits:
                found.setdefault(line["seed"], []).append(line)
        return dict(sorted(found.items()))

    def values(self, arm: str, name: str, question: str = "main", **wanted: Any) -> dict[int, float]:
        """Return a figure by seed."""
        picked = self.pick(arm, question, **wanted)
        return {seed: lines[-1]["figures"][name] for seed, lines in picked.items() if name in lines[-1]["figures"]}

    def over(
        self, ours: tuple[str, str], theirs: tuple[str, str], name: str, *, change: str = ""
    ) -> tuple[float, float, float] | None:
        """Compute the difference of two arms in a figure: mean, low, high; None where no seed has both."""
        a, b = (self.pick(arm, question, change=change) for arm, question in (ours, theirs))
        seeds = sorted(set(a) & set(b))
        tests = MEANS[name]
        answers = [lines[seed][-1]["right"] for lines in (a, b) for seed in seeds]
        if not answers or any(test not in right for test in tests for right in answers):
            return None
        pairs = {
            test: tuple(np.stack([unpack(lines[seed][-1]["right"][test]) for seed in seeds]) for lines in (a, b))
            for test in tests
        }
        return difference(pairs, {test: self.clusters[_base(test)] for test in tests if _base(test) in self.clusters})


def _base(test: str) -> str:
    return test.split("_r")[0]


def difference(
    pairs: Mapping[str, tuple[npt.NDArray[Any], ...]], clusters: Clusters | None = None
) -> tuple[float, float, float]:
    """Compare two models on the same items and seeds: mean difference in points, and its interval of 95%.

    Args:
        pairs: right or wrong of both models by test, (S, q) each; the tests count equally.
        clusters: (q,) by test, items that are drawn together.

    >>> better, worse = np.ones((2, 50), bool), np.zeros((2, 50), bool)
    >>> difference({"a": (better, worse), "b": (worse, worse)})
    (50.0, 50.0, 50.0)
    """
    total, mean = np.zeros((bootstrap.REPEATS, next(iter(pairs.values()))[0].shape[0])), 0.0  # (R, S)
    for name, (ours, theirs) in pairs.items():
        gap = ours.astype(np.float64) - theirs  # (S, q)
        drawn = _draws(clusters[name]) if clusters and name in clusters else _draws(gap.shape[1])
        total = total + np.stack([bootstrap.means(row, drawn) for row in gap], axis=1) / len(pairs)  # (R, S)
        mean += float(gap.mean()) / len(pairs)
    seeds = total.shape[1]
    weights = np.random.default_rng(1).multinomial(seeds, [1 / seeds] * seeds, size=len(total)) / seeds
    low, high = bootstrap.interval((total * weights).sum(axis=1))
    return 100 * mean, 100 * low, 100 * high


_DRAWN: dict[bytes, npt.NDArray[np.uint16]] = {}


def _draws(clusters: npt.NDArray[np.int64] | int) -> npt.NDArray[np.uint16]:
    key = str(clusters).encode() if isinstance(clusters, int) else clusters.tobytes()
    if key not in _DRAWN:
        _DRAWN[key] = bootstrap.draws(clusters)
    return _DRAWN[key]


def share_reached(curve: Mapping[float, float], goal: float) -> float | None:
    """Return the share of the data at which a curve reaches a figure, linear in the logarithm of the share.

    The smallest share where the first point is above; None where no point is.

    >>> share_reached({0.1: 10.0, 0.4: 30.0, 1.0: 31.0}, 20.0)
    0.2
    >>> share_reached({0.1: 10.0, 1.0: 30.0}, 5.0), share_reached({0.1: 10.0, 1.0: 30.0}, 40.0)
    (0.1, None)
    """
    before: tuple[float, float] | None = None
    for share, value in sorted(curve.items()):
        if value >= goal:
            if before is None:
                return share
            part = (goal - before[1]) / (value - before[1])
            return round(math.exp(math.log(before[0]) + part * math.log(share / before[0])), 6)
        before = share, value
    return None


def first_reached(points: Sequence[Mapping[str, float]], name: str, goal: float) -> Mapping[str, float] | None:
    """Return the first point of a learning curve with at least this figure; None where there is none.

    >>> first_reached([{"step": 1, "r": 2.0}, {"step": 2, "r": 5.0}], "r", 4.0)["step"]
    2
    """
    return next((point for point in points if point[name] >= goal), None)


def shown(found: tuple[float, float, float] | None) -> str:
    """Format a difference with its interval.

    >>> shown((1.234, -0.5, 3.0)), shown(None)
    ('+1.2 (-0.5 to +3.0)', '')
    """
    return f"{found[0]:+.1f} ({found[1]:+.1f} to {found[2]:+.1f})" if found else ""
