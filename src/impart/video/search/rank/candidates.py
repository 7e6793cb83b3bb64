"""Candidates: find the best of many items by estimated scores, and score only those exactly.

An item is among the k best only if its exact score reaches that of the k-th. Its estimate is then at least that score
less the margin, which is some times the usual error of the estimates (`impart.retrieval.coarse`). So all items down to
there are scored exactly; where the k-th of them turns out to be lower, the next ones are as well. Where scores lie so
close that this would be a large share of all, all are.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32
from impart.video.search.ranking import top_groups

__all__ = ["Scores"]

_MARGIN = 8.0
"""Usual errors that an estimate of one of the best may be too low."""
_SPARE = 64  # groups beside twice those asked for, whose items are always scored exactly
_LARGEST_SHARE = 0.3  # of the items, above which a product with all costs less than taking them out
_DECIMALS = 1e-6  # scores that differ by less are ties
_BLOCK = 256

Numbers = npt.NDArray[np.int64]
Exact = Callable[[Numbers | slice], Float32]
"""Returns the exact scores (m,) of the items of these numbers (m,)."""


class Scores:
    """Scores of one query with n items: exact, or estimated for all and exact for those that are asked for.

    Args:
        values: (n,) scores, or their estimates.
        error: usual error of the estimates.
        exact: see `Exact`; None = the values are exact.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> exact = rng.standard_normal(1000).astype(np.float32)
        >>> rough = Scores(np.round(exact, 1), error=0.03, exact=lambda rows: exact[rows])
        >>> rough.best(3)[0].tolist() == Scores(exact).best(3)[0].tolist()
        True
    """

    def __init__(self, values: Float32, *, error: float = 0.0, exact: Exact | None = None) -> None:
        self._values = values
        self._margin = _MARGIN * error + _DECIMALS
        self._exact = exact
        self._known: Float32 | None = None

    def __len__(self) -> int:
        return len(self._values)

    def of(self, items: Numbers | slice) -> Float32:
        """Return the exact scores (m,) of some items."""
        if self._exact is None:
            return self._values[items]
        known = self._of_known(items)
        lacking = np.isnan(known)
        if not lacking.any():
            return known
        if isinstance(items, slice):
            if lacking.all():
                self.learn(items, self._exact(items))
            else:
                self._compute(items.start + np.flatnonzero(lacking))
        else:
            self._compute(items[lacking])
        return self._of_known(items)

    def learn(self, items: Numbers | slice, scores: Float32) -> None:
        """Take exact scores that were computed on the way."""
        if self._exact is not None:
            self._cache()[items] = scores

    def best(
        self, top: int, *, offsets: Numbers | None = None, allowed: npt.NDArray[np.bool_] | None = None
    ) -> tuple[Numbers, Float32]:
        """Find the groups of items with the best item, best first; of ties, the lower number.

        Args:
            offsets: (G + 1,) group g has the items from offsets[g] up to offsets[g + 1], at least one; None = each item
                is a group.
            allowed: (G,) groups that may be found; None = all.

        Returns:
            (k,) numbers of the groups, k <= top; (k,) their exact scores.
        """
        highs = _highest(self._values, offsets)
        if allowed is not None:
            highs = np.where(allowed, highs, -np.inf).astype(np.float32)
        if self._exact is None:
            found = top_groups(highs, top=top)
            return found, highs[found]
        count = len(highs) if allowed is None else int(np.count_nonzero(allowed))
        if not count:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        # The border: the estimate of the last of the spare groups, or the least that one of the best may have.
        border = min(_largest(highs, min(top, count)) - self._margin, _largest(highs, min(2 * top + _SPARE, count)))
        while True:
            items = np.flatnonzero(self._values >= border)
            if offsets is None:
                groups = items = items if allowed is None else items[allowed[items]]
            else:
                groups = np.searchsorted(offsets, items, side="right") - 1
                if allowed is not None:
                    items, groups = items[allowed[groups]], groups[allowed[groups]]
            if len(items) > _LARGEST_SHARE * len(self._values):
                return self._best_of_all(top, offsets, allowed)
            scores = self.of(items)
            first = np.flatnonzero(np.diff(groups, prepend=-1))  # of each group
            of_groups, groups = np.maximum.reduceat(scores, first), groups[first]
            least = float(np.partition(of_groups, -min(top, len(groups)))[-min(top, len(groups))]) - self._margin
            if border <= least:
                best = top_groups(of_groups, top=top)
                return groups[best], of_groups[best]
            border = least

    def best_item(self, items: slice) -> tuple[int, float]:
        """Find the best item of a group that `best` found, and its exact score; of ties, the first."""
        scores = self._values[items] if self._exact is None else self._of_known(items)
        place = int(np.argmax(np.round(np.where(np.isnan(scores), -np.inf, scores), 6)))
        return items.start + place, float(scores[place])

    def _best_of_all(
        self, top: int, offsets: Numbers | None, allowed: npt.NDArray[np.bool_] | None
    ) -> tuple[Numbers, Float32]:
        scores = self.of(slice(0, len(self._values)))
        highs = _highest(scores, offsets)
        found = top_groups(highs, top=top, allowed=allowed)
        return found, highs[found]

    def _compute(self, items: Numbers) -> None:
        assert self._exact is not None
        self.learn(items, self._exact(items))

    def _of_known(self, items: Numbers | slice) -> Float32:
        return self._cache()[items]

    def _cache(self) -> Float32:
        if self._known is None:
            self._known = np.full(len(self._values), np.nan, np.float32)
        return self._known


def _highest(values: Float32, offsets: Numbers | None) -> Float32:
    """Take the highest value (G,) of each group; `offsets` as of `Scores.best`."""
    if offsets is None or len(offsets) == len(values) + 1:
        return values
    highest: Float32 = np.maximum.reduceat(values, offsets[:-1])
    return highest


def _largest(values: Float32, k: int) -> float:
    """Find the k-th largest value.

    >>> _largest(np.arange(100_000, dtype=np.float32), 3)
    99997.0
    """
    blocks = len(values) // _BLOCK
    if blocks > 4 * k:  # at least k values reach the k-th largest of the largest of blocks
        tops = values[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)
        values = values[values >= np.partition(tops, -k)[-k]]
    return float(np.partition(values, -k)[-k])
