"""Settings of mode `ram` alone: learned projections of the embeddings."""

from __future__ import annotations

from dataclasses import dataclass

from impart.errors import ConfigError

__all__ = ["ProjectionSettings"]


@dataclass(frozen=True, kw_only=True)
class ProjectionSettings:
    """Two matrices on the frozen embeddings, of images and of texts, that learn with the RAM.

    Attributes:
        learn: whether they learn. They start as the identity, and weight decay pulls them back to it.
        rate: factor on the learning rate, unless `optimiser.rates` names `image_projection` or `text_projection`.

    Raises:
        ConfigError: `rate` is not above 0.
    """

    learn: bool = False
    rate: float = 0.1

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ConfigError(f"projections.rate is {self.rate}: it must be above 0")
