"""Settings of mode `heads`: the frozen towers, and the heads on top of them."""

from __future__ import annotations

from dataclasses import dataclass

from impart.errors import ConfigError

__all__ = ["BackboneSettings", "HeadsSettings"]


@dataclass(frozen=True, kw_only=True)
class BackboneSettings:
    """The frozen towers.

    Attributes:
        size_px: side of the square input of the image backbone; a multiple of 128.
        views: views of each image (see `views.view`); the first is `clean`.
        retrieval_dim: width of the retrieval embedding (principal components of the features).
        calibration: share of the correction for classes whose probability rises when an image is shrunk (0 to 1).

    Raises:
        ConfigError: the first view is not `clean`, or `size_px` is no multiple of 128.
    """

    size_px: int = 256
    views: tuple[str, ...] = ("clean", "crop0", "small0")
    retrieval_dim: int = 256
    calibration: float = 0.75

    def __post_init__(self) -> None:
        if not self.views or self.views[0] != "clean":
            raise ConfigError(
                f"backbone.views are {list(self.views)}: the first must be 'clean', the view of the teacher"
            )
        if self.size_px % 128:
            raise ConfigError(f"backbone.size_px is {self.size_px}: the backbone's cells need a multiple of 128")


@dataclass(frozen=True, kw_only=True)
class HeadsSettings:
    """Heads, and the losses that keep the towers' class names and kinds.

    Attributes:
        image_hidden: width of the image correction.
        text_hidden: width of the text correction.
        cell_heads: heads of the attention over the backbone's cells; 0 = cells are not read.
        cell_hidden: width of the perceptron behind it.
        dropout_cells: share of the cells' standardised numbers dropped.
        dropout_in: share of standardised features dropped.
        dropout_mid: likewise between the layers.
        text_dropout: between the layers of the text correction.
        top: class names averaged into the base image embedding.
        temperature: of their softmax.
        class_weight: of the loss that keeps the 1,000 class names.
        kind_weight: of the loss over kinds (`dog`, `vehicle`).
        text_weight: of the loss that keeps distances between sentences.
        class_scale: inverse temperature of the losses over class names and kinds.
        teacher_temperature: softens the backbone's classifier as a teacher.
        view_shares: how often a clean, cropped or shrunk view is drawn.
        caption_share: share of draws from `caption_sources`.
        caption_sources: folders with sentences; the others contain names.
        balance: within both groups a source of n images with m different texts is drawn like
            n ** balance * m ** breadth.
        breadth: see `balance`.
        ema: decay of the averaged weights that are returned.
        text_layers: upper layers of the sentence tower that learn as well; 0 = it stays as published. The learned part
            is called `tower` (`optimiser.rates`). References' texts follow it every `reference.refresh` epochs.
        tower_dropout: on the input of the first of these layers.
        names: class names drawn per step for the loss that keeps them, if the tower learns (otherwise all).
    """

    image_hidden: int = 512
    text_hidden: int = 512
    cell_heads: int = 8
    cell_hidden: int = 512
    dropout_cells: float = 0.1
    dropout_in: float = 0.3
    dropout_mid: float = 0.5
    text_dropout: float = 0.3
    top: int = 10
    temperature: float = 2.0
    class_weight: float = 1.0
    kind_weight: float = 0.0
    text_weight: float = 0.0
    class_scale: float = 20.0
    teacher_temperature: float = 1.0
    view_shares: tuple[float, float, float] = (0.4, 0.25, 0.35)
    caption_share: float = 0.5
    caption_sources: tuple[str, ...] = ("flickr8k", "openstax", "openstax2", "philschatz_biology", "sites")
    balance: float = 0.35
    breadth: float = 0.5
    ema: float = 0.995
    text_layers: int = 0
    tower_dropout: float = 0.05
    names: int = 400
