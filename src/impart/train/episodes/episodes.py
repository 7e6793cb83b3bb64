"""Episodes: small naming problems that need the references.

RAM trained on captions with arbitrary references learns to ignore them: the image's own embedding is more informative.
An episode has some concepts with a few images each as references, and further images of the same concepts (queries) to
be named among all concepts. Two properties make the references informative, and two make some of them misleading:

- *made-up names*: the text embedding t of a concept becomes norm(a t + (1 - a) t_other), with a drawn from 0..1 per
  concept, in the references and among the candidates. The encoder has learned only the part a of such a name; the rest
  is in the references alone. (Real names would be too easy: the encoder was trained on the names of these images.)
- *near misses*: neighbours are searched among all references of the episode, so that several concepts are mixed.
- *absent concepts*: some concepts have no references, in some episodes none has. There RAM must add nothing.
- *mixed views*: queries may be thumbnails and references full images, or the other way round.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impart.encoders.base import l2_normalise
from impart.errors import ConfigError
from impart.train.episodes.settings import EpisodeSettings
from impart.train.prepare.texts import text_key

__all__ = ["Concepts", "Episode", "concept_of", "draw_episode", "held_out", "made_up"]

_NAME_WORDS = 5  # texts of at most this many words are names, longer ones captions
_PLURALS = ((re.compile(r"ies$"), "y"), (re.compile(r"(ch|sh|x|ss)es$"), r"\1"), (re.compile(r"(?<![sui])s$"), ""))


@dataclass(frozen=True)
class Concepts:
    """Images grouped by concept.

    Attributes:
        keys: C names.
        rows: C arrays of image numbers.
    """

    keys: tuple[str, ...]
    rows: tuple[npt.NDArray[np.int64], ...]

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def of(cls, names: Sequence[str], *, least: int) -> Concepts:
        """Group images by their concepts (one per image, empty = none); keep those with at least `least` images.

        >>> Concepts.of(["cat", "dog", "cat", ""], least=2)
        Concepts(keys=('cat',), rows=(array([0, 2]),))
        """
        found: dict[str, list[int]] = {}
        for number, name in enumerate(names):
            if name:
                found.setdefault(name, []).append(number)
        kept = sorted(name for name, rows in found.items() if len(rows) >= least)
        return cls(tuple(kept), tuple(np.array(found[name], dtype=np.int64) for name in kept))

    def split(self, share: float) -> tuple[Concepts, Concepts]:
        """Split into training and held-out concepts, by a digest of the name: the same in every run."""
        out = [held_out(key, share) for key in self.keys]
        parts = []
        for wanted in (False, True):
            chosen = [number for number, value in enumerate(out) if value is wanted]
            parts.append(Concepts(tuple(self.keys[n] for n in chosen), tuple(self.rows[n] for n in chosen)))
        return parts[0], parts[1]


@dataclass(frozen=True)
class Episode:
    """One naming problem with C concepts, N references and B queries.

    Attributes:
        concepts: (C,) numbers of the concepts.
        references: (N,) image numbers.
        shown: (N,) position of each reference's concept in `concepts`.
        queries: (B,) image numbers, none of them a reference.
        right: (B,) position of each query's concept in `concepts`.
        present: (C,) bool, whether the concept has references.
    """

    concepts: npt.NDArray[np.int64]
    references: npt.NDArray[np.int64]
    shown: npt.NDArray[np.int64]
    queries: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    present: npt.NDArray[np.bool_]


def concept_of(texts: Sequence[str]) -> str:
    """Return the concept of an image: its first text, if that is a name; an empty string if it is a caption.

    >>> concept_of(["a photo of an Axolotl."]), concept_of(["cherries"]), concept_of(["two dogs run over a field"])
    ('axolotl', 'cherry', '')
    """
    key = " ".join(re.sub(r"[^a-z0-9 ]+", " ", text_key(texts[0])).split())
    if not key or len(key.split()) > _NAME_WORDS:
        return ""
    for pattern, instead in _PLURALS:
        singular = pattern.sub(instead, key)
        if singular != key:
            return singular
    return key


def held_out(key: str, share: float) -> bool:
    """Whether a concept is kept for validation; a larger share includes a smaller one."""
    return zlib.crc32(f"episodes {key}".encode()) / 2**32 < share


def draw_episode(
    pool: Concepts, settings: EpisodeSettings, rng: np.random.Generator, *, shots: int, present: float = 1.0
) -> Episode:
    """Draw concepts, references and queries.

    Args:
        pool: to draw from; concepts without an image left for a query are skipped.
        settings: `concepts` and `queries` are read.
        rng: of the draw.
        shots: references per concept.
        present: share of the concepts with references. References of other concepts of the pool replace the missing
            ones; where the pool has no others and no references are left, the first concept keeps its own.

    Raises:
        ConfigError: fewer than two concepts have enough images.
    """
    able = np.array([number for number, rows in enumerate(pool.rows) if len(rows) > shots])
    if len(able) < 2:
        raise ConfigError(f"{len(able)} concepts have more than {shots} images: lower episodes.shots")
    order = rng.permutation(able)
    chosen, others = order[: settings.concepts], order[settings.concepts : 2 * settings.concepts]
    kept = rng.random(len(chosen)) < present if present < 1 else np.ones(len(chosen), dtype=bool)
    references: list[int] = []
    shown: list[int] = []
    queries: list[int] = []
    right: list[int] = []
    for place, concept in enumerate(chosen):
        rows = rng.permutation(pool.rows[concept])
        if kept[place]:
            references += rows[:shots].tolist()
            shown += [place] * shots
        picked = rows[shots : shots + settings.queries].tolist()
        queries += picked
        right += [place] * len(picked)
    missing = int((~kept).sum())
    for place, concept in enumerate(others[:missing], len(chosen)):  # replaced by references of others
        references += rng.permutation(pool.rows[concept])[:shots].tolist()
        shown += [place] * shots
    filled = np.concatenate([chosen, others[:missing]]).astype(np.int64)
    if not references:  # a pool without others: the first concept keeps its references
        rows = np.setdiff1d(pool.rows[chosen[0]], queries)[:shots]
        references, shown, kept[0] = rows.tolist(), [0] * len(rows), True
    return Episode(
        concepts=filled,
        references=np.array(references, dtype=np.int64),
        shown=np.array(shown, dtype=np.int64),
        queries=np.array(queries, dtype=np.int64),
        right=np.array(right, dtype=np.int64),
        present=np.concatenate([kept, np.ones(len(filled) - len(chosen), dtype=bool)]),
    )


def made_up(names: Sequence[npt.NDArray[np.float32]], rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], ...]:
    """Mix the text embeddings of each concept with those of another one, by a random share.

    Args:
        names: P arrays (C, D) of unit rows, one per prompt; all are mixed with the same shares.
        rng: of the shares and of the order.

    Returns:
        P arrays (C, D) of unit rows.
    """
    count = len(names[0])
    share = rng.random((count, 1)).astype(np.float32)
    # a cyclic shift of a random order gives every concept another one
    order = rng.permutation(count)
    other = np.empty(count, dtype=np.int64)
    other[order] = np.roll(order, 1)
    mixed = []
    for rows in names:
        total = share * rows + (1 - share) * rows[other]
        mixed.append(l2_normalise(total))
    return tuple(mixed)
