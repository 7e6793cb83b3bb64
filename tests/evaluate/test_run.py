"""Run: every model on the same items, contaminated references dropped, notes and report."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from helpers.colour_references import colour_set
from helpers.sets_of_colours import class_set
from helpers.tiny_encoder import COLOURS, TinyEncoder
from impart.blending.encoder import AugmentedEncoder
from impart.blending.vanilla import Vanilla
from impart.config import VanillaSettings
from impart.evaluate import zeroshot
from impart.evaluate.cache import EmbeddingCache
from impart.evaluate.models import EvaluatedModel
from impart.evaluate.report.folder import read_report
from impart.evaluate.run import Run

TITLES: list[str] = []


@contextmanager
def shown(title: str):  # type: ignore[no-untyped-def]
    TITLES.append(title)
    yield lambda done, total: None


@pytest.fixture
def run(tiny: TinyEncoder, tmp_path: Path) -> Run:
    TITLES.clear()
    augmented = AugmentedEncoder(tiny, colour_set(), Vanilla(VanillaSettings()))
    models = [EvaluatedModel(label="plain", encoder=tiny), EvaluatedModel(label="with set", encoder=augmented)]
    return Run(
        EmbeddingCache(tmp_path / "cache"), models=models, near_duplicate=0.999, bootstrap=0, show_progress=shown
    )


def test_models_get_the_same_items_and_no_contaminated_reference(run: Run, tiny: TinyEncoder) -> None:
    dataset = class_set(["red", "blue"], classes=list(COLOURS))
    run.measure(dataset.name, [partial(zeroshot, dataset=dataset)], [dataset.images])
    plain, augmented = run.results
    assert (plain.encoder, augmented.encoder) == ("plain", "with set")
    assert plain.items == augmented.items
    assert "references" not in plain.counts
    assert (augmented.counts["references"], augmented.counts["references dropped"]) == (8, 2)
    assert run.report.all_notes == [
        "with set on colours: 2 references show test images and were left out: 0 the same file (certain), 0 by "
        "perceptual hash (nearly certain), 2 by embedding alone (likely, cosine from 0.999)",
        "with set on colours: 10 references were not compared by perceptual hash (the set is of an older version, "
        "images are flat, or frames of videos are tested): shrunk copies may be missed",
    ]
    assert tiny.images_encoded == 2  # once, for contamination and both models
    assert TITLES == ["tiny on colours", "plain on colours", "with set on colours"]
    assert run.complete


def test_the_report_has_models_notes_and_what_was_unreadable(run: Run, tmp_path: Path) -> None:
    dataset = class_set(["broken", "red"], called=["red", "red"], classes=list(COLOURS))
    run.notes.append("a note")
    run.measure(dataset.name, [partial(zeroshot, dataset=dataset)], [dataset.images])
    assert not run.complete
    run.write(tmp_path / "report")
    report = read_report(tmp_path / "report")
    assert [one["label"] for one in report.encoders] == ["plain", "with set"]
    assert report.notes[0] == "a note"
    assert run.content()["results"][0]["counts"]["unreadable"] == 1
