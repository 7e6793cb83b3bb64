"""Where good hits end, and which hits show the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.snapshots import make_snapshot
from impart.encoders.base import l2_normalise
from impart.retrieval.hubness import WEIGHT, CaptionBank
from impart.video.search.cutoff import (
    LEAST_COSINE,
    LEAST_SCORE,
    SHARE,
    Asked,
    fold_hits,
    leaders,
    mark_hits,
    strong_hits,
)
from impart.video.search.hits import Hit


def hit(rank: int, name: str, *, start_s: float = 0.0) -> Hit:
    times = {"start_s": start_s, "end_s": start_s + 2, "best_s": start_s, "scene_start_s": 0, "scene_end_s": 9}
    return Hit(rank=rank, path=Path(name), score=1 / rank, video_id=name, video_s=9, **times)


def test_a_share_of_the_best_counts_from_the_floor() -> None:
    scores = np.array([1.0, 0.5 + SHARE / 2, 0.5 + SHARE / 2 - 0.01, 0.4])
    assert strong_hits(scores, floor=0.5).tolist() == [True, True, False, False]
    assert strong_hits(scores[:1], floor=0.5).tolist() == [True]
    assert strong_hits(np.zeros(0)).tolist() == []


@pytest.mark.parametrize(
    ("cosine", "hubness", "strong"),
    [
        (LEAST_COSINE + 0.01, 0.0, True),
        (LEAST_COSINE - 0.01, 0.0, False),
        (LEAST_COSINE + 0.3, 0.29 + LEAST_COSINE - LEAST_SCORE, True),
        (LEAST_COSINE + 0.3, 0.31 + LEAST_COSINE - LEAST_SCORE, False),
    ],
)
def test_a_text_needs_a_cosine_and_to_stand_out_against_captions(cosine: float, hubness: float, strong: bool) -> None:
    query, other = np.eye(2, 16, dtype=np.float32)
    vector = cosine * query + np.sqrt(1 - cosine**2) * other
    caption = hubness / WEIGHT * vector  # its cosine with the vector is what is subtracted, before the weight
    snapshot = make_snapshot(np.repeat(vector[None].astype(np.float32), 8, axis=0))
    asked = Asked(vectors=query[None], by_text=np.array([True]))
    (marked,) = mark_hits([hit(1, "0")], asked, snapshot, None, bank=CaptionBank(caption[None].astype(np.float32)))
    assert marked.strong == strong


def test_hits_that_show_the_same_are_folded_under_the_first() -> None:
    rng = np.random.default_rng(0)
    a, b = l2_normalise(rng.standard_normal((2, 64))).astype(np.float32)
    near = l2_normalise((a + 0.02 * b)[None])[0]
    vectors = np.stack([a, b, near, b, a])
    videos = ["1", "2", "3", "2", "4"]
    assert leaders(vectors, videos, bound=0.95) == [0, 1, 0, 3, 0]  # moments of one video stay apart
    assert leaders(vectors, videos, bound=2.0) == [0, 1, 2, 3, 4]


def test_folded_hits_keep_their_times() -> None:
    rng = np.random.default_rng(0)
    a, b = l2_normalise(rng.standard_normal((2, 64))).astype(np.float32)
    retrieval = np.repeat(np.stack([a, b, a, b]), 8, axis=0)  # videos 0 and 1 of two scenes of 2 s each
    snapshot = make_snapshot(retrieval, lengths=[16, 16], retrieval=retrieval)
    hits = [hit(1, "0"), hit(2, "1", start_s=2), hit(3, "1"), hit(4, "0", start_s=2)]
    folded = fold_hits(hits, snapshot, bound=0.95)
    assert [one.rank for one in folded] == [1, 2]
    assert [(copy.path.name, copy.start_s, copy.end_s) for one in folded for copy in one.near_copies] == [
        ("1", 0, 2),
        ("0", 2, 4),
    ]
    assert len(fold_hits(hits, snapshot, bound=1.5)) == 4


@pytest.mark.parametrize("text", [True, False])
def test_hits_are_marked_by_the_frames_of_their_spans(text: bool) -> None:
    query, other = np.eye(2, 16, dtype=np.float32)
    near = l2_normalise((query + 0.4 * other)[None])[0]
    vectors = np.repeat(np.stack([query, near, other, other]), 8, axis=0)
    snapshot = make_snapshot(vectors, lengths=[8, 8, 8, 8])
    asked = Asked(vectors=query[None], by_text=np.array([text]))
    bank = CaptionBank(other[None])  # its hubness is 0.6 x the cosine with `other`
    hits = [hit(rank, str(rank - 1)) for rank in (1, 2, 3)]
    # the sample's mean is 0.48: 0.93 is 0.86 of the way from there to the best; a text's score is 0.93 - 0.6 x 0.37
    assert [one.strong for one in mark_hits(hits, asked, snapshot, None, bank=bank)] == [True, not text, False]
    weak = mark_hits(hits[2:], asked, snapshot, None, bank=bank)
    assert [(one.rank, one.strong) for one in weak] == [(1, not text)]  # the best hit of an image is always strong
    assert mark_hits([], asked, snapshot, None, bank=bank) == []
