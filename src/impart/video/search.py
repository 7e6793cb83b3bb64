"""Ranking: pure functions from query vectors and a snapshot of the index to hits.

- A query vector is the normalised sum of its text's and its picture's embeddings, less `negative_weight` times the mean
  of its negative terms (Rocchio), normalised again. It need not keep its length: only the order matters.
- The score of a frame is the cosine q.v', v' the frame's (augmented) unit vector.
- The score of a video by `mean` (IMPART 3.3) is the cosine with the mean of its frames' vectors; by `moment`, the score
  of its best frame. A segment counts as many times as frames were sampled in it. Scenes likewise.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from impart.augment.encoder import AugmentedEncoder
from impart.augment.vanilla import Blend
from impart.encoders.base import Encoder, Float32, ImageInput, l2_normalise
from impart.errors import QueryError
from impart.reference.refset import ReferenceSet
from impart.video.snapshot import Snapshot

__all__ = ["By", "Group", "Hit", "Query", "Reason", "best", "combine", "frame_scores", "group_means", "timecode"]

Group: TypeAlias = Literal["video", "scene", "frame"]
By: TypeAlias = Literal["mean", "moment"]

_ROWS = 16_384  # segments widened to float32 at once: 42 MB at D = 640
_DECIMALS = 6  # scores nearer than this tie: the last bits depend on how a product was split


@dataclass(frozen=True, kw_only=True)
class Query:
    """What to look for: a text, a picture (a file, PIL image or RGB array), or both; and what not."""

    text: str | None = None
    image: str | os.PathLike[str] | ImageInput | None = None
    not_text: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.text is not None and not self.text.strip():
            raise QueryError("the query's text is empty: say what to look for")
        if self.text is None and self.image is None:
            raise QueryError("a query needs a text, a picture or both; negative terms alone find nothing")
        if isinstance(self.not_text, str) or any(not text.strip() for text in self.not_text):
            raise QueryError("negative terms are a list of texts, none of them empty")


@dataclass(frozen=True, kw_only=True)
class Reason:
    """A reference pair that was blended into a hit's best segment.

    Attributes:
        text, source: of the pair.
        weight_img, weight_txt: how much of its image and text embedding was added to the segment's own (length 1).
        similarity: cosine of the retrieval embeddings of segment and pair.
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
        score: a cosine; good ones lie at different heights for different models.
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


@dataclass(frozen=True)
class Found:
    """A group of segments [first, stop) and its best one, before it becomes a `Hit`."""

    score: float
    first: int
    stop: int
    best: int


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


def frame_scores(queries: Float32, snapshot: Snapshot, encoder: AugmentedEncoder | None) -> Float32:
    """Cosines (T, n) of queries (T, D) with all segments.

    Args:
        encoder: the augmentation in force; None scores the base vectors.
    """
    scores = np.empty((len(queries), len(snapshot)), np.float32)
    for first in range(0, len(snapshot), _ROWS):
        part = slice(first, first + _ROWS)
        base = snapshot.vectors[part].astype(np.float32)  # (b, D)
        if encoder is None or snapshot.blend is None:
            scores[:, part] = queries @ l2_normalise(base).T  # float16 rounded the lengths
        else:
            scores[:, part] = encoder.scores(queries, base, _rows(snapshot.blend, part))
    return scores


def group_means(snapshot: Snapshot, starts: npt.NDArray[np.int64], *, references: ReferenceSet | None) -> Float32:
    """Unit means (G, D) of the vectors v' of consecutive groups of segments.

    The mean of v' is linear in the base vectors and in the reference pairs, so v' itself is never formed: base vectors
    are summed with weight / norm, and pairs with the sum of their coefficients over the group.

    Args:
        starts: (G,) first segment of each group; the groups cover all segments.
        references: of the augmentation in force; None takes the base vectors.
    """
    blend = snapshot.blend if references is not None else None
    share = snapshot.weight.astype(np.float32)  # (n,)
    if blend is not None:
        share = share / blend.norm
    sums = np.zeros((len(starts), snapshot.vectors.shape[1]), np.float32)
    _add_runs(sums, snapshot.vectors, share, group=_group_of(starts, len(snapshot)))
    if blend is not None and references is not None and len(references):
        group = np.repeat(_group_of(starts, len(snapshot)), blend.ids.shape[1])
        _add_pairs(sums, references.image_embeddings, blend.ids, share[:, None] * blend.img, group=group)
        _add_pairs(sums, references.text_embeddings, blend.ids, share[:, None] * blend.txt, group=group)
    return l2_normalise(sums)


def best(
    frames: Float32,
    groups: Float32 | None,
    *,
    starts: npt.NDArray[np.int64] | None,
    top: int,
    allowed: npt.NDArray[np.bool_] | None = None,
) -> list[Found]:
    """The best groups of one query; ties go to the earlier path, then to the earlier time.

    Args:
        frames: (n,) score of each segment.
        groups: (G,) score of each group by its mean; None ranks a group by its best segment.
        starts: (G,) first segment of each group; None = every segment by itself.
        allowed: (n,) segments that may be found; a group counts if its first segment does.
    """
    count = len(frames)
    if not count:
        return []
    if starts is None:
        starts, scores = np.arange(count), frames
    else:
        scores = np.maximum.reduceat(frames, starts) if groups is None else groups
    if allowed is not None:
        scores = np.where(allowed[starts], scores, -np.inf)
    scores = np.round(scores, _DECIMALS)
    cut = np.partition(scores, -top)[-top] if top < len(scores) else -np.inf
    candidates = np.flatnonzero((scores >= cut) & np.isfinite(scores))
    order = candidates[np.argsort(-scores[candidates], kind="stable")][:top]
    stops = np.append(starts[1:], count)
    found = []
    for i in order:
        first, stop = int(starts[i]), int(stops[i])
        moment = first + int(np.argmax(np.round(frames[first:stop], _DECIMALS)))
        found.append(Found(float(scores[i]), first, stop, moment))
    return found


def path_mask(snapshot: Snapshot, pattern: str) -> npt.NDArray[np.bool_]:
    """(n,) segments of videos whose path matches a shell pattern.

    A pattern without a slash is matched with the file's name, one with a slash with the whole path or its end.
    """
    if "/" not in pattern and os.sep not in pattern:
        videos = [fnmatch.fnmatch(path.name, pattern) for path in snapshot.paths]
    else:
        tail = pattern if os.path.isabs(pattern) else f"*/{pattern}"  # noqa: PTH117
        videos = [fnmatch.fnmatch(path.as_posix(), tail.replace(os.sep, "/")) for path in snapshot.paths]
    return np.array(videos, bool)[snapshot.video_of]


def query_vectors(queries: Sequence[Query], encoder: Encoder, *, negative_weight: float) -> Float32:
    """(T, D) unit vectors; all texts in one batch, pictures one by one.

    Raises:
        DataError: a picture cannot be read.
    """
    texts = list(dict.fromkeys(text for query in queries for text in (query.text, *query.not_text) if text is not None))
    vectors: dict[str, Float32] = dict(zip(texts, encoder.encode_texts(texts), strict=True)) if texts else {}
    rows = []
    for query in queries:
        wanted = [vectors[query.text]] if query.text is not None else []
        if query.image is not None:
            wanted.append(encoder.encode_images([_picture(query.image)]).embeddings[0])
        unwanted = [vectors[text] for text in query.not_text]
        rows.append(combine(wanted, unwanted, negative_weight=negative_weight))
    return np.stack(rows)


def _picture(image: str | os.PathLike[str] | ImageInput) -> Any:
    if not isinstance(image, str | os.PathLike):
        return image
    from PIL import Image, ImageOps, UnidentifiedImageError

    from impart.errors import DataError

    path = Path(image)
    try:
        with Image.open(path) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not a picture that can be read: use a JPEG, PNG or the like") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read the picture {path}: {reason}") from error


def _rows(blend: Blend, part: slice) -> Blend:
    return Blend(ids=blend.ids[part], img=blend.img[part], txt=blend.txt[part], norm=blend.norm[part])


def _group_of(starts: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """(n,) group of each segment."""
    return np.repeat(np.arange(len(starts)), np.diff(np.append(starts, count)))


def _add_pairs(
    sums: Float32, vectors: Float32, ids: npt.NDArray[np.int32], weights: Float32, *, group: npt.NDArray[np.int64]
) -> None:
    """Add sum of weight * vectors[id] to each group; each pair enters a group once, however many segments share it.

    Args:
        sums: (G, D), changed.
        vectors: (N, D).
        ids, weights: (n, K).
        group: (n * K,).
    """
    used = (ids.reshape(-1) >= 0) & (weights.reshape(-1) != 0)
    key = group[used] * len(vectors) + ids.reshape(-1)[used]
    keys, inverse = np.unique(key, return_inverse=True)
    if not len(keys):
        return
    totals = np.bincount(inverse, weights=weights.reshape(-1)[used]).astype(np.float32)  # (pairs in groups,)
    _add_runs(sums, vectors, totals, group=keys // len(vectors), rows=keys % len(vectors))


def _add_runs(
    sums: Float32,
    vectors: npt.NDArray[Any],
    weights: npt.NDArray[Any],
    *,
    group: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64] | None = None,
) -> None:
    """Add weights * vectors[rows] to sums[group]; `group` never falls. Chunked: memory stays bounded."""
    for first in range(0, len(group), _ROWS):
        part = slice(first, first + _ROWS)
        taken = vectors[part] if rows is None else vectors[rows[part]]
        scaled = taken.astype(np.float32) * weights[part, None]
        here = group[part]
        begins = np.flatnonzero(np.diff(here, prepend=-1))
        sums[here[begins]] += np.add.reduceat(scaled, begins, axis=0)
