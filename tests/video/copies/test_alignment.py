"""Alignment: the best run on any line of a matrix of evidence."""

from __future__ import annotations

import numpy as np
import pytest

from impart.video.copies.alignment import SPEEDS, best_line, on_grid


def naive(evidence: np.ndarray) -> float:
    """The largest sum over all runs of all lines with the speeds that are tried."""
    count, width = evidence.shape
    best = 0.0
    for speed in SPEEDS:
        for offset in range(-int(np.ceil(speed * (count - 1))), width):
            for first in range(count):
                total = 0.0
                for row in range(first, count):
                    column = int(np.floor(offset + speed * row + 0.5))
                    if not 0 <= column < width:
                        break
                    total += float(evidence[row, column])
                    best = max(best, total)
    return best


@pytest.mark.parametrize("seed", range(3))
def test_the_best_line_has_as_much_evidence_as_a_naive_loop_finds(seed: int) -> None:
    evidence = np.random.default_rng(seed).normal(-0.3, 1, (9, 14)).astype(np.float32)
    line = best_line(evidence)
    assert line is not None
    rows, columns = line.columns(14)
    assert evidence[rows, columns].sum() == pytest.approx(line.evidence, abs=1e-5)
    assert line.evidence >= naive(evidence) / 1.011  # speed 1 is preferred unless another one is clearly better


@pytest.mark.parametrize("speed", [0.8, 0.93, 1.0, 1.1, 1.25])
def test_a_part_of_either_side_is_found_with_its_speed(speed: float) -> None:
    evidence = np.full((80, 200), -0.3, np.float32)
    rows = np.arange(20, 70)
    columns = np.rint(57 + speed * (rows - 20)).astype(int)
    evidence[rows, columns - 1] = evidence[rows, columns + 1] = 0.3
    evidence[rows, columns] = 0.5
    line = best_line(evidence)
    assert line is not None
    assert line.speed == pytest.approx(speed, abs=0.02)
    assert abs(line.first - 20) <= 2
    assert abs(line.stop - 70) <= 2
    assert abs(line.at(20) - 57) <= 1.5


def test_there_is_no_line_without_positive_evidence() -> None:
    assert best_line(np.full((5, 5), -0.1, np.float32)) is None
    assert best_line(np.zeros((0, 5), np.float32)) is None


def test_the_grid_repeats_a_long_segment_and_fills_a_gap() -> None:
    rows = on_grid(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.25, 3.25]), fps=4)
    assert rows.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2]
