"""Data of mode `heads`: images and texts to features and sentence embeddings, the hold-out split, the references.

Features, sentence embeddings and token states are computed once and kept in the cache, which runs may share.
"""

from __future__ import annotations

import dataclasses
import io
import tarfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from impart.errors import DataError, TrainingError
from impart.files import make_folder, sha256_hex, sha256_of_file, write_atomic
from impart.images import ImageSource, load_image
from impart.train.events import Note, Preparing, TrainEvent
from impart.train.heads.checkpoint import ReferenceRow
from impart.train.heads.class_names import imagenet_vocabulary
from impart.train.heads.corpus import Corpus, build_corpus, text_rows, training_images
from impart.train.heads.heads import ImageHead
from impart.train.heads.model import build_image_head, principal_components
from impart.train.heads.task import HeadsReferences, HeadsValidation
from impart.train.heads.towers.backbone import load_lite2
from impart.train.heads.towers.features import FeatureCache
from impart.train.heads.towers.quantise import BackboneSession, backbone_session
from impart.train.heads.towers.sentences import SentenceCache, SentenceTower, load_minilm
from impart.train.heads.towers.text_tail import TextTail
from impart.train.prepare.development_data import TrainingImage, read_validation
from impart.train.prepare.pairs import Failures, list_images
from impart.train.prepare.split import hold_out, may_be_references
from impart.train.settings import PairsFrom, TrainConfig

__all__ = ["HeadsData", "build_references", "prepare"]

_CHUNK = 4096  # images between two reports


@dataclass(frozen=True)
class HeadsData:
    """Input of `HeadsTask`, and what is exported with the model.

    Attributes:
        corpus: with weight 0 for images that are not trained on.
        image: the frozen base of the image head.
        components: (F, R) for retrieval by the backbone.
        references: the held-out pairs; None = none.
        rows: their texts and images.
        validation: images and captions for validation; None = none.
        tower: the backbone, quantised.
        text_tower: the sentence tower; `tail` learns in place.
        tail: its upper layers, if they learn.
    """

    corpus: Corpus
    image: ImageHead
    components: Tensor
    references: HeadsReferences | None
    rows: tuple[ReferenceRow, ...]
    validation: HeadsValidation | None
    tower: BackboneSession
    text_tower: SentenceTower
    tail: TextTail | None

    def reference_sentences(self) -> Tensor:
        """Embed the references' texts with the current text tower: (N, D)."""
        if self.references is None:
            return self.corpus.texts[:0].float()
        if self.tail is None:
            return self.references.sentences
        return self.tail.embedded(self.tail.rows.texts[self.references.texts])


def prepare(
    config: TrainConfig, *, data: Path, out: Path, failures: Failures
) -> Generator[TrainEvent, None, HeadsData]:
    """Read images and texts, compute what is not cached, and split off the references.

    Args:
        config: of mode `heads`.
        data: folder that relative paths of the config start from; the development data, if the config names no pairs.
        out: folder of the run; has the cache, if the config names none.
        failures: items that could not be used are added here.

    Yields:
        Progress.

    Returns:
        Everything that the training reads.

    Raises:
        TrainingError: fewer than two images are left.
    """
    device = "cuda" if config.loop.device == "auto" and torch.cuda.is_available() else "cpu"
    cache = Path(config.data.cache).expanduser() if config.data.cache else out / "features"
    images, validation = _images(config, data, cache, failures)
    for note in failures.notes:
        yield Note(message=note)
    backbone = load_lite2()
    everyday = [item.path for item in images if item.source != "imagenet_sample"]
    tower = backbone_session(backbone, everyday, cache, size_px=config.backbone.size_px)
    features = FeatureCache(cache, tower)
    images, validation = (_readable(part, features, failures) for part in (images, validation))
    if len(images) < 2:
        raise TrainingError(f"{len(images)} images are left to train on; {len(failures)} items failed")
    for view in config.backbone.views:
        for first in range(0, len(images), _CHUNK):
            part = images[first : first + _CHUNK]
            features.features([item.path for item in part], view)
            yield Preparing(what=f"view {view}", done=first + len(part), total=len(images))
    sentences = SentenceCache(cache, device=device)
    corpus, names = build_corpus(images, imagenet_vocabulary(), features, sentences, config, device)
    image = build_image_head(corpus, backbone, names, config)
    components = principal_components(image.standardise(corpus.views[0].float()), config.backbone.retrieval_dim)
    numbers: dict[str, int] = {}
    hashes = [sha256_of_file(item.path) for item in images]
    own = torch.tensor([numbers.setdefault(key, len(numbers)) for key in hashes], device=device)
    apart = [sha256_of_file(item.path) for item in validation]
    weights = corpus.weights * np.array([key not in set(apart) for key in hashes])
    references, rows, weights = build_references(config, images, hashes, own, corpus, weights, data)
    corpus = dataclasses.replace(corpus, weights=weights / weights.sum())
    captions = [text for item in validation for text in item.texts]
    text_tower, tail = load_minilm().to(device), None
    if config.heads.text_layers:
        yield Note(message="computing the token states of all texts below the text tower's upper layers (cached)")
        layers = config.heads.text_layers
        states = text_rows(images, imagenet_vocabulary(), cache, text_tower, layers=layers, validation=captions)
        tail = TextTail(text_tower, states, layers=layers, dropout=config.heads.tower_dropout)
    yield Note(
        message=f"{int((weights > 0).sum())} images to train on, {len(rows)} references, "
        f"{len(validation)} images for validation, {len(corpus.texts)} texts"
    )
    measured = None
    if validation:
        measured = HeadsValidation(
            features=torch.from_numpy(features.features([item.path for item in validation], "clean")).to(device),
            sentences=torch.from_numpy(sentences.embed(captions)).to(device),
            owners=torch.tensor([row for row, item in enumerate(validation) for _ in item.texts], device=device),
            own=torch.tensor([numbers.setdefault(key, len(numbers)) for key in apart], device=device),
        )
    return HeadsData(corpus, image, components, references, rows, measured, tower, text_tower, tail)


def build_references(
    config: TrainConfig,
    images: Sequence[TrainingImage],
    hashes: Sequence[str],
    own: Tensor,
    corpus: Corpus,
    weights: npt.NDArray[np.float64],
    data: Path,
) -> tuple[HeadsReferences | None, tuple[ReferenceRow, ...], npt.NDArray[np.float64]]:
    """Hold references out of training.

    Args:
        config: seed and `reference` are read.
        images: n images of the corpus.
        hashes: n sha256 of their content.
        own: (n,) content number of each image.
        corpus: their features and texts.
        weights: (n,) drawing weights; images of weight 0 do not become references.
        data: paths below this folder are stored relative to it.

    Returns:
        The references, their texts and images, and the drawing weights (n,) of the remaining training images.

    Raises:
        TrainingError: no image can be a reference.
    """
    options = config.reference
    if not options.fraction:
        return None, (), weights
    split = hold_out(
        len(images),
        fraction=options.fraction,
        seed=config.seed,
        held_out=options.held_out,
        use=options.use,
        eligible=(weights > 0) & may_be_references([image.source for image in images], options.sources),
    )
    if not len(split.references):
        raise TrainingError(f"no image of {', '.join(options.sources)} can be a reference: see reference.sources")
    left = np.zeros(len(images))
    left[split.train] = weights[split.train]
    limit = options.captions
    pairs = [
        (int(number), text)
        for number in split.references
        for text in range(min(limit, corpus.spans[number, 1]) if limit else corpus.spans[number, 1])
    ]
    owners = torch.tensor([number for number, _ in pairs], device=own.device)
    texts = torch.tensor([int(corpus.spans[number, 0]) + text for number, text in pairs], device=own.device)
    references = HeadsReferences(
        features=corpus.views[0][owners].float(),
        sentences=corpus.texts[texts].float(),
        texts=texts.cpu().numpy(),
        groups=own[owners],
        own=own,
    )
    rows = tuple(
        ReferenceRow(
            images[number].texts[text], _below(images[number].path, data), images[number].source, hashes[number]
        )
        for number, text in pairs
    )
    return references, rows, left


def _below(path: Path, data: Path) -> str:
    return path.relative_to(data).as_posix() if path.is_relative_to(data) else str(path)


def _images(
    config: TrainConfig, data: Path, cache: Path, failures: Failures
) -> tuple[list[TrainingImage], list[TrainingImage]]:
    """List the images for training and for validation: the config's own, or the development data and Flickr8k `val`."""
    options = config.data
    images = _listed(options.pairs, data, cache, failures) if options.pairs else training_images(data)
    if options.validation:
        return images, _listed(options.validation, data, cache, failures)
    if not options.pairs:
        return images, read_validation(data)
    count = min(options.validation_images, len(images) // 10)
    order = np.random.default_rng(config.seed).permutation(len(images))
    apart = set(order[:count].tolist())
    return (
        [image for number, image in enumerate(images) if number not in apart],
        [images[number] for number in sorted(apart)],
    )


def _listed(sources: Sequence[PairsFrom], data: Path, cache: Path, failures: Failures) -> list[TrainingImage]:
    """List pairs as image files, since views are computed from files; images in tables and shards are unpacked once."""
    found = []
    for item in list_images(sources, data, failures):
        image = item.pair.image
        try:
            path = image if isinstance(image, Path) else _unpacked(image, cache / "images")
        except (DataError, OSError, tarfile.TarError) as error:
            failures.add(item.pair.path, f"cannot be unpacked: {error}")
            continue
        if path.is_file():
            found.append(TrainingImage(path=path, source=item.pair.source, texts=tuple(item.texts)))
        else:
            failures.add(item.pair.path, "the file is missing")
    return found


def _unpacked(image: ImageSource, folder: Path) -> Path:
    """Write the content of an image to a file named after its digest."""
    if isinstance(image, bytes):
        content = image
    elif callable(image):
        content = image()
    else:
        decoded, _ = load_image(image, max_megapixels=100.0)
        buffer = io.BytesIO()
        decoded.save(buffer, "PNG")
        content = buffer.getvalue()
    path = folder / sha256_hex(content)
    if not path.is_file():
        make_folder(folder)
        write_atomic(path, content)
    return path


def _readable(images: Sequence[TrainingImage], features: FeatureCache, failures: Failures) -> list[TrainingImage]:
    """Keep the images that can be read; the others are added to the failures."""
    kept = []
    for image, good in zip(images, features.readable([item.path for item in images]), strict=True):
        if good:
            kept.append(image)
        else:
            failures.add(str(image.path), "it is not an image, or a damaged one")
    return kept
