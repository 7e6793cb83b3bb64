"""Duplicates among the videos of an index, from vectors alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from impart.encoders.base import l2_normalise
from impart.video.copies import duplicates, matching
from impart.video.copies.duplicates import duplicate_groups
from impart.video.copies.spans import DuplicateGroup
from video.copies.test_finder import FPS, changed, film, index


def groups_of(films: list[np.ndarray], **options: object) -> list[DuplicateGroup]:
    return duplicate_groups(
        index(films),
        [Path(f"{number}.mp4") for number in range(len(films))],
        **{
            "copies": {},
            "durations_s": np.array([len(rows) / FPS for rows in films]),
            "fps": FPS,
            "least": 0.6,
            "min_length_s": 2.0,
        }
        | options,
    )


@pytest.fixture(scope="module")
def films() -> list[np.ndarray]:
    first, second = film(1, seconds=60), film(2, seconds=60)
    joined = np.concatenate([film(3, seconds=10), first[80:120], film(4, seconds=10)])
    return [first, changed(second[::1]), joined, changed(second)[40:200], film(5, seconds=40)]


def test_a_common_part_and_a_cut_version_are_found_with_their_shares(films: list[np.ndarray]) -> None:
    groups = groups_of(films)
    assert sorted(tuple(path.name for path in group.paths) for group in groups) == [
        ("0.mp4", "2.mp4"),
        ("1.mp4", "3.mp4"),
    ]
    cut, common = (group.duplicates[0] for group in groups)  # the larger share comes first
    assert (cut.path.name, cut.other_path.name, cut.exact) == ("1.mp4", "3.mp4", False)
    assert cut.share == pytest.approx(40 / 60, abs=0.02)
    assert cut.other_share == pytest.approx(1, abs=0.02)
    (span,) = common.spans
    assert (common.path.name, common.other_path.name) == ("0.mp4", "2.mp4")
    assert span.start_s == pytest.approx(20, abs=0.5)
    assert span.video_start_s == pytest.approx(10, abs=0.5)
    assert span.length_s == pytest.approx(10, abs=0.6)


def test_small_tiles_find_the_same(films: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = groups_of(films)
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(duplicates, "_TILE", (3, 5))
    assert groups_of(films, on_progress=lambda done, total: seen.append((done, total))) == whole
    assert seen[-1][0] == seen[-1][1]
    assert len(seen) > 3


def test_short_common_parts_count_only_when_asked(films: list[np.ndarray]) -> None:
    assert [group.paths[0].name for group in groups_of(films, min_length_s=15.0)] == ["1.mp4"]


def test_exact_copies_are_one_video_when_frames_are_compared(films: list[np.ndarray]) -> None:
    three = [films[0], films[0], films[2]]
    groups = groups_of(three, copies={0: (0, 1), 1: (0, 1)})
    (group,) = groups
    exact, near = group.duplicates
    assert exact.exact
    assert (exact.share, exact.other_share) == (1, 1)
    assert {exact.path.name, exact.other_path.name} == {"0.mp4", "1.mp4"}
    assert {near.path.name, near.other_path.name} == {"0.mp4", "2.mp4"}


def test_pairs_that_cannot_be_copies_are_not_aligned_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = film(9, seconds=100)
    alike = [l2_normalise(kind + 0.9 * film(seed, seconds=100)) for seed in range(20, 23)]  # vote, but are no copies
    films = [*alike, changed(alike[0])[100:140]]
    aligned: list[object] = []
    best_line = matching.best_line
    monkeypatch.setattr(matching, "best_line", lambda evidence: aligned.append(evidence) or best_line(evidence))
    fast, few = groups_of(films, least=matching.COPY), len(aligned)
    monkeypatch.setattr(matching, "_reaches", lambda values, mean, *, count: True)
    assert groups_of(films, least=matching.COPY) == fast
    assert [path.name for path in fast[0].paths] == ["0.mp4", "3.mp4"]
    assert few < 0.8 * (len(aligned) - few)
