"""Paired differences: against a naive bootstrap, on shared items only, in any order."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from helpers.results import classified
from impart.errors import DataError
from impart.evaluate.report.compare import against_first, compare_all, intervals, paired
from impart.metrics import bootstrap

RNG = np.random.default_rng(0)
EASY = (RNG.random(200) < 0.7).astype(float)
BETTER = np.maximum(EASY, (RNG.random(200) < 0.5).astype(float))


def test_the_interval_is_that_of_a_naive_paired_bootstrap() -> None:
    found = paired(classified("a", EASY), classified("b", BETTER)).of("top-1")
    assert found is not None
    assert found.difference == pytest.approx(BETTER.mean() - EASY.mean())
    differences = []
    for drawn in bootstrap.draws(200):
        rows = np.repeat(np.arange(200), drawn)
        differences.append(BETTER[rows].mean() - EASY[rows].mean())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(differences, [0.025, 0.975])))
    assert (found.noise, found.better) == (False, True)


def test_pairing_finds_a_difference_that_two_intervals_do_not_show() -> None:
    a, b = classified("a", EASY), classified("b", BETTER)
    (low_a, high_a), (low_b, _) = intervals(a)["top-1"], intervals(b)["top-1"]
    slightly = EASY.copy()
    slightly[np.flatnonzero(EASY == 0)[:8]] = 1
    c = classified("c", slightly)
    assert low_a < intervals(c)["top-1"][0] < high_a  # the intervals overlap widely
    assert paired(a, c).of("top-1").noise is False
    assert low_b > low_a


def test_equal_results_differ_by_noise_only() -> None:
    for found in paired(classified("a", EASY), classified("a", EASY)).differences:
        assert (found.difference, found.low, found.high, found.noise) == (0, 0, 0, True)


def test_lower_is_better() -> None:
    found = paired(classified("a", EASY), classified("b", BETTER)).of("log-loss")
    assert found.difference < 0
    assert found.better


def test_only_shared_items_are_compared_and_the_others_are_counted() -> None:
    a = classified("a", [1, 0, 0, 1], items=["p", "q", "r", "only a"])
    b = classified("b", [1, 1, 0, 0, 1], items=["r", "q", "p", "only b", "b too"])
    found = paired(a, b)
    assert (found.shared, found.only_a, found.only_b) == (3, 1, 2)
    top1 = found.of("top-1")
    assert (top1.a, top1.b) == pytest.approx((1 / 3, 2 / 3))
    assert found.of("calibration error") is None
    assert found.notes == ("calibration error: not compared, the items differ",)


def test_no_shared_item_is_noted() -> None:
    found = paired(classified("a", [1, 0]), classified("b", [1, 0], items=["x.jpg", "y.jpg"]))
    assert (found.shared, found.differences) == (0, ())
    assert "top-1: not compared, no item is shared" in found.notes


def test_items_of_a_moved_data_set_are_matched_below_its_folder() -> None:
    items = ["red/1.png", "red/2.png", "blue/1.png", "blue/2.png"]
    a = classified("a", [1, 0, 0, 1], items=[f"/here/set/{name}" for name in items])
    b = classified("b", [1, 1, 1, 1], items=[f"C:/there/{name}" for name in items])
    found = paired(a, b)
    assert (found.shared, found.only_a, found.only_b) == (4, 0, 0)
    assert found.of("top-1").difference == 0.5
    assert "different folders" in found.notes[0]


def test_order_does_not_matter_and_equal_keys_are_numbered() -> None:
    items = [f"{number // 2}" for number in range(200)]  # every key twice
    order = np.arange(200).reshape(100, 2)[::-1].reshape(-1)
    a, b = classified("a", EASY, items=items), classified("b", BETTER, items=items)
    shuffled = classified("b", BETTER[order], items=[items[row] for row in order])
    one, other = paired(a, b).of("top-1"), paired(a, shuffled).of("top-1")
    assert (one.difference, one.low, one.high) == (other.difference, other.low, other.high)


def test_clusters_are_drawn_together() -> None:
    values = np.repeat(
        [1.0, 0.0, 1.0, 0.0, 1.0, 1.0], 50
    )  # items of a cluster are equal: six independent values, not 300
    clusters = np.repeat(np.arange(6), 50)
    alone, together = classified("a", values), classified("a", values, clusters=clusters.tolist())
    width = {name: np.ptp(intervals(one)["top-1"]) for name, one in (("alone", alone), ("together", together))}
    assert width["together"] > 4 * width["alone"]


def test_without_draws_there_is_no_interval_and_no_noise_flag() -> None:
    found = paired(classified("a", EASY), classified("b", BETTER), repeats=0).of("top-1")
    assert (found.low, found.noise) == (None, None)
    assert intervals(classified("a", EASY), repeats=0) == {}


def test_a_figure_that_is_not_a_number_is_left_out() -> None:
    broken = dataclasses.replace(classified("a", EASY), figures={"calibration error": float("nan")})
    assert paired(broken, classified("b", EASY)).differences == ()


def test_each_is_compared_with_the_first_of_its_task() -> None:
    results = [classified(name, EASY, dataset=place) for place in ("one", "two") for name in ("a", "b", "c")]
    assert [(one.dataset, one.a, one.b) for one in against_first(results)] == [
        ("one", "a", "b"),
        ("one", "a", "c"),
        ("two", "a", "b"),
        ("two", "a", "c"),
    ]


def test_settings_that_differ_are_noted() -> None:
    other = dataclasses.replace(classified("mini", EASY), settings={"prompts": "single"}, labels=("crimson", "blue"))
    (found,), _ = compare_all([classified("mini", EASY)], [other])
    assert found.notes == ("not the same in both: prompts, names of the classes",)
    (found,), _ = compare_all([classified("mini", EASY)], [classified("mini", BETTER)])
    assert found.notes == ()


def test_two_runs_are_matched_by_label_else_by_the_first() -> None:
    first = [classified("mini", EASY), classified("ram", EASY), classified("mini", EASY, dataset="lost")]
    found, notes = compare_all(first, [classified("ram", BETTER), classified("new", BETTER)])
    assert [(one.a, one.b) for one in found] == [("ram", "ram")]
    assert notes == ["only in the first report: zero-shot, lost"]
    found, _ = compare_all(first, [classified("new", BETTER)])
    assert [(one.a, one.b) for one in found] == [("mini", "new")]
    with pytest.raises(DataError, match="no task on a data set in common"):
        compare_all(first, [classified("mini", EASY, dataset="elsewhere")])
