"""Bundled sets of a model: written from prototypes and training images, found by the model's id."""

from __future__ import annotations

import csv
import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.tiny_encoder import COLOURS, TinyEncoder
from impart.blending.encoder import AugmentedEncoder, default_augmented
from impart.blending.tune import OFF, bundled_background
from impart.encoders.base import EncoderTraits
from impart.encoders.bundled import bundled
from impart.recipes.mini.bundle import background_pairs, write_bundle
from impart.refset.refset import ReferenceSet
from impart.retrieval.hubness import bundled_bank


class LocalEncoder(TinyEncoder):
    """A tiny encoder that is loaded from a folder."""

    folder: Path

    @property
    def traits(self) -> EncoderTraits:
        return dataclasses.replace(super().traits, id=f"tiny:{self.folder}")


def write_table(folder: Path, rows: list[tuple[str, ...]], name: str = "captions.csv") -> None:
    with (folder / name).open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def paint(path: Path, colour: str, shift: int = 0) -> None:
    r, g, b = COLOURS[colour]
    Image.new("RGB", (80, 60), (abs(r - shift), abs(g - shift), abs(b - shift))).save(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    images = tmp_path / "data" / "images"
    for folder in ("more/walls/images", "imagenet_sample", "flickr8k"):
        (images / folder).mkdir(parents=True)
    names = list(COLOURS)
    for i, name in enumerate(names):
        paint(images / "more" / "walls" / "images" / f"{name}.png", name)
        paint(images / "imagenet_sample" / f"{name}.png", name, 9)
        paint(images / "flickr8k" / f"{name}.png", name, 5 + i)
    write_table(images / "more" / "walls", [("file", "text"), *((f"{n}.png", f"a {n} wall") for n in names)])
    write_table(images / "imagenet_sample", [("file", "label"), *((f"{n}.png", n) for n in names)], "labels.csv")
    rows = [(f"{n}.png", "val" if i % 2 else "train", f"the {n} one") for i, n in enumerate(names)]
    write_table(images / "flickr8k", [("file", "split", "caption"), *rows])
    (tmp_path / "data" / "text").mkdir()
    with gzip.open(tmp_path / "data" / "text" / "captions.txt.gz", "wt", encoding="utf-8") as lines:
        lines.writelines(f"a {name} image\n\n" for name in names)
    return tmp_path / "data"


def test_write_bundle(data: Path, tmp_path: Path) -> None:
    encoder, model = LocalEncoder(), tmp_path / "model"
    encoder.folder = model
    model.mkdir()
    names = list(COLOURS)
    swatches = encoder.encode_images([np.full((4, 4, 3), COLOURS[name], np.uint8) for name in names])
    np.savez(
        model / "prototypes.npz",
        names=np.array(names),
        image=swatches.embeddings.astype(np.float16),
        retrieval=swatches.retrieval.astype(np.float16),
    )
    figures = write_bundle(model, encoder, data, encoder_id="tiny")
    references = ReferenceSet.open(model / "references")
    assert references.texts == tuple(names)
    assert references.encoder_id == "tiny"
    assert references.manifest.vanilla is not None
    assert set(figures["plain"]) == {"r@1", "r@5", "r@10", "background"}
    assert figures["augmented"]["r@1"] >= figures["plain"]["r@1"]
    assert figures["augmented"]["background"] >= figures["plain"]["background"] - 0.002
    assert bundled(encoder.traits.id, "references") == model / "references"
    background = bundled_background(encoder.traits.id)
    assert background is not None
    assert len(background) == 20
    assert len(bundled_bank(encoder) or ()) == len(names)
    on, off = {**dataclasses.asdict(OFF), "w_img": 0.25}, dataclasses.asdict(OFF)
    references.with_vanilla(on).save(model / "references")
    assert isinstance(default_augmented(encoder), AugmentedEncoder)
    references.with_vanilla(off).save(model / "references")
    assert default_augmented(encoder) is encoder


def test_half_of_the_background_is_shrunk(data: Path) -> None:
    pairs = list(background_pairs(data / "images"))
    assert len(pairs) == 20
    assert [pair.text for pair in background_pairs(data / "images")] == [pair.text for pair in pairs]
    assert all(isinstance(pair.image, Image.Image) and pair.image.size == (80, 60) for pair in pairs)
