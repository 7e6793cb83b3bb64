"""Check the names and types of settings, wherever they come from: TOML, environment, command line, manifests.

Types are those of the settings' dataclasses; pydantic checks them in strict mode, so that `top = true` or a word in
place of a number is refused. A text is converted only where nothing else can be written: in the environment. Ranges
are checked by the dataclasses themselves. pydantic is imported for the first value, since it costs start time.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from impart.errors import ConfigError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["build", "check_names", "check_types", "check_value", "closest", "read_toml", "type_hints"]

Kind = TypeVar("Kind")

_WORDS = {int: "a whole number", float: "a finite number", str: "a text in quotes", bool: "true or false"}
_PLURALS = {int: "whole numbers", float: "finite numbers", str: "texts in quotes", bool: "true or false"}


def read_toml(file: Path | Traversable, *, what: str) -> dict[str, Any]:
    """Read a TOML file.

    Args:
        file: a path, or a file of a package (`importlib.resources`).
        what: kind of file, for messages, such as `settings file`.

    Raises:
        ConfigError: the file cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"cannot read {what} {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{what} {file} is not TOML, which is always UTF-8: save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{what} {file} is not TOML: {error}") from error


def check_names(
    names: Iterable[str],
    known: Iterable[str],
    *,
    where: str,
    kind: str = "setting",
    retired: Mapping[str, str] | None = None,
) -> None:
    """Refuse unknown names.

    Args:
        names: to check.
        known: all valid names.
        where: the names are from, for messages, such as `settings file impart.toml`.
        kind: what is named, for messages.
        retired: old name -> new name.

    Raises:
        ConfigError: a name is unknown or retired. The message has the new name, or all valid names.
    """
    valid = list(known)
    for name in names:
        if retired and name in retired:
            raise ConfigError(f"{where}: {kind} {name!r} is now {retired[name]!r}: rename it")
        if name not in valid:
            raise ConfigError(f"{where} has no {kind} {name!r}; there are {', '.join(valid)}")


def closest(name: str, known: Iterable[str]) -> str:
    """Name the known name that is most similar, as ` (did you mean X?)`; empty where none is similar.

    >>> closest("klasses", ["classes", "captions"]), closest("xyz", ["classes"])
    (' (did you mean classes?)', '')
    """
    found = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {found[0]}?)" if found else ""


def check_value(hint: Any, value: Any, *, name: str, where: str, text: bool = False, example: Any = None) -> Any:
    """Check one value and return it, a list as a tuple.

    Args:
        hint: its type: a number, a text, a truth value, a choice (`Literal`), or a tuple or dict of these.
        value: as in TOML or JSON.
        name: of the setting, for messages.
        where: the value is from, for messages.
        text: the value is a text to be converted, as in the environment; a list then has one value.
        example: a value that fits, for messages.

    Raises:
        ConfigError: names where, the setting, the type it needs and an example.
    """
    from pydantic import ValidationError

    if typing.get_origin(hint) is tuple and isinstance(value, str) and text:
        value = (value,)
    try:
        return _adapter(hint, text).validate_python(_as_tuples(hint, value))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "".join(f"[{part}]" for part in first["loc"] if isinstance(part, int))
        raise ConfigError(
            f"{where}: {name} is {_shown(value)}, but must be {_wanted(hint)}"
            + (f" ({name}{place} is not)" if place else "")
            + _such_as(name, example, text=text)
        ) from error


def build(kind: type[Kind], table: Any, *, where: str, name: str = "", given: str = "setting") -> Kind:
    """Build a dataclass from a table of TOML or JSON, with nested ones and lists of them.

    Args:
        kind: the dataclass.
        table: value by field; a value that already is an instance of the field's dataclass is kept.
        where: the table is from, for messages.
        name: of the table, for messages; empty = the whole file.
        given: what a field is called in messages.

    Raises:
        ConfigError: a name is unknown, a value has another type or is out of range, or a value is missing.
    """
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: {name or 'its content'} is {_shown(table)}: write a table [{name or '...'}]")
    prefix = f"{name}." if name else ""
    fields = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    check_names((f"{prefix}{key}" for key in table), sorted(prefix + key for key in fields), where=where, kind=given)
    missing = [f"{prefix}{key}" for key, item in fields.items() if key not in table and _required(item)]
    if missing:
        raise ConfigError(f"{where} lacks {', '.join(missing)}")
    hints = type_hints(typing.cast(Any, kind))
    values = {
        key: _converted(hints[key], value, name=prefix + key, where=where, example=_default(fields[key]))
        for key, value in table.items()
    }
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def check_types(settings: Any, *, where: str) -> None:
    """Check the types of the values that a settings object was made with in Python.

    Raises:
        ConfigError: a value has another type, such as a text in place of a list.
    """
    hints = type_hints(typing.cast(Any, type(settings)))
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        if not dataclasses.is_dataclass(value):
            check_value(hints[item.name], value, name=item.name, where=where, example=_default(item))


@functools.cache
def type_hints(kind: type) -> dict[str, Any]:
    """Return the types of a dataclass's fields."""
    return typing.get_type_hints(kind)


def _converted(hint: Any, value: Any, *, name: str, where: str, example: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType) and any(map(dataclasses.is_dataclass, arguments)):
        if value is None and type(None) in arguments:
            return None
        if any(dataclasses.is_dataclass(one) and isinstance(value, typing.cast(type, one)) for one in arguments):
            return value
        hint = next(one for one in arguments if dataclasses.is_dataclass(one))
    if dataclasses.is_dataclass(hint):
        settings: Any = hint
        return value if isinstance(value, settings) else build(settings, value, where=where, name=name)
    if origin is tuple and dataclasses.is_dataclass(arguments[0]):
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: {name} is {_shown(value)}: write a list of tables, [[{name}]]")
        return tuple(
            _converted(arguments[0], item, name=f"{name}[{number}]", where=where, example=None)
            for number, item in enumerate(value)
        )
    if hint == dict[str, str] and isinstance(value, Mapping):  # a column may contain numbers
        numbers = (int, float)
        value = {
            key: str(one) if isinstance(one, numbers) and not isinstance(one, bool) else one
            for key, one in value.items()
        }
    return check_value(hint, value, name=name, where=where, example=example)


@functools.cache
def _adapter(hint: Any, text: bool) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(hint, config=ConfigDict(strict=not text, allow_inf_nan=False, arbitrary_types_allowed=True))


def _as_tuples(hint: Any, value: Any) -> Any:
    """Convert the lists of TOML and JSON to tuples where the type is one."""
    if typing.get_origin(hint) is not tuple or not isinstance(value, list):
        return value
    item = typing.get_args(hint)[0]
    return tuple(_as_tuples(item, one) for one in value)


def _wanted(hint: Any) -> str:
    """Describe a type.

    >>> _wanted(tuple[int, ...]), _wanted(tuple[float, float]), _wanted(typing.Literal["a", "b"])
    ('a list of whole numbers', 'a list of 2 finite numbers', 'a or b')
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _WORDS:
        return _WORDS[hint]
    if origin is typing.Literal:
        return " or ".join(map(str, arguments)) if len(arguments) < 3 else f"one of {', '.join(map(str, arguments))}"
    if origin in (tuple, list):
        count = "" if origin is list or arguments[-1] is ... else f"{len(arguments)} "
        return f"a list of {count}{_PLURALS.get(arguments[0], 'values')}"
    if origin in (dict, Mapping):
        return f"a table of {_PLURALS.get(arguments[1], 'values')}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if one is type(None) else _wanted(one) for one in arguments)
    return getattr(hint, "__name__", str(hint))


def _such_as(name: str, example: Any, *, text: bool) -> str:
    """Show an example of a setting; empty where there is none that helps."""
    if example is None or example in ("", (), {}):
        return ""
    shown = str(example) if text and not isinstance(example, tuple) else json.dumps(example)
    return f", such as {shown}" if text else f", such as {name.rpartition('.')[2]} = {shown}"


def _shown(value: Any) -> str:
    """Show a value as TOML writes it, at most 60 characters of it."""
    shown = str(value).lower() if isinstance(value, bool) else repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _required(item: dataclasses.Field[Any]) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def _default(item: dataclasses.Field[Any]) -> Any:
    """Return the default of a field; None where it has none, or one that no file contains."""
    default = item.default
    return default if isinstance(default, bool | int | float | str | tuple) else None
