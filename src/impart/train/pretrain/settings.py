"""Settings of mode `pretrain`: towers, chunks of a batch, image reading."""

from __future__ import annotations

from dataclasses import dataclass, field

from impart.errors import ConfigError

__all__ = ["PretrainSettings"]


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """Towers that learn, from scratch or from weights.

    Attributes:
        model: `tiny`, `small`, `vit-b-32` or `vit-b-16` from scratch; `conv-small`, a convolutional image tower for
            small images; `constant`, a learned constant in the place of an image tower, as a control; or `hf:FOLDER`
            (a CLIP in transformers' format).
        text_tower: `own` (learns from scratch) or `sentences` (frozen sentence embeddings of all-MiniLM-L6-v2 with a
            learned projection); from scratch only.
        image: changes to the image tower's configuration, such as `{ num_hidden_layers = 6 }`, or of `conv-small`
            `{ image_size = 64 }` (see `ConvShape`); from scratch only.
        text: likewise of the text tower; of `sentences`: `layers` (1 or 2) and `hidden`.
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
        flip: mirror half of the training views.
        decode_once_px: side of the copies that images are decoded to once, in `data.cache` or in `OUT/decoded`; views
            are cut out of them. Larger than the image tower's input, so that crops stay sharp; 0 = images are decoded
            for every view.
        workers: processes that read images; 0 = the training process itself. With `stream` the order depends on it.
        stream: read shards in their order with WebDataset and mix them in a buffer, instead of drawing single images;
            for shards on disks that are slow to seek.
        shuffle: images in that buffer, per reading process.

    Raises:
        ConfigError: a setting of towers from scratch is given for a model with weights, `text_tower` is unknown,
            `crop` is not in (0, 1], `chunk`, `workers` or `decode_once_px` is below 0, images of a stream are to be
            decoded once, `shuffle` is below 1, or `vocabulary` is below 258.
    """

    model: str = "vit-b-32"
    text_tower: str = "own"
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
    flip: bool = False
    decode_once_px: int = 0
    workers: int = 4
    stream: bool = False
    shuffle: int = 5000

    def __post_init__(self) -> None:
        if self.text_tower not in ("own", "sentences"):
            raise ConfigError(f"pretrain.text_tower is {self.text_tower!r}: use own or sentences")
        if self.model.startswith("hf:") and (self.image or self.text or self.dim or self.text_tower != "own"):
            raise ConfigError(
                "pretrain.image, pretrain.text, pretrain.dim and pretrain.text_tower shape towers from scratch; "
                "pretrain.model has weights"
            )
        if self.text_tower == "sentences" and self.tokenizer:
            raise ConfigError("pretrain.tokenizer is for a text tower that learns; 'sentences' has its own tokenizer")
        if not 0 < self.crop <= 1:
            raise ConfigError(f"pretrain.crop is {self.crop}: a share of the area, above 0 and at most 1")
        for name in ("chunk", "workers", "decode_once_px"):
            if getattr(self, name) < 0:
                raise ConfigError(f"pretrain.{name} is {getattr(self, name)}: it must be at least 0")
        if self.stream and self.decode_once_px:
            raise ConfigError("pretrain.decode_once_px needs single images: set pretrain.stream to false")
        if self.shuffle < 1:
            raise ConfigError(f"pretrain.shuffle is {self.shuffle}: it must be at least 1")
        if self.vocabulary < 258:
            raise ConfigError(f"pretrain.vocabulary is {self.vocabulary}: it must be at least 258 (256 bytes, 2 marks)")
