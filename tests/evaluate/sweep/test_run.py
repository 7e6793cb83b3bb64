"""Sweeps: figures equal to zero-shot with each encoder, the points of a plan, and a sweep that continues."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from helpers.sets_of_colours import class_set
from helpers.tiny_encoder import COLOURS, DIM, RETRIEVAL_DIM, TinyEncoder
from impart.blending.encoder import AugmentedEncoder
from impart.blending.questions import own_questions
from impart.blending.tune import tune
from impart.blending.vanilla import Vanilla
from impart.config import SweepSettings, VanillaSettings
from impart.encoders.base import l2_normalise
from impart.errors import ConfigError
from impart.evaluate.sweep.folder import SweepFolder, best_in_words
from impart.evaluate.sweep.plan import ALL, Point, SweepPlan, pairs_of
from impart.evaluate.sweep.run import AROUND, LEAVE_ONE_OUT, SweepData, SweepRow, prepare, sweep
from impart.evaluate.sweep.tables import Best, choose_best
from impart.evaluate.tasks.zeroshot import zeroshot
from impart.refset.refset import ReferenceSet
from impart.refset.subsets import WAYS, choose, corrupt

AT = VanillaSettings(k=3, w_img=0.5, w_txt=1.0, tau=0.05)
NAMES = list(COLOURS)


@pytest.fixture
def references(tiny: TinyEncoder) -> ReferenceSet:
    """60 noisy pairs, six of each colour, so that some settings help and none is perfect."""
    rng = np.random.default_rng(0)
    texts = [name for name in NAMES for _ in range(6)]
    images = [np.full((4, 4, 3), COLOURS[name], np.uint8) for name in texts]
    made = tiny.encode_images(images)
    return ReferenceSet.from_arrays(
        texts,
        image=l2_normalise(made.embeddings + 0.5 * rng.standard_normal((60, DIM)).astype(np.float32)),
        text=l2_normalise(tiny.encode_texts(texts)),
        retrieval=l2_normalise(made.retrieval + 0.2 * rng.standard_normal((60, RETRIEVAL_DIM)).astype(np.float32)),
        encoder_id="tiny",
        encoder_fingerprint=tiny.fingerprint,
        name="noisy",
        vanilla=dataclasses.asdict(AT),
        meta={"hash": [f"image {i}" for i in range(60)]},
    )


def odd_classes() -> list[str]:
    """Class names that the tiny encoder confuses, so that references can correct them."""
    return ["red", "green orange", "blue", "yellow", "magenta", "cyan", "white", "black blue", "grey", "orange"]


@pytest.fixture
def data(references: ReferenceSet, tiny: TinyEncoder) -> SweepData:
    names = [*NAMES, *NAMES[:4]]
    called = [odd_classes()[NAMES.index(name)] for name in names]
    return prepare(references, tiny, [class_set(names, called=called, classes=odd_classes())], near=2)


def point(data: SweepData, **changes: object) -> Point:
    base = SweepPlan().points(len(data.references), data.settings)[0]
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"k": 16, "tau": 0.0},
        {"w_img": 2.0, "w_txt": 0.0},
        {"w_txt": 4.0, "floor": 1.0, "ramp": 1.0},
        {"way": "random", "pairs": 9, "seed": 1},
        {"way": "coverage", "pairs": 20},
        {"corrupt": 1.0, "seed": 2, "k": 8},
    ],
)
def test_rows_equal_zero_shot_with_that_encoder(data: SweepData, tiny: TinyEncoder, changes: dict[str, object]) -> None:
    asked = point(data, **changes)
    other = point(data, k=1, w_txt=0.1)
    row = next(row for row in sweep(data, [other, asked]) if row.dataset == "colours" and row.point == asked)
    spoiled = corrupt(data.references, asked.corrupt, seed=asked.seed)
    rows = np.arange(60) if asked.way == ALL else choose(spoiled, asked.way, asked.pairs, seed=asked.seed)
    names = [*NAMES, *NAMES[:4]]
    called = [odd_classes()[NAMES.index(name)] for name in names]
    dataset = class_set(names, called=called, classes=odd_classes())
    encoder = AugmentedEncoder(tiny, spoiled.take(rows), Vanilla(asked.settings))
    assert row.accuracy == pytest.approx(zeroshot(encoder, dataset).figures["top-1"])
    assert row.plain == pytest.approx(zeroshot(tiny, dataset).figures["top-1"])
    assert (row.used, row.items, row.classes) == (len(rows), 14, 10)
    gated = encoder.blend(tiny.encode_images([dataset.images.read(i)[0] for i in range(14)]))
    assert row.touched == pytest.approx((gated.img + gated.txt).any(axis=1).mean())


def test_leave_one_out_equals_the_figure_of_tuning(data: SweepData) -> None:
    tuned = tune(data.references)
    asked = point(data, **dataclasses.asdict(tuned.settings))
    row = next(row for row in sweep(data, [asked]) if row.dataset == LEAVE_ONE_OUT)
    assert (row.items, row.classes) == (tuned.items, tuned.texts)
    assert row.plain == pytest.approx(tuned.before)
    assert row.accuracy == pytest.approx(tuned.after)


def test_leave_one_out_of_a_part_measures_the_whole_set_and_masks_its_own_rows(data: SweepData) -> None:
    asked = point(data, way="random", pairs=20, seed=3, corrupt=0.5)
    row = next(row for row in sweep(data, [asked]) if row.dataset == LEAVE_ONE_OUT)
    whole = data.references
    spoiled = corrupt(whole, 0.5, seed=3)
    rows = choose(spoiled, "random", 20, seed=3)
    own = own_questions(whole)
    texts = whole.text_embeddings[own.texts].astype(np.float64)
    right = []
    for question, label in zip(own.rows, own.right, strict=True):
        others = [r for r in rows if r != question]
        sims = {r: float(whole.retrieval_embeddings[r] @ whole.retrieval_embeddings[question]) for r in others}
        near = sorted(others, key=lambda r: -sims[r])[:3]
        shares = np.exp([(sims[r] - sims[near[0]]) / asked.tau for r in near])
        v = whole.image_embeddings[question] / np.linalg.norm(whole.image_embeddings[question])
        for share, r in zip(shares / shares.sum(), near, strict=True):
            v = v + share * (0.5 * spoiled.image_embeddings[r] + 1.0 * spoiled.text_embeddings[r])
        scores = texts @ v
        right.append(all(scores[label] > score for n, score in enumerate(scores) if n != label))
    assert row.accuracy == pytest.approx(np.mean(right))


def test_wrong_captions_lose_the_gain_of_right_ones(data: SweepData) -> None:
    rows = {
        (row.dataset, row.point.corrupt): row for row in sweep(data, [point(data), point(data, corrupt=1.0, seed=0)])
    }
    assert rows[LEAVE_ONE_OUT, 0.0].gain > 0.05
    assert rows[LEAVE_ONE_OUT, 1.0].accuracy < rows[LEAVE_ONE_OUT, 0.0].plain


def test_references_that_show_test_images_are_dropped(tiny: TinyEncoder, references: ReferenceSet) -> None:
    meta = [f"image {i}" for i in range(60)]
    meta[5] = meta[6] = "hash of cyan"
    far = -np.ones((60, RETRIEVAL_DIM), np.float32)
    held = ReferenceSet.from_arrays(
        references.texts,
        image=references.image_embeddings,
        text=references.text_embeddings,
        retrieval=l2_normalise(far),
        encoder_id="tiny",
        encoder_fingerprint=tiny.fingerprint,
        meta={"hash": meta},
    )
    found = prepare(held, tiny, [class_set(["cyan", "red"], classes=NAMES)], near=2)
    assert (found.dropped, len(found.references)) == (2, 58)
    assert "2 of 60 references show test images" in found.notes[0]


def test_plan_varies_one_thing_at_a_time() -> None:
    plan = SweepPlan(
        sizes=("10%", "100%"), ways=("random", "agreement", "dedup"), k=(3, 8), w_img=(0.5,), w_txt=(), tau=(0.0,)
    )
    points = plan.points(60, AT)
    assert len(points) == len(set(points))
    around = points[0]
    assert (around.way, around.pairs, around.settings) == (ALL, 60, AT)
    by_way = {way: [p for p in points if p.way == way] for way in ("random", "agreement", "dedup")}
    assert [(p.pairs, p.seed) for p in by_way["random"]] == [(6, 0), (6, 1), (6, 2)]
    assert [(p.pairs, p.seed) for p in by_way["agreement"]] == [(6, 0)]
    assert sorted({(p.pairs, p.seed) for p in by_way["dedup"]}) == [(6, 0), (6, 1), (6, 2), (60, 0), (60, 1), (60, 2)]
    assert sorted({p.corrupt for p in points}) == [0.0, 0.1, 0.3, 1.0]
    assert len([p for p in points if p.corrupt]) == 9
    assert sorted(p.k for p in points if p.references == around.references and p.tau == AT.tau) == [3, 8]
    blocks = [p.references for p in points]
    assert sum(a != b for a, b in pairwise(blocks)) == len(set(blocks)) - 1


def test_grid_is_the_full_product() -> None:
    plan = SweepPlan(
        sizes=("10%", "30%"), ways=("random", "class"), corrupt=(0.0, 0.3), k=(1, 2), w_img=(0.5,), w_txt=(0.5, 1.0),
        tau=(0.05,), seeds=2, grid=True,
    )  # fmt: skip
    points = plan.points(60, AT)
    assert len(points) == 2 * 2 * 2 * 2 * 2 * 2 + 1  # and what it is around
    with pytest.raises(ConfigError, match="at least one value of tau"):
        SweepPlan(tau=(), grid=True)


def test_plan_has_every_selection_and_refuses_invalid_values() -> None:
    assert SweepSettings.ways == tuple(WAYS)
    assert pairs_of("100%", 7) == 7
    for size in ("ten", "0%", "120%", "-3"):
        with pytest.raises(ConfigError, match="size"):
            SweepPlan(sizes=(size,))
    with pytest.raises(ConfigError, match="there are random, class"):
        SweepPlan(ways=("best",))
    with pytest.raises(ConfigError, match="from 0 to 1"):
        SweepPlan(corrupt=(2.0,))
    with pytest.raises(ConfigError, match="at least one pair"):
        SweepPlan(k=(0,))


def test_a_set_with_one_image_per_text_needs_data(tiny: TinyEncoder, references: ReferenceSet) -> None:
    once = references.take(range(0, 60, 6))
    with pytest.raises(ConfigError, match="add --data"):
        prepare(once, tiny)
    found = prepare(once, tiny, [class_set(NAMES, classes=NAMES)], near=2)
    assert [questions.name for questions in found.questions] == ["colours"]
    assert "leave-one-out was left out" in " ".join(found.notes)


def test_settings_to_sweep_around(tiny: TinyEncoder, references: ReferenceSet) -> None:
    assert prepare(references, tiny).settings == AT
    assert prepare(references, tiny, around="paper").settings == VanillaSettings()
    off = references.with_vanilla(dataclasses.asdict(VanillaSettings(w_img=0.0, w_txt=0.0)))
    found = prepare(off, tiny)
    assert found.settings == prepare(references, tiny, around="usual").settings
    assert "are off" in found.notes[0]
    with pytest.raises(ConfigError, match=", ".join(AROUND)):
        prepare(references, tiny, around="none")


SMALL = SweepPlan(sizes=("20%", "100%"), ways=("random", "dedup"), corrupt=(0.0, 1.0), k=(1, 3), seeds=2)


def test_a_stopped_sweep_continues(data: SweepData, tmp_path: Path) -> None:
    points = SMALL.points(len(data.references), data.settings)
    whole = list(sweep(data, points))
    assert len(whole) == 2 * len(points)
    folder = SweepFolder(tmp_path, data, SMALL, {})
    folder.add(whole[:11])
    with (tmp_path / "sweep.csv").open("a") as file:
        file.write("colours,random,12,0.0,1,")  # killed while it wrote
    again = SweepFolder(tmp_path, data, SMALL, {})
    assert len(again.done) == 11
    left = list(sweep(data, points, done=again.done))
    assert len(left) == len(whole) - 11
    again.add(left)
    finished = SweepFolder(tmp_path, data, SMALL, {})
    key = lambda row: (row.dataset, str(row.point))  # noqa: E731
    assert sorted(finished.rows(points), key=key) == sorted(whole, key=key)
    assert not list(sweep(data, points, done=finished.done))


def test_a_sweep_with_the_old_keys_continues(data: SweepData, tmp_path: Path) -> None:
    SweepFolder(tmp_path, data, SMALL, {}).add(sweep(data, [point(data)]))
    content = json.loads((tmp_path / "sweep.json").read_text())
    for dataset in content["datasets"].values():
        dataset["pictures"] = dataset.pop("images")
    (tmp_path / "sweep.json").write_text(json.dumps(content))
    assert len(SweepFolder(tmp_path, data, SMALL, {}).done) == 2


def test_another_set_is_refused_and_more_settings_are_added(data: SweepData, tiny: TinyEncoder, tmp_path: Path) -> None:
    SweepFolder(tmp_path, data, SMALL, {}).add(sweep(data, [point(data)]))
    other = dataclasses.replace(data, references=data.references.take(range(50)))
    with pytest.raises(ConfigError, match="another references: choose another --out"):
        SweepFolder(tmp_path, other, SMALL, {})
    longer = class_set([*NAMES, "red"], classes=NAMES)
    with pytest.raises(ConfigError, match="another colours"):
        SweepFolder(tmp_path, prepare(data.references, tiny, [longer], near=2), SMALL, {})
    assert len(SweepFolder(tmp_path, data, SweepPlan(k=(1, 5)), {}).done) == 2
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(ConfigError, match="has no sweep"):
        SweepFolder(tmp_path, data, SMALL, {})


def test_the_report_has_the_best_setting_and_how_it_was_chosen(
    data: SweepData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    points = SMALL.points(len(data.references), data.settings)
    folder = SweepFolder(tmp_path, data, SMALL, {"command": "impart refset sweep"})
    folder.add(sweep(data, points))
    tables, best, problem = folder.finish(points, choose_by=LEAVE_ONE_OUT, seconds=1.0)
    assert problem == ""
    assert best is not None
    assert best.by == LEAVE_ONE_OUT
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert content["tuned_on"] == []
    assert content["best"]["figures"][LEAVE_ONE_OUT]["accuracy"] == pytest.approx(best.accuracy)
    assert content["references"]["fingerprint"] == data.references.fingerprint
    assert set(content["versions"]) >= {"impart", "numpy"}
    report = (tmp_path / "report.md").read_text()
    assert "without any test image or label" in report
    for name in ("size", "corrupt", "k", "weights", "tau"):
        assert f"plots/{name}.png" in report
        assert (tmp_path / "plots" / f"{name}.png").stat().st_size > 5000
    assert [table.title for table in tables][:2] == ["In short", "By size and selection: colours"]
    sizes = tables[1]
    assert sizes.columns == ("selection", "12 pairs", "60 pairs")
    assert [row[0].text for row in sizes.rows] == ["random", "dedup"]
    monkeypatch.setattr("impart.evaluate.sweep.folder.draw_panels", lambda path, panels, **more: path)
    _, tuned_on, _ = folder.finish(points, choose_by="colours", seconds=1.0)
    assert tuned_on is not None
    assert "Warning: this was tuned on colours" in (tmp_path / "report.md").read_text()
    assert json.loads((tmp_path / "sweep.json").read_text())["tuned_on"] == ["colours"]
    _, none, _ = folder.finish(points, choose_by="elsewhere", seconds=1.0)
    assert none is None
    assert "no figures of elsewhere" in best_in_words(none, "elsewhere")


def test_best_of_several() -> None:
    base = Point(way=ALL, pairs=60, corrupt=0.0, seed=0, **dataclasses.asdict(AT))

    def row(accuracy: float, **changes: object) -> SweepRow:
        return SweepRow(
            dataset="d",
            point=dataclasses.replace(base, **changes),  # type: ignore[arg-type]
            used=int(changes.get("pairs", 60)),  # type: ignore[call-overload]
            items=100,
            classes=10,
            plain=0.5,
            accuracy=accuracy,
            error=0.02,
            touched=1.0,
        )

    rows = [row(0.6), row(0.6, k=2), row(0.7, way="random", pairs=6), row(0.4, way="random", pairs=6, seed=1)]
    found = choose_best([*rows, row(0.9, corrupt=0.1)], "d")
    assert found.point == dataclasses.replace(base, k=2)  # fewer neighbours of equals; seeds averaged; none corrupted
    assert (found.settings, found.alike) == (3, 1)
    assert choose_best([row(0.51), row(0.4, k=1)], "d").point is None  # within its standard error
    assert "plain encoder" in best_in_words(choose_best([row(0.51)], "d"), "d")


def test_a_best_setting_without_a_gate_has_a_warning() -> None:
    point = Point(way=ALL, pairs=60, corrupt=0.0, seed=0, **dataclasses.asdict(AT))
    found = Best(by=LEAVE_ONE_OUT, point=point, accuracy=0.8, plain=0.5, error=0.01, settings=9, alike=0)
    assert "no gate (floor 0)" in best_in_words(found, LEAVE_ONE_OUT)
    gated = dataclasses.replace(found, point=dataclasses.replace(point, floor=4.0))
    assert "no gate" not in best_in_words(gated, LEAVE_ONE_OUT)
