"""`refset tune` never ends more than half a point below the plain model, on any evaluation set at hand.

The sets are of every kind that a person might build from the development data: names with one picture each, names with
several, captions; what they name is foreign to most of the evaluation sets.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from impart.augment.encoder import augment
from impart.augment.tune import bundled_background, tune
from impart.encoders import load_encoder
from impart.encoders.base import Encoder
from impart.evaluate import ClassSet, open_set, zeroshot
from impart.evaluate.cache import EmbeddingCache
from impart.reference.build import Selection, build
from impart.reference.pairs import CLASS_PROMPTS

pytestmark = [pytest.mark.data, pytest.mark.slow]

EVALUATION = ("cifar10/test", "cifar100/test", "caltech101/test", "tiny_imagenet32/test")
SETS = {
    "names, 1 picture each": ("caltech101/train", Selection(per_class=1), CLASS_PROMPTS),
    "names, 3 pictures each": ("caltech101/train", Selection(per_class=3), CLASS_PROMPTS),
    "names, 8 pictures each": ("caltech101/train", Selection(per_class=8), CLASS_PROMPTS),
    "1,000 names, 1 picture each": ("imagenet_sample", Selection(), CLASS_PROMPTS),
    "captions of everyday photos": ("flickr8k/captions.csv", Selection(limit=1000, shuffle=True), ()),
    "captions of textbook photos": ("openstax/captions.csv", Selection(limit=1000, shuffle=True), ()),
}
MARGIN = 0.005


@pytest.fixture(scope="module")
def mini() -> Encoder:
    return load_encoder("mini")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingCache:
    return EmbeddingCache(tmp_path_factory.mktemp("embeddings"))


@pytest.fixture(scope="module")
def plain(mini: Encoder, cache: EmbeddingCache, data_dir: Path) -> dict[str, tuple[ClassSet, float]]:
    """Each evaluation set with the plain model's top-1."""
    opened = {}
    for name in EVALUATION:
        dataset = open_set(data_dir / "images" / name, kind="classes")
        assert isinstance(dataset, ClassSet)
        opened[name] = dataset, zeroshot(mini, dataset, cache=cache).figures["top-1"]
    return opened


@pytest.mark.parametrize("kind", SETS)
def test_a_tuned_set_does_no_harm(
    kind: str, mini: Encoder, cache: EmbeddingCache, plain: dict[str, tuple[ClassSet, float]], data_dir: Path
) -> None:
    source, selection, prompts = SETS[kind]
    references = build(data_dir / "images" / source, mini, selection=selection, prompts=prompts)
    tuned = tune(references, background=bundled_background("mini"))
    augmented = augment(mini, tuned.references)
    gains = {
        name: zeroshot(augmented, dataset, cache=cache).figures["top-1"] - before
        for name, (dataset, before) in plain.items()
    }
    assert min(gains.values()) >= -MARGIN, (tuned.settings, {name: round(gain, 4) for name, gain in gains.items()})
    if "caltech101" in source:
        assert gains["caltech101/test"] > 0.1
