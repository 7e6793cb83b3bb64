"""The settings that a sweep of a reference set measures."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import product

from impart.config import SweepSettings, VanillaSettings
from impart.errors import ConfigError
from impart.refset.subsets import FIXED, WAYS
from impart.validation import check_types

__all__ = ["ALL", "SweepPlan", "Point", "pairs_of"]

ALL = "all"
"""The selection that takes all pairs."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One setting.

    Attributes:
        way: of `impart.refset.subsets.WAYS`, or `ALL`.
        pairs: references to select; `dedup` may select fewer.
        corrupt: fraction of the captions exchanged before references are selected.
        seed: of the selection and the corruption; 0 if neither is random.
        k, w_img, w_txt, tau, floor, ramp, target: see `VanillaSettings`.
    """

    way: str
    pairs: int
    corrupt: float
    seed: int
    k: int
    w_img: float
    w_txt: float
    tau: float
    floor: float
    ramp: float
    target: float

    @property
    def settings(self) -> VanillaSettings:
        """The blending settings."""
        return VanillaSettings(**{item.name: getattr(self, item.name) for item in dataclasses.fields(VanillaSettings)})

    @property
    def references(self) -> tuple[str, int, float, int]:
        """The settings that determine the references: equal for points that share neighbours."""
        return (self.way, self.pairs, self.corrupt, self.seed)

    @property
    def without_seed(self) -> Point:
        """The point with seed 0, by which seeds are averaged."""
        return dataclasses.replace(self, seed=0)


@dataclass(frozen=True, kw_only=True)
class SweepPlan(SweepSettings):
    """The values of each setting, varied one at a time or as a grid.

    One at a time, around one point: each selection at each size; corruption, K, both weights and tau with the whole
    set. As a grid: all combinations.
    """

    def __post_init__(self) -> None:
        check_types(self, where="the sweep")
        for size in self.sizes:
            pairs_of(size, 1_000_000)
        unknown = [way for way in self.ways if way not in WAYS]
        if unknown:
            raise ConfigError(f"unknown selection {unknown[0]!r}: there are {', '.join(WAYS)}")
        if any(not 0 <= fraction <= 1 for fraction in self.corrupt):
            raise ConfigError(f"corrupt is {', '.join(map(str, self.corrupt))}: fractions from 0 to 1")
        if self.seeds < 1:
            raise ConfigError(f"seeds is {self.seeds}: at least 1")
        for name in ("sizes", "ways", "corrupt", "k", "w_img", "w_txt", "tau"):
            if self.grid and not getattr(self, name):
                raise ConfigError(f"a grid needs at least one value of {name}")
        for k, tau in product(self.k or (1,), self.tau or (0.0,)):
            VanillaSettings(k=k, tau=tau)  # raises ConfigError for invalid values

    def points(self, count: int, at: VanillaSettings) -> list[Point]:
        """List the points for a set of `count` pairs, each once; points that share references are adjacent."""
        seeds = range(self.seeds)
        found: dict[Point, None] = {self._point(count, at): None}

        def add(way: str, size: str, corrupted: float, seed: int, settings: VanillaSettings) -> None:
            found[self._point(count, settings, way, pairs_of(size, count), corrupted, seed)] = None

        if self.grid:
            blends = [
                dataclasses.replace(at, k=k, w_img=w_img, w_txt=w_txt, tau=tau)
                for k, tau, w_img, w_txt in product(self.k, self.tau, self.w_img, self.w_txt)
            ]
            for way, size, corrupted, seed, blend in product(self.ways, self.sizes, self.corrupt, seeds, blends):
                add(way, size, corrupted, seed, blend)
        else:
            for name in ("k", "w_img", "w_txt", "tau"):
                for value in getattr(self, name):
                    found[self._point(count, dataclasses.replace(at, **{name: value}))] = None
            for corrupted, seed in product(self.corrupt, seeds):
                add(ALL, "100%", corrupted, seed, at)
            for way, size, seed in product(self.ways, self.sizes, seeds):
                add(way, size, 0.0, seed, at)
        order = {references: n for n, references in enumerate(dict.fromkeys(point.references for point in found))}
        return sorted(found, key=lambda point: order[point.references])

    @staticmethod
    def _point(
        count: int,
        settings: VanillaSettings,
        way: str = ALL,
        pairs: int | None = None,
        corrupted: float = 0.0,
        seed: int = 0,
    ) -> Point:
        """Make a point in a normal form, so that equal settings are equal points."""
        pairs = count if pairs is None else pairs
        if pairs == count and way != "dedup":
            way = ALL
        if not corrupted and (way in FIXED or way == ALL):
            seed = 0
        return Point(way=way, pairs=pairs, corrupt=corrupted, seed=seed, **dataclasses.asdict(settings))


def pairs_of(size: str, count: int) -> int:
    """Convert a size to a number of pairs out of `count`, at least one.

    >>> pairs_of("10%", 303), pairs_of("0.1%", 303), pairs_of("50", 303), pairs_of("500", 303)
    (30, 1, 50, 303)

    Raises:
        ConfigError: the size is neither a percentage nor a number of pairs.
    """
    text = size.strip()
    try:
        wanted = float(text.removesuffix("%")) * count / 100 if text.endswith("%") else float(int(text))
    except ValueError as error:
        raise ConfigError(f"size {size!r} is neither a percentage (10%) nor a number of pairs (300)") from error
    if wanted <= 0 or (text.endswith("%") and wanted > count):
        raise ConfigError(f"size {size!r}: above 0%, at most 100%, or at least one pair")
    return min(count, max(1, round(wanted)))
