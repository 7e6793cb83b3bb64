"""Settings of mode `pretrain`: the towers, the portions of a batch, and how images are read."""

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
        chunk: pairs in one forward pass, on each process; fewer than `loop.batch` = cached loss; 0 = all at once.
        checkpointing: compute activations again in the backward pass instead of keeping them.
        shard: over several processes, each keeps its share of weights, gradients and optimiser state alone (FSDP)
            instead of all of them (DDP): for towers that do not fit one device.
        dropout: of the towers' attention.
        crop: smallest share of an image's area that a training view shows; 1 = the evaluation view.
        workers: processes that read images; 0 = the training process itself. With `stream` the order depends on it.
        stream: read shards in their order with WebDataset and mix them in a buffer, instead of drawing single images;
            for shards on disks that are slow to seek.
        shuffle: images in that buffer, on each process.
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
                raise ConfigError(f"pretrain.{name} is {getattr(self, name)}: at least 0")
        if self.shuffle < 1:
            raise ConfigError(f"pretrain.shuffle is {self.shuffle}: at least 1")
        if self.vocabulary < 258:
            raise ConfigError(f"pretrain.vocabulary is {self.vocabulary}: 256 bytes and 2 marks are the least")
