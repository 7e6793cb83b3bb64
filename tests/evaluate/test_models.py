"""Who is compared: names, shared encoders, and references that show test images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.clips import solid
from helpers.colour_references import colour_set
from helpers.tiny_encoder import TinyEncoder
from helpers.tiny_ram import onnx_colours
from impart.blending.encoder import AugmentedEncoder
from impart.blending.vanilla import Vanilla
from impart.config import VanillaSettings
from impart.encoders.base import Encoder, load_encoder
from impart.errors import ConfigError, EncoderMismatchError, EncoderNotFoundError
from impart.evaluate.models import EvaluatedModel, copies, describe, parse, usual, without_copies
from impart.refset.refset import ReferenceSet

TUNED = {"k": 2, "w_img": 0.3, "w_txt": 0.7, "tau": 0.1, "floor": 0.0, "ramp": 0.0, "target": 0.0}


class Shelf:
    """Stands for `load_encoder`: tiny encoders, counted."""

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
    plain, vanilla, paper = parse("tiny, tiny+vanilla,tiny+paper,", refset=[colours], load=shelf)
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
    assert [one.label for one in parse(names, load=shelf)] == names.split(",")
    assert shelf.loaded == names.split(",")


def test_a_set_of_its_own_is_labelled_by_its_folder(colours: Path, tmp_path: Path) -> None:
    other = colour_set().without([0]).save(tmp_path / "fewer+one")
    found = parse(f"tiny+vanilla={colours},tiny+vanilla={other}", load=Shelf())
    assert [one.label for one in found] == ["tiny+vanilla=colours", "tiny+vanilla=fewer+one"]
    assert [len(one.references or ()) for one in found] == [10, 9]


def test_of_several_sets_those_of_the_encoder_count(colours: Path, tmp_path: Path) -> None:
    other_space = TinyEncoder(3)
    pair = [(np.zeros((4, 4, 3), np.uint8), "black")]
    foreign = ReferenceSet.build(pair, other_space, name="foreign").save(tmp_path / "foreign")
    second = colour_set().without([0]).save(tmp_path / "second")
    found = parse("tiny+vanilla,tiny:3+vanilla", refset=[colours, foreign, second], load=Shelf())
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
    plain, vanilla, ram, whole, bare = parse(names, refset=[green], ram=[checkpoint], load=load)
    assert shelf == [base_id]
    assert isinstance(ram.encoder, AugmentedEncoder)
    assert isinstance(whole.encoder, AugmentedEncoder)
    assert ram.encoder.blender.name == "ram"
    assert (ram.references.name, whole.references.name) == ("green", "green")
    assert plain.encoder is vanilla.encoder.base is bare.encoder
    (own,) = parse(f"{base_id}+ram={checkpoint}", load=load)
    assert own.label == f"{base_id}+ram=checkpoint"
    assert own.references.name == "red-green-blue"
    assert usual(refset=[green], ram=[checkpoint]) == f"{base_id},{base_id}+vanilla,{base_id}+ram"
    assert describe(ram)["augmentation"]["kind"] == "ram"


def test_what_cannot_be_meant_is_refused_with_the_remedy(colours: Path, tmp_path: Path) -> None:
    for names, options, error, message in (
        (" , ", {}, ConfigError, "no encoder was named"),
        ("tiny+vanilla", {}, ConfigError, "give --refset DIR, or write tiny[+]vanilla=DIR"),
        ("tiny+ram", {}, ConfigError, "give --ram DIR"),
        ("tiny+bundled", {}, ConfigError, "no reference set in use comes with tiny"),
        ("tiny+plain=x", {}, ConfigError, "takes no folder"),
        ("tiny,tiny", {}, ConfigError, "tiny would be compared twice"),
        ("tiny", {"refset": [colours]}, ConfigError, "uses --refset .*colours: add tiny[+]vanilla"),
        ("tiny+vanila", {}, EncoderNotFoundError, "[+]plain, [+]vanilla, [+]paper, [+]ram, [+]bundled"),
        ("tiny:3+vanilla", {"refset": [colours]}, EncoderMismatchError, "was made with encoder 'tiny'"),
    ):
        with pytest.raises(error, match=message):
            parse(names, load=Strict(), **options)


class Strict(Shelf):
    """Knows `tiny` and `tiny:NUMBER` alone."""

    def __call__(self, encoder_id: str, **options: Any) -> Encoder:
        if "+" in encoder_id:
            raise EncoderNotFoundError(f"no encoder {encoder_id!r}")
        return super().__call__(encoder_id, **options)


def test_usual_models() -> None:
    assert usual() == "mini"
    assert usual(refset=[Path("set")]) == "mini,mini+vanilla"


def test_references_that_show_test_images_are_found(tiny: TinyEncoder) -> None:
    images = [solid("red"), solid("green"), solid("blue")]
    references = ReferenceSet.build(zip(images, ["red", "green", "blue"], strict=True), tiny)
    almost_green = solid("green").copy()
    almost_green[0, 0] = 9
    tests = tiny.encode_images([almost_green, solid("white")])
    red_hash = references.table["hash"].to_pylist()[0]
    found = copies(references, tests.retrieval, [red_hash, "another"], near=0.999)
    assert (found.same.tolist(), found.near.tolist(), found.rows.tolist()) == ([0], [1], [0, 1])
    only_files = copies(references, tests.retrieval, [red_hash, "another"], near=2)
    assert (only_files.same.tolist(), only_files.near.tolist()) == ([0], [])
    assert not len(copies(references, tests.retrieval[:0], []).rows)


def test_blocks_find_what_one_product_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    references = colour_set()
    tests = references.retrieval_embeddings[[2, 7]]
    whole = copies(references, tests, near=0.99).rows.tolist()
    monkeypatch.setattr("impart.evaluate.models._BLOCK", 1)
    assert copies(references, tests, near=0.99).rows.tolist() == whole == [2, 7]


def test_dropping_keeps_how_it_blends_and_asks_once_a_base(colours: Path) -> None:
    models = parse("tiny,tiny+vanilla,tiny+paper", refset=[colours], load=Shelf())
    asked: list[Encoder] = []

    def images(base: Encoder) -> tuple[np.ndarray, list[str]]:
        asked.append(base)
        return base.encode_images([solid("red")]).retrieval, [""]

    plain, vanilla, paper = without_copies(models, images, near=0.999)
    assert len(asked) == 1
    assert plain is models[0]
    for before, after in zip(models[1:], (vanilla, paper), strict=True):
        assert (after.label, after.same, after.near) == (before.label, 0, 1)
        assert "red" not in after.references.texts
        assert len(after.references) == 9
        assert after.encoder.blender == before.encoder.blender
    assert vanilla.references is paper.references
    said = describe(vanilla)["references"]
    assert (said["pairs"], said["dropped_near_duplicate"], said["dropped_same_file"]) == (9, 1, 0)
    untouched = without_copies(models, lambda base: (np.zeros((0, 8), np.float32), []))
    assert untouched[1].encoder is models[1].encoder


def test_a_set_that_is_the_test_set_leaves_the_encoder_alone(tiny: TinyEncoder) -> None:
    whole = EvaluatedModel(label="x", encoder=AugmentedEncoder(tiny, colour_set(), Vanilla(VanillaSettings())))
    (left,) = without_copies([whole], lambda base: (colour_set().retrieval_embeddings, []))
    assert len(left.references) == 0
    image = [np.full((4, 4, 3), 77, np.uint8)]
    np.testing.assert_allclose(
        left.encoder.encode_images(image).embeddings, tiny.encode_images(image).embeddings, atol=1e-6
    )
