"""Class names: names and kinds of the file, labels, articles, prompts."""

from __future__ import annotations

import pytest

from impart.errors import ConfigError
from impart.train.heads.class_names import a_or_an, class_vocabulary, name_prompts


def test_classes_take_names_kinds_and_labels():
    text = "# note\nn00000002: crane bird, heron\nn00000001-n00000002: animal, bird\n"
    found = class_vocabulary(["n00000001", "n00000002", "n00000003"], ["jay", "crane", "crane"], text=text)
    assert found.names == (("jay",), ("crane bird", "heron"), ("crane",))
    assert found.kinds_of(0) == ["animal", "bird"]
    assert found.kinds_of(2) == []
    with pytest.raises(ConfigError, match="line 1"):
        class_vocabulary(["n00000001"], ["jay"], text="crane = bird")


def test_bundled_names_are_well_formed():
    found = class_vocabulary(["n02012849", "n03126707", "n02110341"], ["crane", "crane", "dalmatian"])
    assert found.names[0] == ("crane bird",)
    assert found.names[1] == ("construction crane",)
    assert {"dog", "animal"} <= set(found.kinds_of(2))


def test_article():
    words = ("otter", "dog", "sunglasses", "cactus", "glass")
    assert [a_or_an(word) for word in words] == ["an otter", "a dog", "sunglasses", "a cactus", "a glass"]


def test_prompts_of_the_bundled_model():
    assert name_prompts("owl") == [
        "owl",
        "a photo of an owl",
        "an owl",
        "a picture of an owl",
        "a blurry photo of an owl",
        "a small photo of an owl",
    ]
