"""Reference set, background set and caption bank of the bundled model, built from its final weights.

    references/    one pair per ImageNet class: the prototype embedding and the name; no images. The default set of a
                   video index, with settings chosen so that it does no harm.
    background/    embeddings of varied training images and of their texts, half of the images shrunk to 32-64 px and
                   enlarged again: the unrelated images that `tune` protects. Texts are stored as digests.
    captions.npz   embeddings of training captions, for the correction of hubs.

Settings are chosen on data of the training side alone: text-to-image retrieval on Flickr8k `val`, and classification of
the background set among its own texts.
"""

from __future__ import annotations

import dataclasses
import gzip
import logging
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from impart.blending.encoder import AugmentedEncoder
from impart.blending.questions import anonymous
from impart.blending.tune import OFF
from impart.blending.vanilla import Vanilla
from impart.config import VanillaSettings
from impart.encoders.base import Encoder, Float32, ImageEmbeddings
from impart.errors import DataError
from impart.images import load_image
from impart.metrics.ranking import caption_ranks, recall_at
from impart.refset.pairs import Pair, read_pairs
from impart.refset.refset import ReferenceSet
from impart.retrieval.hubness import FILE, CaptionBank
from impart.retrieval.prompts import CLASS_PROMPTS, prompt_ensemble
from impart.retrieval.znorm import ZNorm

__all__ = ["Validation", "choose_settings", "read_validation", "write_bundle"]

_log = logging.getLogger(__name__)

BACKGROUND = 400
"""Images of the background set: 0.9 MB, which keeps the model within 40 MB."""

CAPTIONS = 1000
"""Captions by which hubs are found: 0.2 MB."""

_SMALL_PX = (32, 48, 64)
_MAX_MEGAPIXELS = 100.0
_MARGIN = 0.002  # of recall that the default set may cost: five captions. Of the background set: one image


@dataclasses.dataclass(frozen=True)
class Validation:
    """Captioned images.

    Attributes:
        images: embeddings of n images.
        captions: (m, D).
        owners: (m,) image of each caption.
    """

    images: ImageEmbeddings
    captions: Float32
    owners: npt.NDArray[np.int64]


def write_bundle(model: Path, encoder: Encoder, data: Path, *, encoder_id: str = "mini") -> dict[str, dict[str, float]]:
    """Write `references/` (from the model's `prototypes.npz`), `background/` and `captions.npz`.

    Args:
        model: folder of the bundled model, with prototypes.npz: `names` (N,), `image` (N, D), `retrieval` (N, R).
        encoder: the exported model; its fingerprint is stored.
        data: the development data, with `images/` and `text/` in it.
        encoder_id: id of the bundled model.

    Returns:
        Flickr8k val text-to-image recall, and background accuracy, as fractions: {"plain": ..., "augmented": ...}.
    """
    images = data / "images"
    background = ReferenceSet.build(background_pairs(images), encoder)
    background = ReferenceSet.from_arrays(
        [anonymous(text) for text in background.texts],  # captions of other authors are not published with the model
        image=background.image_embeddings,
        text=background.text_embeddings,
        retrieval=background.retrieval_embeddings,
        encoder_id=encoder_id,
        encoder_fingerprint=encoder.fingerprint,
        name="background",
        source="training images of the model",
    )
    background.save(model / "background")
    captions = caption_sample(data / "text" / "captions.txt.gz")
    texts = [encoder.encode_texts(captions[first : first + 64]) for first in range(0, len(captions), 64)]
    CaptionBank(np.concatenate(texts)).save(model / FILE, fingerprint=encoder.fingerprint)
    with np.load(model / "prototypes.npz") as prototypes:
        names = [str(name) for name in prototypes["names"]]
        references = ReferenceSet.from_arrays(
            names,
            image=prototypes["image"],
            text=prompt_ensemble(names, encoder.encode_texts, prompts=CLASS_PROMPTS),
            retrieval=prototypes["retrieval"],
            encoder_id=encoder_id,
            encoder_fingerprint=encoder.fingerprint,
            name="imagenet-names",
            source="ImageNet-1k class prototypes",
        )
    references = references.with_znorm(ZNorm.of(background.retrieval_embeddings))
    validation = read_validation(images / "flickr8k", encoder)
    chosen, figures = choose_settings(encoder, references, validation, background)
    references.with_vanilla(dataclasses.asdict(chosen)).save(model / "references")
    _log.info("bundled reference set: %s, %s", chosen, figures)
    return figures


def caption_sample(path: Path, *, count: int = CAPTIONS, seed: int = 0) -> list[str]:
    """Draw captions from a gzipped text with one caption per line.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            captions = [line.strip() for line in lines if line.strip()]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}; it comes with the development data") from error
    rng = np.random.default_rng(seed)
    return [captions[row] for row in rng.permutation(len(captions))[:count]]


def background_pairs(images: Path, *, count: int = BACKGROUND, seed: int = 0) -> Iterator[Pair]:
    """Draw training images from all sources but the captioned albums; every second one is shrunk and enlarged again."""
    listed = [pair for folder in sorted((images / "more").iterdir()) if folder.is_dir() for pair in read_pairs(folder)]
    listed += read_pairs(images / "imagenet_sample")
    rng = np.random.default_rng(seed)
    for number, row in enumerate(rng.choice(len(listed), min(count, len(listed)), replace=False)):
        pair = listed[row]
        side_px = int(rng.choice(_SMALL_PX))
        try:
            image, _ = load_image(pair.image, max_megapixels=_MAX_MEGAPIXELS)
        except DataError:
            continue
        if number % 2:
            scale = side_px / min(image.size)
            small = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            image = image.resize(small, Image.Resampling.BICUBIC).resize(image.size, Image.Resampling.BICUBIC)
        yield dataclasses.replace(pair, image=image)


def read_validation(flickr8k: Path, encoder: Encoder, *, batch: int = 32) -> Validation:
    """Embed the `val` split of Flickr8k."""
    import csv

    files: dict[str, int] = {}
    captions: list[str] = []
    owners: list[int] = []
    with (flickr8k / "captions.csv").open(encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table):
            if row["split"] == "val":
                owners.append(files.setdefault(row["file"], len(files)))
                captions.append(row["caption"])
    folder = flickr8k / "images" if (flickr8k / "images").is_dir() else flickr8k
    loaded = [load_image(folder / file, max_megapixels=_MAX_MEGAPIXELS)[0] for file in files]
    parts = [encoder.encode_images(loaded[first : first + batch]) for first in range(0, len(loaded), batch)]
    images = ImageEmbeddings(
        np.concatenate([part.embeddings for part in parts]), np.concatenate([part.retrieval for part in parts])
    )
    texts = [encoder.encode_texts(captions[first : first + 64]) for first in range(0, len(captions), 64)]
    return Validation(images, np.concatenate(texts), np.array(owners, dtype=np.int64))


def choose_settings(
    encoder: Encoder, references: ReferenceSet, validation: Validation, background: ReferenceSet
) -> tuple[VanillaSettings, dict[str, dict[str, float]]]:
    """Choose the settings with the best recall among those that harm neither validation nor background set.

    Returns:
        The settings (`OFF` if all of them harm), and the figures without and with them.
    """
    numbers: dict[str, int] = {}
    right = np.array([numbers.setdefault(text, len(numbers)) for text in background.texts], dtype=np.int64)
    texts = background.text_embeddings[np.unique(right, return_index=True)[1]]
    foreign = ImageEmbeddings(background.image_embeddings, background.retrieval_embeddings)

    def figures(settings: VanillaSettings) -> dict[str, float]:
        augmented = AugmentedEncoder(encoder, references, Vanilla(settings))
        blended = augmented.apply(validation.images.embeddings, augmented.blend(validation.images))
        found = augmented.apply(foreign.embeddings, augmented.blend(foreign)) @ texts.T
        accuracy = float((found.argmax(axis=1) == right).mean())
        ranks, _ = caption_ranks(validation.captions @ blended.T, validation.owners)
        recalls = {f"r@{k}": round(value, 4) for k, value in recall_at(ranks).items()}
        return {**recalls, "background": round(accuracy, 4)}

    def mean_recall(values: dict[str, float]) -> float:
        return (values["r@1"] + values["r@5"] + values["r@10"]) / 3

    plain = figures(OFF)
    lowest = {name: value - _MARGIN for name, value in plain.items()}
    lowest["background"] = plain["background"] - 1.001 / len(background)
    best, best_figures = OFF, {"r@1": 0.0, "r@5": 0.0, "r@10": 0.0}
    weights = (
        *((0.0, 0.02), (0.02, 0.0), (0.02, 0.02), (0.0, 0.05), (0.05, 0.05)),
        *((0.0, 0.1), (0.1, 0.0), (0.1, 0.1), (0.25, 0.0), (0.0, 0.25), (0.25, 0.25)),
    )
    for k, tau, floor, (w_img, w_txt) in product((4, 8), (0.05, 0.1), (4.0, 5.0), weights):
        settings = VanillaSettings(k=k, w_img=w_img, w_txt=w_txt, tau=tau, floor=floor, ramp=1.0)
        values = figures(settings)
        harmless = all(values[name] >= lowest[name] for name in plain)
        if harmless and mean_recall(values) > mean_recall(best_figures):
            best, best_figures = settings, values
    if best == OFF:
        best_figures = plain
    return best, {"plain": plain, "augmented": best_figures}
