"""Leave-one-out few-shot questions: classify each image of a reference set among the set's own texts.

The rows of the image itself are masked, so that only the other rows can help. `impart.blending.tune` chooses the
blending settings by the answers, and a sweep reports them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impart.blending.vanilla import Vanilla, mixture
from impart.config import VanillaSettings
from impart.encoders.base import Float32, ImageEmbeddings, l2_normalise
from impart.files import sha256_hex
from impart.refset.refset import ReferenceSet
from impart.retrieval.nearest import Neighbours

__all__ = [
    "ENOUGH",
    "LeaveOneOut",
    "OwnQuestions",
    "anonymous",
    "are_names",
    "leave_one_out",
    "own_questions",
    "plain_text",
]

ENOUGH = 20
"""Images that share their text with another, from which the answers are reliable."""

_MAX_QUESTIONS = 1500
_NAME_WORDS = 5  # texts of at most this many words (median) are names, longer ones captions
_DIGEST = "sha256:"


@dataclass(frozen=True)
class OwnQuestions:
    """Images of a set, to be classified among its own texts without their own rows.

    Attributes:
        rows: (Q,) the row of each image.
        right: (Q,) number of its text.
        texts: (T,) a row that has the text of each number.
        checks_itself: whether the answers measure the quality of the set; False where it names each thing once.
    """

    rows: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    texts: npt.NDArray[np.int64]
    checks_itself: bool


@dataclass(frozen=True)
class LeaveOneOut:
    """Questions with their embeddings and neighbours, to be answered under any settings.

    Attributes:
        references: the set.
        embeddings: (Q, D) image embeddings.
        neighbours: (Q, K) nearest references that do not show the same image.
        z_scores: (Q, K).
        texts: (T, D) text embeddings.
        right: (Q,) number of the right text.
        checks_itself: see `OwnQuestions`.
    """

    references: ReferenceSet
    embeddings: Float32
    neighbours: Neighbours
    z_scores: Float32
    texts: Float32
    right: npt.NDArray[np.int64]
    checks_itself: bool

    def __len__(self) -> int:
        return len(self.right)

    def hits(self, settings: VanillaSettings) -> npt.NDArray[np.float64]:
        """Blend under some settings (K at most that of `neighbours`) and compare the nearest text with the right one.

        Returns:
            (Q,) 1 where the nearest text of v' is the right one. The length of v' does not change the order of texts.
        """
        k, references = settings.k, self.references
        neighbours = Neighbours(self.neighbours.ids[:, :k], self.neighbours.sims[:, :k])
        images = ImageEmbeddings(self.embeddings, self.embeddings)  # retrieval is done: its embeddings are not read
        amounts = Vanilla(settings).amounts(images, neighbours, self.z_scores[:, :k], references)
        total = self.embeddings + mixture(amounts.img, neighbours.ids, references.image_rows)
        total += mixture(amounts.txt, neighbours.ids, references.text_rows)
        found: npt.NDArray[np.float64] = ((total @ self.texts.T).argmax(axis=1) == self.right).astype(np.float64)
        return found


def leave_one_out(references: ReferenceSet, k: int, *, seed: int = 0) -> LeaveOneOut:
    """Search the neighbours of the set's own questions.

    Args:
        references: the set.
        k: neighbours per image.
        seed: of the sample taken from a large set.
    """
    own = own_questions(references, seed=seed)
    retrieval = references.retrieval_rows[own.rows]
    neighbours = references.search(retrieval, k, exclude=references.images[own.rows])
    return LeaveOneOut(
        references,
        embeddings=l2_normalise(references.image_rows[own.rows]),
        neighbours=neighbours,
        z_scores=references.znorm.z_scores(retrieval, neighbours.sims),
        texts=l2_normalise(references.text_rows[own.texts]),
        right=own.right,
        checks_itself=own.checks_itself,
    )


def own_questions(references: ReferenceSet, *, seed: int = 0) -> OwnQuestions:
    """Choose the images that leave-one-out classifies.

    They are the images that share their text with another image. Where there are too few of these, one row of each
    image is taken.

    Args:
        references: the set.
        seed: of the sample taken from a large set.
    """
    names = [plain_text(text) for text in references.texts]
    first_rows = np.unique(references.images, return_index=True)[1]  # one row per image
    shared = Counter(names[row] for row in first_rows)
    repeated = np.array([row for row in first_rows if shared[names[row]] > 1], dtype=np.int64)
    rows = repeated if len(repeated) >= ENOUGH else first_rows
    if len(rows) > _MAX_QUESTIONS:  # all images of some names, so that a sample is as hard as the set
        order = np.random.default_rng(seed).permutation(sorted({names[row] for row in rows})).tolist()
        rank = {name: i for i, name in enumerate(order)}
        rows = np.sort(rows[np.argsort([rank[names[row]] for row in rows], kind="stable")[:_MAX_QUESTIONS]])
    numbers: dict[str, int] = {}
    right = np.array([numbers.setdefault(names[row], len(numbers)) for row in rows], dtype=np.int64)
    texts = rows[np.unique(right, return_index=True)[1]]
    return OwnQuestions(rows, right, texts, checks_itself=len(repeated) >= ENOUGH or not are_names(names))


def are_names(texts: Sequence[str]) -> bool:
    """Whether most texts are names; longer ones are captions."""
    return float(np.median([len(plain_text(text).split()) for text in texts])) <= _NAME_WORDS


def anonymous(text: str) -> str:
    """Replace a text by a digest that is equal for equal texts, so that captions need not be published.

    >>> anonymous("A red fox") == anonymous("red fox")
    True
    """
    return _DIGEST + sha256_hex(plain_text(text))[:16]


def plain_text(text: str) -> str:
    """Remove case and leading article, so that two texts with the same name are equal."""
    return re.sub(r"^(an?|the) ", "", " ".join(text.lower().split()))
