"""Mode `heads` from the data folder to a trained model: features, split, training, export.

The towers are those of `mini` (EfficientNet-Lite2, all-MiniLM-L6-v2); features, sentences and what the text tower's
lower layers make of them are computed once and kept in the cache, which all runs may share.
"""

from __future__ import annotations

import dataclasses
import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from impart.errors import DataError, TrainingError
from impart.files import sha256_hex, sha256_of_file, write_atomic
from impart.recipes.mini.recipe import (
    MiniConfig,
    backbone_session,
    build_corpus,
    build_image_head,
    text_rows,
    training_images,
)
from impart.recipes.mini.references import principal_components
from impart.recipes.mini.train_heads import HeadSettings
from impart.refset.pairs import PairSource, load_image
from impart.train.events import Note, Preparing, TrainEvent
from impart.train.heads.checkpoint import ReferenceRow, save_heads
from impart.train.heads.class_names import imagenet_vocabulary
from impart.train.heads.corpus import Corpus
from impart.train.heads.corrections import ImageHead
from impart.train.heads.encoder_folder import export_heads
from impart.train.heads.task import HeadsReferences, HeadsTask, HeadsValidation
from impart.train.heads.towers.backbone import load_lite2
from impart.train.heads.towers.features import FeatureCache
from impart.train.heads.towers.quantise import BackboneSession
from impart.train.heads.towers.sentences import SentenceCache, SentenceTower, load_minilm
from impart.train.heads.towers.text_tail import TextTail
from impart.train.loop import fit
from impart.train.prepare.development_data import TrainingImage, read_validation
from impart.train.prepare.pairs import Failures, list_images
from impart.train.prepare.split import hold_out, may_be_references
from impart.train.settings import HeadsSettings, PairsFrom, TrainConfig

__all__ = ["HeadsData", "build_references", "prepare", "run"]

_CHUNK = 4096  # images between two reports


@dataclass(frozen=True)
class HeadsData:
    """Everything the task reads, and what is said about the references.

    Attributes:
        corpus: with weight 0 for images that are not trained on.
        image: the frozen base of the image head.
        components: (F, R) for retrieval by the backbone.
        references: the held-out pairs; None where nothing is held out.
        rows: their texts and images.
        validation: images and captions to measure on; None = none.
        tower: the backbone, as it runs.
        text_tower: the sentence tower; `tail` learns in place.
        tail: its upper layers, where they learn.
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
        """(N, D): what the text tower, as it is, makes of the references' texts."""
        if self.references is None:
            return self.corpus.texts[:0].float()
        if self.tail is None:
            return self.references.sentences
        return self.tail.embedded(self.tail.rows.texts[self.references.texts])


def run(config: TrainConfig, *, data: Path, out: Path, resume: bool) -> Iterator[TrainEvent]:
    """The whole mode: prepare, train, write `OUT/model` (for `load_lit`) and `OUT/encoder` (for `--encoder`).

    Args:
        config: of mode `heads`.
        data: folder that relative paths of the config start from; the development data, where it names no pairs.
        out: folder of the run.
        resume: go on from the newest checkpoint.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainingError("mode 'heads' trains in minutes in one process: start it without a launcher")
    failures = Failures()
    made: HeadsData | None = None
    for event in prepare(config, data=data, out=out, failures=failures):
        if isinstance(event, HeadsData):
            made = event
        else:
            yield event
    assert made is not None
    failures.write(out / "failures.csv")
    task = HeadsTask(
        made.corpus,
        made.image,
        config,
        components=made.components,
        references=made.references if config.reference.augment == "ram" else None,
        validation=made.validation,
        tail=made.tail,
    )
    finished = yield from fit(task, config, out=out, resume=resume)
    model = task.finished().cpu()
    features = made.references.features if made.references else made.corpus.views[0][:0]
    texts = made.reference_sentences()
    text_tower = made.text_tower.cpu()
    save_heads(
        out / "model",
        model,
        config=config,
        rows=made.rows,
        features=features,
        sentences=texts,
        text_tower=text_tower if made.tail is not None else None,
    )
    folder = export_heads(
        out / "encoder",
        model,
        config=config,
        backbone=made.tower.path,
        preprocessing=made.tower.preprocessing,
        sentences=text_tower,
        rows=made.rows,
        features=features.cpu().float(),
        texts=texts.cpu(),
    )
    yield dataclasses.replace(finished, folder=folder, failed=len(failures))


def prepare(config: TrainConfig, *, data: Path, out: Path, failures: Failures) -> Iterator[TrainEvent | HeadsData]:
    """Features and sentences to tensors, the split made. Yields progress, and at the end the `LitData`."""
    device = "cuda" if config.loop.device == "auto" and torch.cuda.is_available() else "cpu"
    cache = Path(config.data.cache).expanduser() if config.data.cache else out / "features"
    images, validation = _images(config, data, cache, failures)
    recipe = _recipe(config)
    backbone = load_lite2()
    everyday = [item.path for item in images if item.source != "imagenet_sample"]
    tower = backbone_session(backbone, everyday, cache, size_px=config.backbone.size_px)
    features = FeatureCache(cache, tower, tower_key=tower.key)
    images, validation = (_readable(part, features, failures) for part in (images, validation))
    if len(images) < 2:
        raise TrainingError(f"{len(images)} images are left to train on; {len(failures)} items failed")
    for view in config.backbone.views:
        for first in range(0, len(images), _CHUNK):
            part = images[first : first + _CHUNK]
            features.features([item.path for item in part], view)
            yield Preparing(what=f"view {view}", done=first + len(part), total=len(images))
    sentences = SentenceCache(cache, device=device)
    corpus, names = build_corpus(images, imagenet_vocabulary(), features, sentences, recipe, device)
    image = build_image_head(corpus, backbone, names, recipe)
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
        yield Note(message="computing what the text tower's lower layers make of all texts (kept in the cache)")
        layers = config.heads.text_layers
        said = text_rows(images, imagenet_vocabulary(), cache, text_tower, layers=layers, validation=captions)
        tail = TextTail(text_tower, said, layers=layers, dropout=config.heads.tower_dropout)
    yield Note(
        message=f"{int((weights > 0).sum())} images to train on, {len(rows)} references, "
        f"{len(validation)} images for validation, {len(corpus.texts)} texts"
    )
    yield HeadsData(
        corpus,
        image,
        components,
        references,
        rows,
        HeadsValidation(
            features=torch.from_numpy(features.features([p.path for p in validation], "clean")).to(device),
            sentences=torch.from_numpy(sentences.embed(captions)).to(device),
            owners=torch.tensor([row for row, p in enumerate(validation) for _ in p.texts], device=device),
            own=torch.tensor([numbers.setdefault(key, len(numbers)) for key in apart], device=device),
        )
        if validation
        else None,
        tower,
        text_tower,
        tail,
    )


def build_references(
    config: TrainConfig,
    images: Sequence[TrainingImage],
    hashes: Sequence[str],
    own: Tensor,
    corpus: Corpus,
    weights: np.ndarray[tuple[int], np.dtype[np.float64]],
    data: Path,
) -> tuple[HeadsReferences | None, tuple[ReferenceRow, ...], np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """The hold-out: references, what they are, and the drawing weights (n,) of what is left to train on."""
    options = config.reference
    if not options.fraction:
        return None, (), weights
    usable = weights > 0
    split = hold_out(
        len(images),
        fraction=options.fraction,
        seed=config.seed,
        held_out=options.held_out,
        use=options.use,
        eligible=usable & may_be_references([image.source for image in images], options.sources),
    )
    if not len(split.references):
        raise TrainingError(f"no picture of {', '.join(options.sources)} can be a reference: see reference.sources")
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
    """To train on, and for validation: the config's own, or the development data and Flickr8k `val`."""
    options = config.data
    images = _listed(options.pairs, data, cache, failures) if options.pairs else training_images(data)[0]
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
    """Pairs as image files, since views are computed from files: what lies in a table or shard is unpacked once."""
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


def _unpacked(image: PairSource, folder: Path) -> Path:
    """A file with the decoded's bytes, named by their digest."""
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
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    return path


def _readable(images: Sequence[TrainingImage], features: FeatureCache, failures: Failures) -> list[TrainingImage]:
    """Those that open; the others are noted."""
    kept = []
    for image, good in zip(images, features.readable([p.path for p in images]), strict=True):
        if good:
            kept.append(image)
        else:
            failures.add(str(image.path), "it is not an image, or a damaged one")
    return kept


def _recipe(config: TrainConfig) -> MiniConfig:
    """What the shared builders of `mini` read, from this config."""
    backbone = config.backbone
    own = {item.name: getattr(config.heads, item.name) for item in dataclasses.fields(HeadsSettings)}
    return MiniConfig(
        size_px=backbone.size_px,
        views=backbone.views,
        retrieval_dim=backbone.retrieval_dim,
        calibration=backbone.calibration,
        head=HeadSettings(**own),
    )
