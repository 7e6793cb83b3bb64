"""Settings of mode `pretrain`: towers, chunks of a batch, image reading."""

from __future__ import annotations

from dataclasses import dataclass, field

from impart.errors import ConfigError

__all__ = ["PretrainSettings"]


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """Towers that learn, from scratch or from weights.

    Attributes:
        model: `tiny`, `small`, `vit-b-32` or `vit-b-16` from scratch, or `hf:FOLDER` (a CLIP in transformers' format).
        image: changes to the image tower's configuration, such as `{ num_hidden_layers = 6 }`; from scratch only.
        text: likewise of the text tower.
        dim: embedding width; 0 = the model's own; from scratch only.
        tokenizer: folder with a `tokenizer.json`; empty = learned from the training captions (from scratch), or the
            model's own.
        vocabulary: tokens of a learned tokenizer, at most.
        chunk: pairs in one forward pass, per process; fewer than `loop.batch` = cached loss; 0 = all at once.
        checkpointing: compute activations again in the backward pass instead of keeping them.
        shard: spread weights, gradients and optimiser state over the processes (FSDP), instead of keeping all of them
            on each (DDP); for towers that do not fit one device.
        dropout: of the towers' attention.
        crop: smallest share of an image's area in a training view; 1 = the evaluation view.
        workers: processes that read images; 0 = the training process itself. With `stream` the order depends on it.
        stream: read shards in their order with WebDataset and mix them in a buffer, instead of drawing single images;
            for shards on disks that are slow to seek.
        shuffle: images in that buffer, per reading process.

    Raises:
        ConfigError: `image`, `text` or `dim` is given for a model with weights, `crop` is not in (0, 1], `chunk` or
            `workers` is below 0, `shuffle` is below 1, or `vocabulary` is below 258.
    """

    model: str = "vit-b-32"
    image: dict[str, int] = field(default_factory=dict)
    text: dict[str, int] = field(default_factory=dict)
    dim: int = 0
    tokenizer: str = ""
    vocabulary: int = 49408
    chunk: int = 0
    checkpointing: bool = False
    shard: bool = False
    dropout: float = 0.0
    crop: float = 0.5
    workers: int = 4
    stream: bool = False
    shuffle: int = 5000

    def __post_init__(self) -> None:
        if self.model.startswith("hf:") and (self.image or self.text or self.dim):
            raise ConfigError(
                "pretrain.image, pretrain.text and pretrain.dim shape towers from scratch; pretrain.model has weights"
            )
        if not 0 < self.crop <= 1:
            raise ConfigError(f"pretrain.crop is {self.crop}: a share of the area, above 0 and at most 1")
        for name in ("chunk", "workers"):
            if getattr(self, name) < 0:
                raise ConfigError(f"pretrain.{name} is {getattr(self, name)}: it must be at least 0")
        if self.shuffle < 1:
            raise ConfigError(f"pretrain.shuffle is {self.shuffle}: it must be at least 1")
        if self.vocabulary < 258:
            raise ConfigError(f"pretrain.vocabulary is {self.vocabulary}: it must be at least 258 (256 bytes, 2 marks)")
