"""Mode `ram` from images to a checkpoint that opens: split, masks, failures, resume."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("accelerate", reason="training needs the extra `train`")

from helpers.shades import register_tiny, shades  # noqa: E402
from helpers.tiny_encoder import TinyEncoder  # noqa: E402
from impart.blending.ram_checkpoint import open_checkpoint  # noqa: E402
from impart.config import RamSettings  # noqa: E402
from impart.encoders.base import l2_normalise  # noqa: E402
from impart.errors import ConfigError, TrainingError  # noqa: E402
from impart.train.events import Finished, Note, Preparing, Resumed, StepDone, Validated, result_of  # noqa: E402
from impart.train.loop import fit  # noqa: E402
from impart.train.prepare.pairs import Failures  # noqa: E402
from impart.train.ram.prepare import prepare  # noqa: E402
from impart.train.ram.settings import ProjectionSettings  # noqa: E402
from impart.train.ram.task import RamTask  # noqa: E402
from impart.train.run import train  # noqa: E402
from impart.train.settings import (  # noqa: E402
    DataSettings,
    LogSettings,
    LoopSettings,
    LossSettings,
    OptimiserSettings,
    PairsFrom,
    ReferenceSettings,
    TrainConfig,
)


@pytest.fixture
def data(tmp_path):
    register_tiny()
    return shades(tmp_path / "data")


def _config(*, ram=None, reference=None, **loop):
    return TrainConfig(
        mode="ram",
        data=DataSettings(
            encoder="tiny",
            pairs=(PairsFrom(path="captions.csv", where={"split": "train"}),),
            validation=(PairsFrom(path="captions.csv", where={"split": "val"}),),
        ),
        reference=ReferenceSettings(**{"fraction": 0.3, "near_duplicate": 2.0, **(reference or {})}),
        ram=RamSettings(**{"heads": 2, "k": 3, **(ram or {})}),
        loss=LossSettings(init_scale=5.0),
        optimiser=OptimiserSettings(learning_rate=1e-2),
        loop=LoopSettings(
            **{"steps": 12, "batch": 16, "device": "cpu", "checkpoint_every": 4, "validate_every": 0, **loop}
        ),
        log=LogSettings(tensorboard=False),
    )


def _prepared(config, data, out):
    return result_of(prepare(config, TinyEncoder(), data=data, out=out, failures=Failures()))


def test_pairs_become_training_images_references_and_validation(data, tmp_path):
    made = _prepared(_config(), data, tmp_path / "out")
    assert (len(made.train), len(made.references), len(made.validation)) == (49, 21, 10)
    assert (made.train.spans[:, 1] == 2).all()
    tables = made.references.table.to_pydict()
    assert len(set(tables["hash"])) == 21
    assert not {name.split(".")[0] for name in tables["path"]} & {f"red_{n}" for n in (7, 15)}
    naive = np.asarray(made.references.retrieval_embeddings)
    for row in range(5):
        cosines = (naive @ made.train.retrieval[row].astype(np.float32)).clip(max=1)  # float16 rows
        assert np.allclose(made.train.neighbours.sims[row], np.sort(cosines)[::-1][:3], atol=1e-5)
    # "a red thing" is the text of several images: one key; "red 3" of one
    keys = made.keys[made.train.texts]
    assert len(set(keys.tolist())) < len(set(made.train.texts.tolist())) + 1
    assert made.keys.min() >= 0


def test_an_image_is_never_its_own_neighbour_where_references_are_trained_on(data, tmp_path):
    config = _config(reference={"held_out": False, "fraction": 1.0})
    made = _prepared(config, data, tmp_path / "out")
    assert len(made.train) == len(made.references) == 70
    hashes = made.references.table.to_pydict()["hash"]
    assert made.train.neighbours.masked >= 70
    for row, ids in enumerate(made.train.neighbours.ids):
        own = hashes[row]  # both lists are in the order of the images
        assert own not in {hashes[number] for number in ids}


def test_a_collection_held_out_before_is_the_reference_set(data, tmp_path):
    """`impart data yfcc` writes two folders; all images of one are references."""
    lines = (data / "captions.csv").read_text().splitlines()
    (data / "apart").mkdir()
    (data / "apart" / "captions.csv").write_text("\n".join([lines[0], *(f"../{line}" for line in lines[1:15])]) + "\n")
    config = _config(reference={"fraction": 1.0, "sources": ("apart",)})
    pairs = (*config.data.pairs, PairsFrom(path="apart"))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, pairs=pairs))
    made = _prepared(config, data, tmp_path / "out")
    assert set(made.references.table["source"].to_pylist()) == {"apart"}
    assert len(made.references) == 7
    wrong = dataclasses.replace(config, reference=dataclasses.replace(config.reference, sources=("afar",)))
    with pytest.raises(TrainingError, match=r"names afar, but the pairs come from apart, captions"):
        _prepared(wrong, data, tmp_path / "out")


def test_random_references_are_never_the_image_itself(data, tmp_path):
    config = _config(reference={"fraction": 1.0, "held_out": False, "near_duplicate": 0.97})
    made = _prepared(config, data, tmp_path / "out")
    task = RamTask(made, config)
    from accelerate import Accelerator

    task.prepare(Accelerator(cpu=True), task.modules())
    rows = np.arange(len(made.train))
    masked = 0
    for seed in range(5):
        found = task._retrieved(made.train, rows, np.random.default_rng(seed), random=1.0)
        assert not (found.mask & (found.sims > 0.97)).any()
        masked += int((~found.mask).sum())
    assert masked > 0  # some drawn references showed the image


def test_validation_content_is_kept_out_of_training_and_references(data, tmp_path):
    copies = data / "red_0.png"
    copies.write_bytes((data / "red_7.png").read_bytes())
    made = _prepared(_config(), data, tmp_path / "out")
    assert len(made.train) + len(made.references) == 69


def test_ram_learns_and_the_folder_opens_as_an_encoder(data, tmp_path):
    config = _config(ram={"form": "vanilla", "floor": 0.0}, steps=60)
    events = list(train(config, data=data, out=tmp_path / "run"))
    assert {event.what for event in events if isinstance(event, Preparing)} == {"images", "texts", "neighbours"}
    assert any("references" in event.message for event in events if isinstance(event, Note))
    losses = [event.loss for event in events if isinstance(event, StepDone)]
    assert losses[-1] < losses[9]
    metrics = [event for event in events if isinstance(event, Validated)][-1].metrics
    assert metrics["t2i_r5"] >= metrics["base_t2i_r5"]
    finished = events[-1]
    folder = tmp_path / "run" / "model"
    assert finished == Finished(step=60, seconds=finished.seconds, folder=folder, encoder=str(folder), failed=0)
    opened = open_checkpoint(finished.folder, base=TinyEncoder())
    made = _prepared(config, data, tmp_path / "run")
    task = RamTask(made, config)
    list(fit(task, config, out=tmp_path / "run", resume=True))  # restores the last checkpoint
    task.ram.eval()
    rows = np.arange(len(made.validation))
    with torch.no_grad():
        found = task._retrieved(made.validation, rows, np.random.default_rng(0), random=0.0)
        expected = l2_normalise((found.v + task.ram(found).added).numpy())
    from PIL import Image

    from impart.refset.pairs import read_pairs

    paths = list(dict.fromkeys(pair.image for pair in read_pairs(data / "captions.csv") if "_7" in pair.path))
    vectors = opened.encode_images([Image.open(path) for path in paths]).embeddings
    assert np.allclose(vectors, expected, atol=5e-3)  # the run's embeddings are float16


def test_projections_learn_with_the_ram_and_are_in_the_folder(data, tmp_path):
    config = _config(ram={"form": "vanilla", "floor": 0.0}, steps=40)
    config = dataclasses.replace(config, projections=ProjectionSettings(learn=True, rate=1.0))
    events = list(train(config, data=data, out=tmp_path / "run"))
    losses = [event.loss for event in events if isinstance(event, StepDone)]
    alone = [
        event.loss
        for event in train(_config(ram={"form": "vanilla", "floor": 0.0}, steps=40), data=data, out=tmp_path / "alone")
        if isinstance(event, StepDone)
    ]
    assert losses[0] == pytest.approx(alone[0], abs=1e-4)  # they start as the identity; stored rows are float16
    assert losses[-1] < alone[-1]
    moved = tmp_path / "moved"
    (tmp_path / "run" / "model").rename(moved)  # the encoder is inside the folder
    opened = open_checkpoint(moved)
    assert opened.base.traits.id.startswith("projected:")
    plain = TinyEncoder()
    assert not np.allclose(opened.encode_texts(["red 3"]), plain.encode_texts(["red 3"]), atol=1e-3)
    opened.references.check_encoder(opened.base)
    again = opened.base.project_texts(plain.encode_texts(opened.references.texts))
    assert np.allclose(again, opened.references.text_embeddings, atol=5e-3)  # float16 rows
    made = _prepared(config, data, tmp_path / "run")
    task = RamTask(made, config)
    untouched = [parameter.clone() for module in task.projections for parameter in module.parameters()]
    assert all((parameter == 0).all() for parameter in untouched)


def test_stopped_and_resumed_gives_the_same_file(data, tmp_path):
    config = _config(ram={"dropout": 0.2, "norm": "l2"}, reference={"random": 0.3})
    list(train(config, data=data, out=tmp_path / "whole"))
    for event in train(config, data=data, out=tmp_path / "cut"):
        if isinstance(event, StepDone) and event.step == 7:
            break
    events = list(train(config, data=data, out=tmp_path / "cut", resume=True))
    assert Resumed(step=4, steps=12) in events
    weights = [(tmp_path / name / "model" / "ram.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]


def test_a_run_stopped_while_embedding_continues(data, tmp_path):
    for event in train(_config(), data=data, out=tmp_path / "run"):
        if isinstance(event, Preparing) and event.done >= 32:
            break
    events = list(train(_config(), data=data, out=tmp_path / "run", resume=True))
    first = next(event for event in events if isinstance(event, Preparing))
    assert first.done > 32
    assert isinstance(events[-1], Finished)


def test_a_folder_in_use_and_changed_settings_are_refused(data, tmp_path):
    list(train(_config(), data=data, out=tmp_path / "run"))
    with pytest.raises(TrainingError, match="--resume"):
        list(train(_config(), data=data, out=tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"ram\.k was 3 .* is 4 now"):
        list(train(_config(ram={"k": 4}), data=data, out=tmp_path / "run", resume=True))
    kept = tmp_path / "run" / "config.json"
    kept.write_text(kept.read_text().replace('"processes": 1', '"processes": 2'))
    with pytest.raises(ConfigError, match=r"processes was 2 .* is 1 now"):
        list(train(_config(), data=data, out=tmp_path / "run", resume=True))
    kept.write_text(kept.read_text().replace('"processes": 2', '"processes": 1'))
    config = dataclasses.replace(_config(), log=LogSettings(every=1, tensorboard=False))
    list(train(config, data=data, out=tmp_path / "run", resume=True))  # logging may change
    assert json.loads((tmp_path / "run" / "config.json").read_text())["log"]["every"] == 1


def test_a_run_of_an_earlier_version_is_not_resumed(data, tmp_path):
    list(train(_config(), data=data, out=tmp_path / "run"))
    kept = tmp_path / "run" / "config.json"
    before = json.loads(kept.read_text())
    before["regime"] = before.pop("mode")
    kept.write_text(json.dumps(before))
    with pytest.raises(ConfigError, match=r"earlier version .* mode instead of regime"):
        list(train(_config(), data=data, out=tmp_path / "run", resume=True))


def test_unusable_items_are_listed_and_too_few_pairs_are_refused(data, tmp_path):
    (data / "red_0.png").unlink()
    with (data / "captions.csv").open("a") as file:
        file.write("blue_0.png,,train\n")
    events = list(train(_config(), data=data, out=tmp_path / "run"))
    assert events[-1].failed == 2
    listed = (tmp_path / "run" / "failures.csv").read_text()
    assert "red_0.png,the file is missing" in listed
    assert "blue_0.png,the text is empty" in listed
    for path in data.glob("*.png"):
        if not path.name.startswith("red"):
            path.write_bytes(b"")
    with pytest.raises(TrainingError, match="too few"):
        list(train(_config(reference={"fraction": 0.01}), data=data, out=tmp_path / "little"))
    with pytest.raises(TrainingError, match="names absent, but"):
        list(train(_config(reference={"sources": ("absent",)}), data=data, out=tmp_path / "few"))


def test_a_launcher_of_several_processes_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="one process"):
        list(train(_config(), data=data, out=tmp_path / "run"))
