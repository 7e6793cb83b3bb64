"""Models by name: forms, shared encoders, labels, and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.colour_references import colour_set
from helpers.tiny_encoder import TinyEncoder
from helpers.tiny_ram import onnx_colours
from impart.blending.encoder import AugmentedEncoder
from impart.blending.vanilla import Vanilla
from impart.config import VanillaSettings
from impart.encoders.base import Encoder, load_encoder
from impart.errors import ConfigError, EncoderMismatchError, EncoderNotFoundError
from impart.evaluate.models import default_names, describe, open_models
from impart.refset.refset import ReferenceSet

TUNED = {"k": 2, "w_img": 0.3, "w_txt": 0.7, "tau": 0.1, "floor": 0.0, "ramp": 0.0, "target": 0.0}


class Shelf:
    """Replacement for `load_encoder`: tiny encoders, with a list of those loaded."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def __call__(self, encoder_id: str, **options: Any) -> Encoder:
        self.loaded.append(encoder_id)
        scheme, _, rest = encoder_id.partition(":")
        if scheme != "tiny":
            raise EncoderNotFoundError(f"no encoder {encoder_id!r}")
        return TinyEncoder(int(rest or 0))


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    return colour_set().with_vanilla(TUNED).save(tmp_path / "colours")


def test_one_encoder_is_loaded_once_and_shared(colours: Path) -> None:
    shelf = Shelf()
    plain, vanilla, paper = open_models("tiny, tiny+vanilla,tiny+paper,", refset=[colours], load=shelf)
    assert shelf.loaded == ["tiny"]
    assert [one.label for one in (plain, vanilla, paper)] == ["tiny", "tiny+vanilla", "tiny+paper"]
    assert isinstance(vanilla.encoder, AugmentedEncoder)
    assert isinstance(paper.encoder, AugmentedEncoder)
    assert vanilla.encoder.base is paper.encoder.base is plain.encoder
    assert vanilla.references is paper.references
    assert vanilla.encoder.blender == Vanilla(VanillaSettings(**TUNED))  # type: ignore[arg-type]
    assert paper.encoder.blender == Vanilla(VanillaSettings(k=8, w_img=0.5, w_txt=0.05))


def test_ids_with_colons_slashes_and_pluses_are_one_id() -> None:
    class Any_(Shelf):
        def __call__(self, encoder_id: str, **options: Any) -> Encoder:
            self.loaded.append(encoder_id)
            return TinyEncoder()

    shelf = Any_()
    names = "hf:openai/clip-vit-base-patch32,onnx:/a/b+c,open_clip:ViT-B-32/laion2b"
    assert [one.label for one in open_models(names, load=shelf)] == names.split(",")
    assert shelf.loaded == names.split(",")


def test_a_set_named_in_the_model_is_labelled_by_its_folder(colours: Path, tmp_path: Path) -> None:
    other = colour_set().without([0]).save(tmp_path / "fewer+one")
    found = open_models(f"tiny+vanilla={colours},tiny+vanilla={other}", load=Shelf())
    assert [one.label for one in found] == ["tiny+vanilla=colours", "tiny+vanilla=fewer+one"]
    assert [len(one.references or ()) for one in found] == [10, 9]


def test_of_several_sets_those_made_with_the_encoder_are_used(colours: Path, tmp_path: Path) -> None:
    other_space = TinyEncoder(3)
    pair = [(np.zeros((4, 4, 3), np.uint8), "black")]
    foreign = ReferenceSet.build(pair, other_space, name="foreign").save(tmp_path / "foreign")
    second = colour_set().without([0]).save(tmp_path / "second")
    found = open_models("tiny+vanilla,tiny:3+vanilla", refset=[colours, foreign, second], load=Shelf())
    assert [one.label for one in found] == ["tiny+vanilla=colours", "tiny+vanilla=second", "tiny:3+vanilla"]


def test_a_trained_ram(checkpoint: Path, tmp_path: Path) -> None:
    base_id = f"onnx:{checkpoint / 'encoder'}"
    shelf: list[str] = []

    def load(encoder_id: str, **options: Any) -> Encoder:
        shelf.append(encoder_id)
        return load_encoder(encoder_id, **options)

    encoder = load_encoder(base_id)
    green = onnx_colours(encoder, ("green",)).save(tmp_path / "green")
    names = f"{base_id},{base_id}+vanilla,{base_id}+ram,{checkpoint},{checkpoint}+plain"
    plain, vanilla, ram, whole, bare = open_models(names, refset=[green], ram=[checkpoint], load=load)
    assert shelf == [base_id]
    assert isinstance(ram.encoder, AugmentedEncoder)
    assert isinstance(whole.encoder, AugmentedEncoder)
    assert ram.encoder.blender.name == "ram"
    assert (ram.references.name, whole.references.name) == ("green", "green")
    assert plain.encoder is vanilla.encoder.base is bare.encoder
    (own,) = open_models(f"{base_id}+ram={checkpoint}", load=load)
    assert own.label == f"{base_id}+ram=checkpoint"
    assert own.references.name == "red-green-blue"
    assert default_names(refset=[green], ram=[checkpoint]) == f"{base_id},{base_id}+vanilla,{base_id}+ram"
    assert describe(ram)["augmentation"]["kind"] == "ram"


def test_errors_name_the_remedy(colours: Path, tmp_path: Path) -> None:
    for names, options, error, message in (
        (" , ", {}, ConfigError, "no encoder was named"),
        ("tiny+vanilla", {}, ConfigError, "give --refset DIR, or write tiny[+]vanilla=DIR"),
        ("tiny+ram", {}, ConfigError, "give --ram DIR"),
        ("tiny+bundled", {}, ConfigError, "tiny has no bundled reference set"),
        ("tiny+plain=x", {}, ConfigError, "takes no folder"),
        ("tiny,tiny", {}, ConfigError, "tiny would be evaluated twice"),
        ("tiny", {"refset": [colours]}, ConfigError, "uses --refset .*colours: add tiny[+]vanilla"),
        ("tiny+vanila", {}, EncoderNotFoundError, "[+]plain, [+]vanilla, [+]paper, [+]ram, [+]bundled"),
        ("tiny:3+vanilla", {"refset": [colours]}, EncoderMismatchError, "was made with encoder 'tiny'"),
    ):
        with pytest.raises(error, match=message):
            open_models(names, load=Strict(), **options)


class Strict(Shelf):
    """Only `tiny` and `tiny:NUMBER`; other ids raise."""

    def __call__(self, encoder_id: str, **options: Any) -> Encoder:
        if "+" in encoder_id:
            raise EncoderNotFoundError(f"no encoder {encoder_id!r}")
        return super().__call__(encoder_id, **options)


def test_default_models() -> None:
    assert default_names() == "mini"
    assert default_names(refset=[Path("set")]) == "mini,mini+vanilla"
