"""Episodes: small problems in which only the references can tell what an image shows.

Trained on captions against chance references, RAM learns to ignore them: the image's own embedding says more. An
episode is a set of concepts with a few images each as references, and further images of the same concepts to be
named among all of them. Two things make the references matter, and two make RAM doubt them:

- *made-up names*: a concept's text embedding t becomes norm(a t + (1 - a) t_other), a drawn from 0..1 for each
  concept, in the references and among the candidates alike. What the encoder knows of the name is worth a; the rest
  only the references can tell. (It also stands for words that the encoder never learned: it was trained on the real
  names of these very images, so real names alone would flatter it.)
- *near misses*: neighbours are found among all references of the episode, so that they are mixed.
- *absent concepts*: references of some concepts are left out, in some episodes all of them. There RAM must stand back.
- *mixed views*: thumbnails meet references in full size, and the other way about.
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
    """Images by what they show.

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
        """From one concept an image (empty = none).

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
        """Those to train on and those held out, by a digest of the name: the same in every run."""
        out = [held_out(key, share) for key in self.keys]
        parts = []
        for wanted in (False, True):
            chosen = [number for number, value in enumerate(out) if value is wanted]
            parts.append(Concepts(tuple(self.keys[n] for n in chosen), tuple(self.rows[n] for n in chosen)))
        return parts[0], parts[1]


@dataclass(frozen=True)
class Episode:
    """One problem; C concepts, N references, B queries.

    Attributes:
        concepts: (C,) numbers of the concepts.
        references: (N,) image numbers, and what they show, `shown` (N,) in 0..C.
        queries: (B,) image numbers, none of them a reference, and the right answers `right` (B,) in 0..C.
        present: (C,) bool, whether the references hold the concept.
    """

    concepts: npt.NDArray[np.int64]
    references: npt.NDArray[np.int64]
    shown: npt.NDArray[np.int64]
    queries: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    present: npt.NDArray[np.bool_]


def concept_of(texts: Sequence[str]) -> str:
    """What an image shows: its first text, if that is a name; an empty string if it is a caption.

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
    """Whether a concept is kept for validation; a larger share holds a smaller one."""
    return zlib.crc32(f"episodes {key}".encode()) / 2**32 < share


def draw_episode(
    pool: Concepts, settings: EpisodeSettings, rng: np.random.Generator, *, shots: int, present: float = 1.0
) -> Episode:
    """Draw concepts, references and queries.

    Args:
        pool: to draw from; concepts with no image left for a query are passed over.
        shots: references of a concept.
        present: share of the concepts that have references; with none of them, references show other concepts of
            the pool (or nothing is absent, where the pool has no others).
    """
    able = np.array([number for number, rows in enumerate(pool.rows) if len(rows) > shots])
    if len(able) < 2:
        raise ConfigError(f"{len(able)} concepts have more than {shots} images: lower episodes.shots")
    order = rng.permutation(able)
    chosen, others = order[: settings.concepts], order[settings.concepts : 2 * settings.concepts]
    here = rng.random(len(chosen)) < present if present < 1 else np.ones(len(chosen), dtype=bool)
    references: list[int] = []
    shown: list[int] = []
    queries: list[int] = []
    right: list[int] = []
    for place, concept in enumerate(chosen):
        rows = rng.permutation(pool.rows[concept])
        if here[place]:
            references += rows[:shots].tolist()
            shown += [place] * shots
        picked = rows[shots : shots + settings.queries].tolist()
        queries += picked
        right += [place] * len(picked)
    missing = int((~here).sum())
    for place, concept in enumerate(others[:missing], len(chosen)):  # something else fills their place
        references += rng.permutation(pool.rows[concept])[:shots].tolist()
        shown += [place] * shots
    filled = np.concatenate([chosen, others[:missing]]).astype(np.int64)
    if not references:  # a pool without others: the first concept stays
        rows = np.setdiff1d(pool.rows[chosen[0]], queries)[:shots]
        references, shown, here[0] = rows.tolist(), [0] * len(rows), True
    return Episode(
        concepts=filled,
        references=np.array(references, dtype=np.int64),
        shown=np.array(shown, dtype=np.int64),
        queries=np.array(queries, dtype=np.int64),
        right=np.array(right, dtype=np.int64),
        present=np.concatenate([here, np.ones(len(filled) - len(chosen), dtype=bool)]),
    )


def made_up(names: Sequence[npt.NDArray[np.float32]], rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], ...]:
    """Names of which the encoder knows a part: (C, D) unit rows mixed with those of other concepts.

    Args:
        names: several ways to say the same C names, each (C, D); all are mixed alike.
    """
    count = len(names[0])
    share = rng.random((count, 1)).astype(np.float32)
    # A cyclic shift of a random order gives every concept another one.
    order = rng.permutation(count)
    other = np.empty(count, dtype=np.int64)
    other[order] = np.roll(order, 1)
    mixed = []
    for rows in names:
        total = share * rows + (1 - share) * rows[other]
        mixed.append(l2_normalise(total))
    return tuple(mixed)
