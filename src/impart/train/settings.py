"""Settings of a training run: one frozen dataclass per table of a TOML file (`config_file.py` reads it).

    mode = "ram"                   # ram, episodes, heads or pretrain
    seed = 0

    [data]
    encoder = "mini"
    [[data.pairs]]
    path = "images/flickr8k"       # below --data
    where = { split = "train" }

    [loop]
    epochs = 10

A file may have any of the tables that its mode reads, and no other; `--set loop.epochs=3` overrides the file. The
resolved settings are written to the run's folder. Settings of one mode alone are defined with the mode
(`ram/settings.py`, `episodes/settings.py`, `heads/settings.py`, `pretrain/settings.py`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from impart.config import RamSettings
from impart.errors import ConfigError
from impart.retrieval.near_duplicates import TRAINING_NEAR_DUPLICATE
from impart.train.episodes.settings import EpisodeSettings
from impart.train.heads.settings import BackboneSettings, HeadsSettings
from impart.train.pretrain.settings import PretrainSettings
from impart.train.ram.settings import ProjectionSettings

__all__ = [
    "BackboneSettings",
    "DataSettings",
    "HeadsSettings",
    "LogSettings",
    "LoopSettings",
    "LossSettings",
    "OptimiserSettings",
    "PairsFrom",
    "TABLES",
    "ReferenceSettings",
    "TrainConfig",
]


@dataclass(frozen=True, kw_only=True)
class PairsFrom:
    """One source of pairs (see `impart.refset.pairs.read_pairs`).

    Attributes:
        path: a table, a shard, or a folder, below the run's data folder unless absolute; `*` matches names.
        image: column of the image; empty = guessed.
        text: column of the text; empty = guessed.
        class_names: file with the names of class numbers or codes, found like `path`; empty = those of the source.
        where: value by column; other rows of a table are left out.
        source: name of the collection; empty = the folder's or file's name.

    Raises:
        ConfigError: `path` is empty.
    """

    path: str = ""
    image: str = ""
    text: str = ""
    class_names: str = ""
    where: dict[str, str] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigError('a source of pairs has no path: [[data.pairs]] needs path = "..."')


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Pairs, and the frozen encoder that embeds them.

    Attributes:
        encoder: id of the frozen encoder (mode `ram`; in mode `pretrain` it finds neighbours).
        pairs: sources of the training pairs.
        validation: sources of the validation pairs; none = `validation_images` are held out of `pairs`.
        validation_images: number of images held out then; 0 = no validation.
        cache: folder of computed embeddings or features, shared by runs; empty = inside the run's folder.
        batch: images in one forward pass of the frozen encoder.
        threads: CPU threads of the frozen encoder; 0 = one per core.
        max_megapixels: larger images are refused.
    """

    encoder: str = "mini"
    pairs: tuple[PairsFrom, ...] = ()
    validation: tuple[PairsFrom, ...] = ()
    validation_images: int = 500
    cache: str = ""
    batch: int = 32
    threads: int = 0
    max_megapixels: float = 100.0


@dataclass(frozen=True, kw_only=True)
class ReferenceSettings:
    """Reference set of a run, and the search of neighbours in it.

    Attributes:
        augment: `ram`, or `none` for plain CLIP (references are held out all the same, so that runs are comparable).
        fraction: share of the images (of the collections `sources`, if named) that becomes references.
        held_out: whether references are kept out of training; if not, an image is never its own neighbour.
        use: share of the held-out images that is used; the rest is neither trained on nor a reference.
        sources: collections that references come from; empty = all.
        captions: texts of one image that become references; 0 = all.
        near_duplicate: a reference whose retrieval cosine with an image is above this is masked for that image.
        index: `auto` (exact up to 100,000 references), `exact`, `hnsw` or `ivf`.
        retrieval: embeddings that find neighbours: `backbone` (frozen features, searched once) or `encoder` (the
            learned image embeddings, searched every `refresh` epochs). Mode `ram` uses its encoder's own.
        embeddings: of the references, in mode `pretrain`: `towers` (by the towers that learn, again every `refresh`
            epochs) or `frozen` (learned projections of the retriever's embedding and of the text's sentence
            embedding; their gradient is that of the step).
        refresh: epochs between two searches with the encoder.
        random: share of draws with random references as neighbours, so that RAM learns to add nothing then.
        gradient: whether the gradient of the loss reaches the heads through the references too.
        base_weight: of a second contrastive loss on the embeddings before augmentation.

    Raises:
        ConfigError: `augment`, `retrieval` or `embeddings` is unknown; `fraction`, `use` or `random` is no share, or
            leaves no images to train on or no references; `refresh` is below 1; frozen embeddings are to be searched
            with the encoder.
    """

    augment: str = "ram"
    fraction: float = 0.1
    held_out: bool = True
    use: float = 1.0
    sources: tuple[str, ...] = ()
    captions: int = 1
    near_duplicate: float = TRAINING_NEAR_DUPLICATE
    index: str = "auto"
    retrieval: str = "backbone"
    embeddings: str = "towers"
    refresh: int = 1
    random: float = 0.0
    gradient: bool = False
    base_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.augment not in ("ram", "none"):
            raise ConfigError(f"reference.augment is {self.augment!r}: use ram or none")
        if not 0 <= self.fraction <= 1 or (self.held_out and self.fraction == 1 and not self.sources):
            raise ConfigError(f"reference.fraction is {self.fraction}: a share of the images must be left to train on")
        if self.augment == "ram" and not self.fraction:
            raise ConfigError("reference.fraction is 0: RAM needs references; or set reference.augment to none")
        if not 0 < self.use <= 1:
            raise ConfigError(f"reference.use is {self.use}: it must be above 0 and at most 1")
        if self.retrieval not in ("backbone", "encoder"):
            raise ConfigError(f"reference.retrieval is {self.retrieval!r}: use backbone or encoder")
        if self.embeddings not in ("towers", "frozen"):
            raise ConfigError(f"reference.embeddings is {self.embeddings!r}: use towers or frozen")
        if self.embeddings == "frozen" and self.retrieval == "encoder":
            raise ConfigError(
                "reference.embeddings = 'frozen' needs the embeddings of a frozen retriever: set reference.retrieval "
                "to backbone"
            )
        if not 0 <= self.random <= 1:
            raise ConfigError(f"reference.random is {self.random}: it is a share, from 0 to 1")
        if self.refresh < 1:
            raise ConfigError(f"reference.refresh is {self.refresh}: it must be at least 1 epoch")


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """Contrastive loss.

    Attributes:
        init_scale: learned inverse temperature at step 0 (CLIP: 1 / 0.07). Unless it is changed, mode `pretrain` starts
            from the inverse temperature of its weights, if they have one.
        max_scale: upper limit of the inverse temperature.
        smoothing: share of the target spread over all pairs.
        near_text: unequal texts with a higher cosine are no negatives of each other; 1 = all are.

    Raises:
        ConfigError: `init_scale` is not above 0 or exceeds `max_scale`, or `smoothing` is not in [0, 1).
    """

    init_scale: float = 1 / 0.07
    max_scale: float = 100.0
    smoothing: float = 0.0
    near_text: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.init_scale <= self.max_scale:
            raise ConfigError(f"loss.init_scale is {self.init_scale}: above 0 and at most max_scale ({self.max_scale})")
        if not 0 <= self.smoothing < 1:
            raise ConfigError(f"loss.smoothing is {self.smoothing}: a share from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class OptimiserSettings:
    """AdamW with linear warm-up and cosine decay. Biases, norms, gates and the temperature have no weight decay.

    Attributes:
        learning_rate: the peak.
        rates: factors on it by the name of a learned part, such as `{ ram = 0.5 }`.
        weight_decay: decoupled, of matrices.
        betas: of the moments.
        eps: in the denominator.
        warmup: share of the steps in which the rate rises from 0.
        final: rate at the end, as a share of the peak.
        clip: gradients with a larger norm are scaled down to it; 0 = never.

    Raises:
        ConfigError: there are not two `betas`, `learning_rate` is not above 0, or `warmup` is not in [0, 1).
    """

    learning_rate: float = 1e-3
    rates: dict[str, float] = field(default_factory=dict)
    weight_decay: float = 0.05
    betas: tuple[float, ...] = (0.9, 0.98)
    eps: float = 1e-6
    warmup: float = 0.05
    final: float = 0.0
    clip: float = 1.0

    def __post_init__(self) -> None:
        if len(self.betas) != 2:
            raise ConfigError(f"optimiser.betas are {list(self.betas)}: two numbers are needed")
        if self.learning_rate <= 0:
            raise ConfigError(f"optimiser.learning_rate is {self.learning_rate}: it must be above 0")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"optimiser.warmup is {self.warmup}: a share of the steps, below 1")


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """Length of the run, batches, checkpoints and validation.

    Attributes:
        epochs: passes over the training images.
        steps: optimiser steps in all; 0 = given by `epochs`.
        batch: pairs in one loss, per process.
        accumulate: batches whose gradients are summed for one step.
        precision: `float32` or `bf16`.
        device: `auto` (a GPU where there is one) or `cpu`.
        checkpoint_every: steps between two checkpoints; 0 = only at the end.
        keep: checkpoints kept.
        validate_every: steps between two validations; 0 = only at the end.

    Raises:
        ConfigError: `batch`, `accumulate` or `keep` is below 1, `epochs` and `steps` are both 0, or `precision` or
            `device` is unknown.
    """

    epochs: float = 10.0
    steps: int = 0
    batch: int = 512
    accumulate: int = 1
    precision: str = "float32"
    device: str = "auto"
    checkpoint_every: int = 200
    keep: int = 2
    validate_every: int = 200

    def __post_init__(self) -> None:
        for name in ("batch", "accumulate", "keep"):
            if getattr(self, name) < 1:
                raise ConfigError(f"loop.{name} is {getattr(self, name)}: it must be at least 1")
        if self.epochs <= 0 and self.steps <= 0:
            raise ConfigError("loop.epochs and loop.steps are both 0: there is nothing to do")
        if self.precision not in ("float32", "bf16"):
            raise ConfigError(f"loop.precision is {self.precision!r}: use float32 or bf16")
        if self.device not in ("auto", "cpu"):
            raise ConfigError(f"loop.device is {self.device!r}: use auto or cpu")

    def total_steps(self, steps_per_epoch: int) -> int:
        """Return the optimiser steps of the whole run, at least one."""
        return self.steps or max(1, round(self.epochs * steps_per_epoch))


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """Log of a run.

    Attributes:
        every: steps between two lines of log.jsonl; each has the means since the last one.
        tensorboard: whether TensorBoard files are written as well.

    Raises:
        ConfigError: `every` is below 1.
    """

    every: int = 10
    tensorboard: bool = True

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ConfigError(f"log.every is {self.every}: it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All settings of a run.

    Attributes:
        mode: `ram` (a frozen encoder, RAM learns), `episodes` (the same, on small naming problems), `heads` (frozen
            towers, heads learn, with or without RAM), `pretrain` (towers learn, with or without RAM).
        seed: of initial weights, splits, draws and dropout.

    Raises:
        ConfigError: a setting that the mode does not read is changed, or `optimiser.rates` names a part that the mode
            does not learn.
    """

    mode: str = "ram"
    seed: int = 0
    data: DataSettings = field(default_factory=DataSettings)
    reference: ReferenceSettings = field(default_factory=ReferenceSettings)
    ram: RamSettings = field(default_factory=RamSettings)
    projections: ProjectionSettings = field(default_factory=ProjectionSettings)
    backbone: BackboneSettings = field(default_factory=BackboneSettings)
    heads: HeadsSettings = field(default_factory=HeadsSettings)
    pretrain: PretrainSettings = field(default_factory=PretrainSettings)
    episodes: EpisodeSettings = field(default_factory=EpisodeSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    loop: LoopSettings = field(default_factory=LoopSettings)
    log: LogSettings = field(default_factory=LogSettings)

    def __post_init__(self) -> None:
        for table, names in _UNREAD.get(self.mode, {}).items():
            settings = getattr(self, table)
            for name in names:
                value, default = getattr(settings, name), getattr(type(settings)(), name)
                if value != default:
                    raise ConfigError(
                        f"{table}.{name} is {value!r}, which mode {self.mode!r} does not read: leave it out"
                    )
        known = _PARTS.get(self.mode)
        for name in self.optimiser.rates:
            if known is not None and name not in known:
                raise ConfigError(f"optimiser.rates.{name}: mode {self.mode!r} learns {', '.join(sorted(known))}")

    def as_dict(self) -> dict[str, Any]:
        """Return the tables that the mode reads as nested dictionaries, as written to the run's folder."""
        tables = dataclasses.asdict(self)
        for source in (*tables["data"]["pairs"], *tables["data"]["validation"]):
            if not source["class_names"]:  # runs of version 0.1.0 do not have it, and can be resumed
                del source["class_names"]
        unread = set(tables) - {"mode", "seed"} - TABLES.get(self.mode, set(tables))
        return {name: value for name, value in tables.items() if name not in unread}


_LOOP = {"loss", "optimiser", "loop", "log"}
TABLES: dict[str, set[str]] = {
    "ram": {"data", "reference", "ram", "projections", *_LOOP},
    "episodes": {"data", "episodes", "ram", *_LOOP},
    "heads": {"data", "reference", "ram", "backbone", "heads", *_LOOP},
    "pretrain": {"data", "reference", "ram", "pretrain", *_LOOP},
}
"""The tables that each mode reads."""

_UNREAD: dict[str, dict[str, tuple[str, ...]]] = {
    "ram": {"reference": ("augment", "retrieval", "embeddings", "refresh", "gradient", "base_weight")},
    "heads": {"reference": ("embeddings",)},
    "episodes": {"loss": ("smoothing", "near_text"), "loop": ("batch",)},
}
"""Settings of these tables that a mode does not read."""

_PARTS: dict[str, set[str]] = {
    "ram": {"ram", "temperature", "image_projection", "text_projection"},
    "episodes": {"ram", "temperature"},
    "heads": {"image", "text", "cells", "ram", "tower", "temperature"},
    "pretrain": {"towers", "references", "ram", "temperature"},
}
"""Parts that `optimiser.rates` may name; `parts` of a task returns those that the run has."""
