"""Settings of the recipe of `mini`: those of training mode `heads`, and those that only the recipe has."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from impart.errors import ConfigError
from impart.recipes.mini.small_images import SmallSettings
from impart.recipes.mini.text_tuning import TuningSettings
from impart.train.config_file import config_of
from impart.train.settings import (
    BackboneSettings,
    LoopSettings,
    LossSettings,
    OptimiserSettings,
    ReferenceSettings,
    TrainConfig,
)
from impart.validation import build, read_toml

__all__ = ["MiniConfig", "load_config"]


def _plain_heads() -> TrainConfig:
    """Return the defaults of the recipe: `[train]` of a recipe file overrides them, setting by setting."""
    return TrainConfig(
        mode="heads",
        reference=ReferenceSettings(augment="none", fraction=0.0),
        backbone=BackboneSettings(views=("clean", "crop0", "crop1", "small0", "small1")),
        loss=LossSettings(init_scale=14.0, max_scale=50.0, near_text=0.9),
        optimiser=OptimiserSettings(betas=(0.9, 0.999), eps=1e-8, warmup=0.1, clip=0.0),
        loop=LoopSettings(epochs=12, batch=512),
    )


@dataclass(frozen=True, kw_only=True)
class MiniConfig:
    """The whole recipe.

    Attributes:
        train: of mode `heads`, without references; its seed is replaced by each of `seeds`. Its `heads.text_layers`,
            `names` and `tower_dropout` apply to the tuning of the text tower only.
        seeds: one training of the heads per seed; the mean of the heads is exported.
        sources: folders to train on; empty = all.
        int8: store the matrices of heads and text tower as int8 (else float16).
        tuning: of the text tower, after the heads.
        small: of the backbone's second set of weights, for small images.

    Raises:
        ConfigError: `train` is of another mode or has references, or there are layers to tune and no steps, or the
            reverse.
    """

    train: TrainConfig = field(default_factory=_plain_heads)
    seeds: tuple[int, ...] = (0, 1, 2)
    sources: tuple[str, ...] = ()
    int8: bool = True
    tuning: TuningSettings = field(default_factory=TuningSettings)
    small: SmallSettings = field(default_factory=SmallSettings)

    def __post_init__(self) -> None:
        if self.train.mode != "heads" or self.train.reference.augment != "none" or self.train.reference.fraction:
            raise ConfigError('train: the recipe needs mode = "heads", reference.augment = "none", fraction = 0')
        if bool(self.tuning.steps) != bool(self.train.heads.text_layers):
            raise ConfigError(
                f"tuning.steps is {list(self.tuning.steps)}, train.heads.text_layers {self.train.heads.text_layers}: "
                "set both or none, the tuning of the text tower needs both"
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as nested dictionaries, as stored in `model.json`."""
        return {**dataclasses.asdict(self), "train": self.train.as_dict()}


def load_config(path: Path | None = None) -> MiniConfig:
    """Read a recipe; None = the bundled `configs/mini.toml`.

    Raises:
        ConfigError: the file cannot be read, a setting is unknown, or settings do not fit together.
    """
    table = read_toml(path or resources.files("impart.recipes.mini") / "configs" / "mini.toml", what="recipe")
    given = table.get("train", {})
    where = f"recipe {path or 'mini.toml'}"
    if isinstance(given, dict) and given.get("mode", "heads") == "heads":
        given = _overlaid(json.loads(json.dumps(_plain_heads().as_dict())), given)  # through JSON: lists, as in TOML
    if not isinstance(given, dict):
        raise ConfigError(f"{where}: train is {given!r}: write a table [train]")
    train = config_of(given, where=f"{path or 'mini.toml'}, [train]")
    return build(MiniConfig, table | {"train": train}, where=where)


def _overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested tables, `above` in place of `below` where both have a value."""
    values = dict(below) | dict(above)
    for name, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(name), Mapping):
            values[name] = _overlaid(below[name], value)
    return values
