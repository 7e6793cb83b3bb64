"""Read a training config from TOML: a file or a bundled config, and the changes of `--set`."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impart.errors import ConfigError
from impart.train.retired import RETIRED, retired_names
from impart.train.settings import TABLES, TrainConfig
from impart.validation import build, closest, read_toml

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["bundled_configs", "config_of", "describe_config", "load_config"]


def bundled_configs() -> list[str]:
    """List the names of the configs that come with the package, as `load_config` takes them."""
    folder = resources.files("impart.train") / "configs"
    found = []
    for item in folder.iterdir():
        if item.name.endswith(".toml") and "mode" in read_toml(item, what="config"):
            found.append(item.name.removesuffix(".toml"))
    return sorted(found)


def describe_config(name: str) -> str:
    """Return the sentences at the top of a bundled config, which describe its purpose."""
    text = (resources.files("impart.train") / "configs" / f"{name}.toml").read_text(encoding="utf-8")
    top = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.removeprefix("#").strip() for line in top).partition(" Run it with")[0]


def load_config(name: str | Path, *, sets: Sequence[str] = ()) -> TrainConfig:
    """Read a config: a file, or else the bundled one of that name (`ram_mini`, or `configs/ram_mini.toml`).

    Args:
        name: of the file.
        sets: `table.name=value` each, which override the file; values as in TOML, bare words are strings.

    Raises:
        ConfigError: there is no such file, it is not TOML, or a name or value is not valid.
    """
    table = read_toml(_file_of(Path(name)), what="config")
    for assignment in sets:
        _assign(table, assignment)
    return config_of(table, where=str(name))


def config_of(table: Mapping[str, Any], *, where: str) -> TrainConfig:
    """Build a config from nested tables, such as `TrainConfig.as_dict` returns.

    Args:
        table: as in a TOML file.
        where: origin of the table, for messages.

    Raises:
        ConfigError: a name is unknown or retired, or a value is not valid.
    """
    if old := retired_names(table):
        raise ConfigError(f"config {where} has names of an earlier version: write {', '.join(old)}")
    mode = table.get("mode")
    if not isinstance(mode, str) or mode not in TABLES:
        raise ConfigError(f"config {where} has mode {mode!r}: use {', '.join(sorted(TABLES))}")
    for part in table:
        if part not in ("mode", "seed", *TABLES[mode]):
            known = ", ".join(sorted(TABLES[mode]))
            raise ConfigError(f"config {where}: mode {mode!r} does not read {part!r}; it reads seed, {known}")
    return build(TrainConfig, table, where=f"config {where}")


def _file_of(path: Path) -> Path | Traversable:
    if path.is_file():
        return path
    name = path.name.removesuffix(".toml")
    if name in bundled_configs():
        return resources.files("impart.train") / "configs" / f"{name}.toml"
    if new := RETIRED["config"].get(name):
        raise ConfigError(f"the bundled config {name} is called {new} now")
    if path.exists():
        raise ConfigError(f"config {path} is no file: name a TOML file")
    names = bundled_configs()
    raise ConfigError(f"no config {path}{closest(name, names)}: name a TOML file, or a bundled one: {', '.join(names)}")


def _assign(table: dict[str, Any], assignment: str) -> None:
    path, equals, raw = assignment.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f"--set {assignment!r}: write table.name=value, such as loop.epochs=3")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        value = raw.strip()
    *parents, leaf = path.strip().split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {assignment!r}: {parent!r} is not a table")
    table[leaf] = value
