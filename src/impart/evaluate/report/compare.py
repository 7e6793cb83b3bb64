"""Compare two results on the same items: the difference of each figure, its interval, and whether it may be noise.

The bootstrap is paired: each draw has the same items for both encoders (or the same clusters, such as the captions of
one image). The difficulty of an item, equal for both, cancels. A difference whose 95% interval contains 0 is noise.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from impart.errors import DataError
from impart.evaluate.result import Result
from impart.metrics import bootstrap

__all__ = ["LEVEL", "Comparison", "Difference", "against_first", "compare_all", "intervals", "paired"]

LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One figure of two encoders, on the items that both have.

    Attributes:
        figure: its name.
        a, b: the two values.
        low, high: interval of `b - a`; None = no interval.
        lower_is_better: whether a lower figure is better.
    """

    figure: str
    a: float
    b: float
    low: float | None
    high: float | None
    lower_is_better: bool = False

    @property
    def difference(self) -> float:
        """`b - a`."""
        return self.b - self.a

    @property
    def noise(self) -> bool | None:
        """Whether the interval contains 0; None without an interval."""
        return None if self.low is None or self.high is None else self.low <= 0 <= self.high

    @property
    def better(self) -> bool:
        """Whether b is better than a."""
        return self.difference < 0 if self.lower_is_better else self.difference > 0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Encoder b against encoder a, on one task and data set.

    Attributes:
        task, dataset: what was measured.
        a, b: the encoders' labels.
        shared: number of items that both have.
        only_a, only_b: number of items that only one has.
        differences: one per figure.
        notes: figures that could not be compared, and why.
    """

    task: str
    dataset: str
    a: str
    b: str
    shared: int
    only_a: int
    only_b: int
    differences: tuple[Difference, ...]
    notes: tuple[str, ...] = ()

    def of(self, figure: str) -> Difference | None:
        """Return the difference of one figure, or None."""
        return next((one for one in self.differences if one.figure == figure), None)


def intervals(
    result: Result, *, repeats: int = bootstrap.REPEATS, level: float = LEVEL
) -> dict[str, tuple[float, float]]:
    """Compute the bootstrap interval of each figure that has one.

    Args:
        result: with values per item, or bootstrap replicates.
        repeats: draws for figures that are means over items; 0 = no intervals.
        level: confidence level.
    """
    if not repeats:
        return {}
    found = {}
    for name in result.figures:
        replicates = _replicates(result, name, np.arange(len(result.items)), repeats)
        if replicates is not None and not np.isnan(replicates).all():
            found[name] = bootstrap.interval(replicates, level)
    return found


def paired(a: Result, b: Result, *, repeats: int = bootstrap.REPEATS, level: float = LEVEL) -> Comparison:
    """Compare two results of one task on one data set, item by item.

    Figures that are means over items are compared on the items that both have. Other figures (`resampled`) are compared
    only if both have exactly the same items, since their replicates hold for all items.

    >>> def result(label, *right):
    ...     values = np.array(right, dtype=np.float64)
    ...     items = tuple("abcdefgh"[: len(right)])
    ...     measured = {"items": items, "figures": {"top-1": float(values.mean())}, "per_item": {"top-1": values}}
    ...     return Result(task="zero-shot", dataset="letters", encoder=label, **measured)
    >>> found = paired(result("mini", 0, 0, 0, 0, 0, 1), result("ram", 1, 1, 1, 1, 1, 1)).differences[0]
    >>> round(found.difference, 3), found.noise, found.better
    (0.833, False, True)
    """
    in_a, in_b, moved = _keys(a.items, b.items)
    where_b = {key: number for number, key in enumerate(in_b)}
    both = [(number, where_b[key]) for number, key in enumerate(in_a) if key in where_b]
    rows_a, rows_b = (np.array([pair[side] for pair in both], dtype=np.int64) for side in (0, 1))
    same = in_a == in_b and _equal(a.clusters, b.clusters)
    differences: list[Difference] = []
    notes = (
        ["the data are in different folders; items were matched by their paths below these folders"] if moved else []
    )
    for name in a.figures:
        if name not in b.figures:
            continue
        less = name in a.lower_is_better
        means = name in a.per_item and name in b.per_item
        if (means and not len(both)) or (not means and not same):
            notes.append(f"{name}: not compared, {'no item is shared' if means else 'the items differ'}")
            continue
        if means:
            x, y = a.per_item[name][rows_a], b.per_item[name][rows_b]
            values = float(x.mean()), float(y.mean())
        else:
            values = float(a.figures[name]), float(b.figures[name])
        if any(math.isnan(value) for value in values):
            continue
        bounds = _bounds(a, b, name, (rows_a, rows_b), repeats, level)
        differences.append(
            Difference(figure=name, a=values[0], b=values[1], low=bounds[0], high=bounds[1], lower_is_better=less)
        )
    return Comparison(
        task=a.task,
        dataset=a.dataset,
        a=a.encoder,
        b=b.encoder,
        shared=len(both),
        only_a=len(in_a) - len(both),
        only_b=len(in_b) - len(both),
        differences=tuple(differences),
        notes=tuple(notes),
    )


def against_first(results: Sequence[Result], *, repeats: int = bootstrap.REPEATS) -> list[Comparison]:
    """Compare each encoder with the first one, per task and data set."""
    first: dict[tuple[str, str], Result] = {}
    result = []
    for other in results:
        base = first.setdefault((other.task, other.dataset), other)
        if base is not other:
            result.append(paired(base, other, repeats=repeats))
    return result


def compare_all(
    a: Sequence[Result], b: Sequence[Result], *, repeats: int = bootstrap.REPEATS
) -> tuple[list[Comparison], list[str]]:
    """Compare two runs on each task and data set that both have.

    Encoders with equal labels are compared. If no label is in both, each encoder of b is compared with the first of a.

    Returns:
        The comparisons, and notes on tasks and data sets that only one run has.

    Raises:
        DataError: the runs have no task on a data set in common.
    """
    places_a, places_b = _places(a), _places(b)
    result: list[Comparison] = []
    notes = [
        f"only in the {name} report: {task}, {dataset}"
        for name, mine, other in (("first", places_a, places_b), ("second", places_b, places_a))
        for task, dataset in mine
        if (task, dataset) not in other
    ]
    for place, of_a in places_a.items():
        of_b = places_b.get(place)
        if of_b is None:
            continue
        by_label = {measured.encoder: measured for measured in of_a}
        equal = [(by_label[measured.encoder], measured) for measured in of_b if measured.encoder in by_label]
        pairs = equal or [(of_a[0], measured) for measured in of_b]
        for one, other in pairs:
            found = paired(one, other, repeats=repeats)
            result.append(dataclasses.replace(found, notes=(*_set_differently(one, other), *found.notes)))
    if not result:
        have = "; ".join(
            f"{name}: {', '.join(' on '.join(place) for place in places)}"
            for name, places in (("first", places_a), ("second", places_b))
        )
        raise DataError(
            f"the two reports have no task on a data set in common ({have}): evaluate both on the same data"
        )
    return result, notes


def _set_differently(a: Result, b: Result) -> list[str]:
    """Note which settings differ between the two runs."""
    names = [name for name in {**a.settings, **b.settings} if a.settings.get(name) != b.settings.get(name)]
    if a.labels != b.labels:
        names.append("names of the classes")
    return [f"not the same in both: {', '.join(names)}"] if names else []


def _bounds(
    a: Result,
    b: Result,
    name: str,
    rows: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    repeats: int,
    level: float,
) -> tuple[float | None, float | None]:
    if not repeats:
        return None, None
    replicates = [_replicates(one, name, part, repeats) for one, part in zip((a, b), rows, strict=True)]
    x, y = replicates
    if x is None or y is None or x.shape != y.shape or np.isnan(y - x).all():
        return None, None
    return bootstrap.interval(y - x, level)


def _replicates(result: Result, name: str, rows: npt.NDArray[np.int64], repeats: int) -> npt.NDArray[np.float64] | None:
    """Return the bootstrap replicates of a figure over some of the items, or None."""
    if name in result.per_item:
        if not len(rows):
            return None
        clusters = None if result.clusters is None else _from_zero(result.clusters[rows])
        return bootstrap.means(result.per_item[name][rows], _drawn(clusters, len(rows), repeats))
    if name in result.resampled and len(rows) == len(result.items):
        return result.resampled[name]
    return None


def _drawn(clusters: npt.NDArray[np.int64] | None, count: int, repeats: int) -> npt.NDArray[np.uint16]:
    return _kept_draws(None if clusters is None else clusters.tobytes(), count, repeats)


@lru_cache(maxsize=2)
def _kept_draws(clusters: bytes | None, count: int, repeats: int) -> npt.NDArray[np.uint16]:
    """Draw once for all figures and encoders with the same items."""
    numbers = count if clusters is None else np.frombuffer(clusters, dtype=np.int64)
    return bootstrap.draws(numbers, repeats=repeats)


def _from_zero(clusters: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Number clusters in order of appearance, so that equal items are drawn equally in two runs."""
    _, first, which = np.unique(clusters, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[which].astype(np.int64)


def _keys(a: Sequence[str], b: Sequence[str]) -> tuple[list[tuple[str, int]], list[tuple[str, int]], bool]:
    """Make the keys of both unique; if none is shared, remove the folder that all keys of one side share."""
    in_a, in_b = _numbered(a), _numbered(b)
    if not a or not b or not set(in_a).isdisjoint(in_b):
        return in_a, in_b, False
    below_a, below_b = _numbered(_below(a)), _numbered(_below(b))
    if set(below_a).isdisjoint(below_b):
        return in_a, in_b, False
    return below_a, below_b, True


def _below(items: Sequence[str]) -> list[str]:
    """Remove the folder that all keys share.

    >>> _below(["/data/set/cat/1.png", "/data/set/dog/1.png"])
    ['cat/1.png', 'dog/1.png']
    """
    first, last = min(items), max(items)  # the common prefix of these two is that of all
    shared = next((n for n, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
    folder = first[:shared].rfind("/") + 1
    return [key[folder:] for key in items]


def _numbered(items: Iterable[str]) -> list[tuple[str, int]]:
    """Add the number of the occurrence to each key, so that keys are unique."""
    seen: Counter[str] = Counter()
    result = []
    for key in items:
        result.append((key, seen[key]))
        seen[key] += 1
    return result


def _equal(a: npt.NDArray[np.int64] | None, b: npt.NDArray[np.int64] | None) -> bool:
    return b is None if a is None else b is not None and np.array_equal(a, b)


def _places(results: Sequence[Result]) -> dict[tuple[str, str], list[Result]]:
    places: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        places.setdefault((result.task, result.dataset), []).append(result)
    return places
