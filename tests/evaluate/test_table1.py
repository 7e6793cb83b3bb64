"""Table 1: the model of each row, what is missing and how to get it, and the paper's figures beside ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from helpers.clips import solid
from helpers.colour_references import colour_set
from helpers.tiny_encoder import TinyEncoder
from helpers.tiny_ram import onnx_colours
from impart.encoders.base import load_encoder, register
from impart.errors import ConfigError, DataError, EncoderMismatchError
from impart.evaluate.report.folder import summarise
from impart.evaluate.table1 import PAPER, SETS, figures_table, open_sets, plan_rows, settings_table
from impart.evaluate.tasks.zeroshot import zeroshot
from impart.refset.refset import ReferenceSet


@pytest.fixture(autouse=True)
def _tiny_by_id() -> None:
    register("tiny", lambda rest, **options: TinyEncoder(int(rest or 0)))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name, classes in (("cifar10", ("red", "blue")), ("caltech101", ("green", "white"))):
        for colour in classes:
            folder = tmp_path / "data" / name / "test" / colour
            folder.mkdir(parents=True)
            Image.fromarray(solid(colour)).save(folder / "0.png")
    return tmp_path / "data"


def test_sets_are_found_by_name_and_missing_ones_are_noted(data: Path, tmp_path: Path) -> None:
    found, notes = open_sets(data)
    assert list(found) == ["CIFAR-10", "Caltech-101"]
    assert len(notes) == 1
    assert "CIFAR-100 is not in" in notes[0]
    assert "cs.toronto.edu" in notes[0]
    with pytest.raises(DataError, match="CIFAR-10 is not in"):
        open_sets(tmp_path / "nowhere")


def test_rows_without_a_trained_ram_name_the_command_that_trains_one() -> None:
    rows = {row.kind: row for row in plan_rows("tiny")}
    assert list(rows) == [
        "CLIP",
        "RA-CLIP (RAM, unnormalised)",
        "RA-CLIP (RAM, normalised)",
        "Vanilla, the paper's weights",
        "Vanilla, tuned",
    ]
    assert rows["CLIP"].model is not None
    for name, norm in (("RA-CLIP (RAM, unnormalised)", "none"), ("RA-CLIP (RAM, normalised)", "l2")):
        assert rows[name].model is None
        assert "impart train ram_mini --pairs PAIRS --set data.encoder=tiny" in rows[name].missing
        assert f"--set ram.norm={norm}" in rows[name].missing
    assert "impart refset build" in rows["Vanilla, tuned"].missing


def test_vanilla_with_the_papers_and_with_tuned_weights(tmp_path: Path) -> None:
    untuned = colour_set().save(tmp_path / "untuned")
    rows = {row.kind: row for row in plan_rows("tiny", refset=untuned)}
    settings = rows["Vanilla, the paper's weights"].model.encoder.blender.settings
    assert (settings.k, settings.w_img, settings.w_txt, settings.tau) == (8, 0.5, 0.05, 0)
    assert "impart refset tune" in rows["Vanilla, tuned"].missing
    chosen = {"k": 3, "w_img": 0.1, "w_txt": 0.9, "tau": 0.1, "floor": 0.0, "ramp": 0.0, "target": 0.0}
    tuned = colour_set().with_vanilla(chosen).save(tmp_path / "tuned")
    row = {row.kind: row for row in plan_rows("tiny", refset=tuned)}["Vanilla, tuned"]
    assert row.model.encoder.blender.settings.w_txt == 0.9
    with pytest.raises(EncoderMismatchError):
        plan_rows("tiny:4", refset=tuned)


def test_a_ram_fills_the_row_of_its_form(checkpoint: Path, tmp_path: Path) -> None:
    base_id = f"onnx:{checkpoint / 'encoder'}"
    green = onnx_colours(load_encoder(base_id), ("green",)).save(tmp_path / "green")
    rows = {row.kind: row for row in plan_rows(base_id, refset=green, rams=[checkpoint])}
    learned = rows["RA-CLIP (RAM, form vanilla)"].model
    assert learned.references.name == "green"
    assert rows["RA-CLIP (RAM, normalised)"].model is None
    with pytest.raises(ConfigError, match="two RAMs have the form"):
        plan_rows(base_id, rams=[checkpoint, checkpoint])


def test_a_ram_of_another_encoder_is_refused_with_its_own(checkpoint: Path) -> None:
    with pytest.raises(EncoderMismatchError, match=r"'tiny'.*one encoder.*--encoder onnx:.*encoder"):
        plan_rows("tiny", rams=[checkpoint])


def test_rows_are_named_by_the_encoder() -> None:
    names = [row.name for row in plan_rows("tiny:4")]
    assert names[:2] == ["tiny:4", "tiny:4 + RA-CLIP (RAM, unnormalised)"]
    assert names[-1] == "tiny:4 + Vanilla, tuned"


def test_the_papers_figures_are_beside_ours(data: Path, tmp_path: Path) -> None:
    sets, _ = open_sets(data)
    pair = [(solid("red"), "red"), (solid("green"), "green")]
    refset = ReferenceSet.build(pair, TinyEncoder(), name="two", source="paint").save(tmp_path / "two")
    rows = plan_rows("tiny", refset=refset)
    results = [
        zeroshot(row.model.encoder, dataset, prompts=("{}",), label=row.name)
        for dataset in sets.values()
        for row in rows
        if row.model is not None
    ]
    titles = {dataset.name: title for title, dataset in sets.items()}
    table = figures_table(rows, results, titles, summarise(results).bounds)
    shown = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    assert shown["tiny"] == ["100.0 ±0.0", "88.78", "-", "61.68", "100.0 ±0.0", "85.39"]
    assert shown["tiny + RA-CLIP (RAM, unnormalised)"] == ["-", "88.98", "-", "51.92", "-", "77.91"]
    assert shown["tiny + RA-CLIP (RAM, normalised)"] == ["-", "", "-", "", "-", ""]
    assert shown["tiny + Vanilla, the paper's weights"][1::2] == ["88.17", "61.80", "86.02"]
    assert any("impart train ram_mini" in line for line in table.below)
    settings = {row[0].text: (row[1].text, row[2].text) for row in settings_table(rows, sets, prompts="single").rows}
    assert settings["encoder"][0] == "ViT-B/32"
    assert settings["encoder"][1].startswith("tiny: 16 numbers")
    assert settings["reference set"] == ("1,000 pairs of YFCC15M", "two, 2 pairs of paint")
    assert settings["CIFAR-10, test"] == ("10,000 images", "2 images")
    assert settings["CIFAR-100, test"] == ("10,000 images", "missing")
    assert settings["tiny + Vanilla, the paper's weights"] == ("K 8, image 0.5, text 0.05", "K 8, image 0.5, text 0.05")
    assert len(PAPER) == len(SETS) == 3
