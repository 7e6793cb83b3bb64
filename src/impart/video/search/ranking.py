"""Ranking: pure functions from query vectors and a snapshot of the index to hits.

- A query vector is the normalised sum of its text's and its image's embeddings, less `negative_weight` times the mean
  of its negative terms (Rocchio), normalised again. It need not keep its length: only the order matters.
- The score of a frame is the cosine q.v', v' the frame's (augmented) unit vector.
- For a text, what the frame or video gets from any text is taken off (`impart.retrieval.hubness`), where the model comes
  with captions to tell.
- The score of a video by `mean` (IMPART 3.3) is the cosine with the mean of its frames' vectors; by `moment`, the score
  of its best frame. A segment counts as many times as frames were sampled in it. Scenes likewise.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from impart.blending.encoder import AugmentedEncoder
from impart.config import By, Fit, Group, SearchSettings
from impart.encoders.base import Encoder, Float32, ImageInput, l2_normalise
from impart.encoders.preprocess import squashed, to_rgb
from impart.errors import QueryError
from impart.refset.refset import ReferenceSet
from impart.retrieval.hubness import CaptionBank
from impart.retrieval.prompts import query_embeddings
from impart.video.search.snapshot import Snapshot

__all__ = [
    "By",
    "Group",
    "Hit",
    "Query",
    "Reason",
    "best_of",
    "combine",
    "frame_hubness",
    "frame_scores",
    "group_means",
    "path_mask",
    "query_vectors",
    "timecode",
    "top_groups",
]

_ROWS = 16_384  # segments widened to float32 at once: 42 MB at D = 640
_COEFFICIENTS = 4_000_000  # (groups x pairs) at once: 32 MB
_DECIMALS = 6  # scores nearer than this tie: the last bits depend on how a product was split


@dataclass(frozen=True, kw_only=True)
class Query:
    """What to look for: a text, an image (a file, PIL image or RGB array), or both; and what not."""

    text: str | None = None
    image: str | os.PathLike[str] | ImageInput | None = None
    not_text: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.text is not None and not self.text.strip():
            raise QueryError("the query's text is empty: say what to look for")
        if self.text is None and self.image is None:
            raise QueryError("a query needs a text, an image or both; negative terms alone find nothing")
        if isinstance(self.not_text, str) or any(not text.strip() for text in self.not_text):
            raise QueryError("negative terms are a list of texts, none of them empty")
        for text in (self.text or "", *self.not_text):
            if any("\ud800" <= letter <= "\udfff" for letter in text):  # bytes that were no text
                raise QueryError(f"the query {text!r} is not UTF-8 text: write it as UTF-8")


@dataclass(frozen=True, kw_only=True)
class Reason:
    """A reference pair that was blended into a hit's best segment.

    Attributes:
        text, source: of the pair.
        weight_img, weight_txt: how much of its image and text embedding was added to the segment's own (length 1).
        similarity: cosine of the retrieval embeddings of segment and pair; NaN where the video was replaced meanwhile.
    """

    text: str
    source: str
    weight_img: float
    weight_txt: float
    similarity: float


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One answer.

    Attributes:
        rank: from 1.
        start_s, end_s: of the scene where scenes are asked for, else of the best segment.
        score: a cosine, for a text less the hub correction; good ones lie at different heights for different models.
        best_s: start of the best segment, where to look first.
        why: what the reference set added to that segment, strongest first (only where asked for).
    """

    rank: int
    path: Path
    start_s: float
    end_s: float
    score: float
    video_id: str
    best_s: float
    why: tuple[Reason, ...] = ()

    @property
    def timecode(self) -> str:
        return timecode(self.start_s)


def timecode(seconds: float) -> str:
    """Seconds as HH:MM:SS.mmm.

    >>> timecode(3723.0456)
    '01:02:03.046'
    """
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"


def combine(wanted: Sequence[Float32], unwanted: Sequence[Float32], *, negative_weight: float) -> Float32:
    """One unit query vector (D,) from unit vectors of what is wanted and what is not.

    >>> combine([np.array([1, 0], np.float32)], [np.array([0, 1], np.float32)], negative_weight=0.75).round(1).tolist()
    [0.800000011920929, -0.6000000238418579]
    """
    vector = l2_normalise(np.sum(wanted, axis=0))
    if len(unwanted):
        vector = l2_normalise(vector - negative_weight * np.mean(unwanted, axis=0))
    return vector


def frame_scores(
    queries: Float32,
    snapshot: Snapshot,
    encoder: AugmentedEncoder | None,
    *,
    rows: npt.NDArray[np.int64] | None = None,
) -> Float32:
    """Cosines of queries (T, D) with segments.

    Args:
        encoder: the augmentation in force; None scores the base vectors.
        rows: (m,) segments wanted; None = all n.

    Returns:
        (T, m) or (T, n).
    """
    count = len(snapshot) if rows is None else len(rows)
    scores = np.empty((len(queries), count), np.float32)
    for first in range(0, count, _ROWS):
        part = slice(first, first + _ROWS)
        taken = part if rows is None else rows[part]
        base = snapshot.vectors[taken].astype(np.float32)  # (b, D)
        if encoder is None or snapshot.blend is None:
            scores[:, part] = queries @ l2_normalise(base).T  # float16 rounded the lengths
        else:
            scores[:, part] = encoder.scores(queries, base, snapshot.blend[taken])
    return scores


def frame_hubness(bank: CaptionBank, snapshot: Snapshot, encoder: AugmentedEncoder | None) -> Float32:
    """(n,) how near each segment is to any text, see `impart.retrieval.hubness`."""
    result = np.empty(len(snapshot), np.float32)
    for first in range(0, len(snapshot), _ROWS):
        part = slice(first, first + _ROWS)
        base = snapshot.vectors[part].astype(np.float32)  # (b, D)
        seen = (
            l2_normalise(base)
            if encoder is None or snapshot.blend is None
            else encoder.apply(base, snapshot.blend[part])
        )
        result[part] = bank.hubness(seen)
    return result


def group_means(snapshot: Snapshot, starts: npt.NDArray[np.int64], *, references: ReferenceSet | None) -> Float32:
    """Unit means (G, D) of the vectors v' of consecutive groups of segments.

    The mean of v' is linear in the base vectors and in what was added, so v' itself is never formed: base vectors are
    summed with weight / norm, and pairs with the sum of their coefficients over the group.

    Args:
        starts: (G,) first segment of each group; the groups cover all segments.
        references: of the augmentation in force; None takes the base vectors.
    """
    blend = snapshot.blend if references is not None else None
    share = snapshot.weight.astype(np.float32)  # (n,)
    if blend is not None:
        share = share / blend.norm
    stops = np.append(starts, len(snapshot))[1:]
    sums = np.empty((len(starts), snapshot.vectors.shape[1]), np.float32)
    for i, (first, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        sums[i] = share[first:stop] @ snapshot.vectors[first:stop].astype(np.float32)
        if blend is not None and blend.added is not None:
            sums[i] += share[first:stop] @ blend.added[first:stop].astype(np.float32)
    if blend is not None and blend.added is None and references is not None and len(references):
        group = np.repeat(np.arange(len(starts)), stops - starts)  # (n,)
        for vectors, weights in (
            (references.image_embeddings, blend.img),
            (references.text_embeddings, blend.txt),
        ):
            _add_pairs(sums, vectors, blend.ids, share[:, None] * weights, group=group)
    return l2_normalise(sums)


def top_groups(scores: Float32, *, top: int, allowed: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int64]:
    """Numbers of the best of G groups, best first; ties go to the lower number, which is the earlier path and time.

    Args:
        scores: (G,).
        allowed: (G,) groups that may be found.

    >>> top_groups(np.array([0.1, 0.5, 0.3, 0.5], np.float32), top=3).tolist()
    [1, 3, 2]
    """
    scores = np.round(scores, _DECIMALS)
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    cut = np.partition(scores, -top)[-top] if top < len(scores) else -np.inf
    candidates = np.flatnonzero((scores >= cut) & np.isfinite(scores))
    return candidates[np.argsort(-scores[candidates], kind="stable")][:top]


def best_of(frames: Float32) -> int:
    """Number of the best frame; the first of equals.

    >>> best_of(np.array([0.2, 0.7, 0.7], np.float32))
    1
    """
    return int(np.argmax(np.round(frames, _DECIMALS)))


def path_mask(snapshot: Snapshot, pattern: str) -> npt.NDArray[np.bool_]:
    """(V,) videos whose path matches a shell pattern.

    A pattern without a slash is matched with the file's name, one with a slash with the whole path or its end.
    """
    if "/" not in pattern and os.sep not in pattern:
        videos = [fnmatch.fnmatch(path.name, pattern) for path in snapshot.paths]
    else:
        tail = pattern if os.path.isabs(pattern) else f"*/{pattern}"  # noqa: PTH117
        videos = [fnmatch.fnmatch(path.as_posix(), tail.replace(os.sep, "/")) for path in snapshot.paths]
    return np.array(videos, bool)


def query_vectors(queries: Sequence[Query], encoder: Encoder, settings: SearchSettings, *, fit: Fit) -> Float32:
    """(T, D) unit vectors; texts in batches, images one by one.

    Args:
        settings: prompts of texts, weight of what is unwanted.
        fit: how the index sees frames; images are seen alike.

    Raises:
        DataError: an image cannot be read.
    """
    texts = list(dict.fromkeys(text for query in queries for text in (query.text, *query.not_text) if text is not None))
    vectors: dict[str, Float32] = {}
    if texts:
        embedded = query_embeddings(texts, encoder.encode_texts, prompts=settings.prompts)
        vectors = dict(zip(texts, embedded, strict=True))
    rows = []
    for query in queries:
        wanted = [vectors[query.text]] if query.text is not None else []
        if query.image is not None:
            image = _image(query.image)
            if fit == "squash":
                image = squashed(image, side_px=encoder.traits.image_size_px)
            wanted.append(encoder.encode_images([image]).embeddings[0])
        unwanted = [vectors[text] for text in query.not_text]
        rows.append(combine(wanted, unwanted, negative_weight=settings.negative_weight))
    return np.stack(rows)


def _image(image: str | os.PathLike[str] | ImageInput) -> Any:
    if not isinstance(image, str | os.PathLike):
        return image
    from PIL import Image, UnidentifiedImageError

    from impart.errors import DataError

    path = Path(image)
    try:
        with Image.open(path) as opened:
            return to_rgb(opened)
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not an image that can be read: use a JPEG, PNG or the like") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read the image {path}: {reason}") from error


def _add_pairs(
    sums: Float32, vectors: Float32, ids: npt.NDArray[np.int32], weights: Float32, *, group: npt.NDArray[np.int64]
) -> None:
    """Add the sum of weight * vectors[id] to each group.

    Segments of a group share most of their pairs, so the coefficients (G, N) are summed first and then multiplied with
    all pairs, some groups at a time.

    Args:
        sums: (G, D), changed.
        vectors: (N, D).
        ids, weights: (n, K); -1 = none.
        group: (n,), never falling.
    """
    count = len(vectors)
    step = max(1, _COEFFICIENTS // count)
    for first in range(0, len(sums), step):
        begin, end = np.searchsorted(group, [first, first + step])
        if begin == end:
            continue
        here, amount = ids[begin:end], weights[begin:end]
        used = here >= 0
        key = ((group[begin:end, None] - first) * count + here)[used]
        total = np.bincount(key, weights=amount[used], minlength=min(step, len(sums) - first) * count)
        coefficients = total.reshape(-1, count).astype(np.float32)  # (g, N)
        named = np.flatnonzero(coefficients.any(axis=0))  # of a large set, these groups use few
        sums[first : first + step] += coefficients[:, named] @ vectors[named]
