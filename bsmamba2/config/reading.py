"""Reads YAML into dataclasses; a missing, unknown or mistyped key is one clear error."""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml

from bsmamba2.errors import ConfigError

T = TypeVar("T")


_MAX_BYTES = 1 << 20  # largest YAML file that is read; ours have a few kilobytes


def shown(value: Any, most: int = 60) -> str:
    """Formats any value for a message, in one line of at most `most` characters."""
    if isinstance(value, Mapping):
        return "keys and values"
    if isinstance(value, (list, tuple)) and len(value) < 8:
        return (  # inner lists are not shown: a list may contain itself
            f"[{', '.join('a list' if isinstance(v, (list, tuple)) else shown(v) for v in value)}]"
        )
    if isinstance(value, (list, tuple, set)):
        return "a list"
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print integers of more than 4300 digits
        return "a number with thousands of digits"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def require(condition: bool, message: str) -> None:
    """Raises ConfigError with the message unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def require_within(where: str, value: int, least: int, most: int) -> None:
    """Raises ConfigError unless least <= value <= most."""
    require(value >= least, f"{where} must be at least {least}.")
    require(value <= most, f"{where} must be at most {most}.")


def require_one_of(where: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises ConfigError unless the value is one of the choices."""
    require(value in choices, f"{where} must be {' or '.join(choices)}, not {shown(value)}.")


def config_names() -> list[str]:
    """Lists the names of the configurations in the package."""
    folder = resources.files("bsmamba2.config")
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name[-5:] == ".yaml")


def read_yaml(name: str, depth: int = 0) -> dict[str, Any]:
    """Reads the sections of a packaged configuration or a file, merged into those of its `base`.

    Raises:
        ConfigError: No such file, or its content is not YAML made of sections.
    """
    require(depth < 8, f"The 'base' keys from {name} on form a circle: remove one of them.")
    values = _plain_values(_read_text(name), name)
    require(isinstance(values, dict), f"{name} must consist of sections such as 'network:'.")
    base = values.pop("base", None)
    if base is None:
        return typing.cast(dict[str, Any], values)
    require(isinstance(base, str), f"{name}: 'base' must name a configuration.")
    if base not in config_names():
        base = Path(name).parent / base  # relative to the file that names it
    merged = read_yaml(str(base), depth + 1)
    for section, changes in values.items():
        inherited = merged.get(section, {})
        both = isinstance(changes, dict) and isinstance(inherited, dict)
        require(both, f"{name} or its base: section '{section}' must hold keys.")
        merged[section] = {**inherited, **changes}
    return merged


def _read_text(name: str) -> str:
    if name in config_names():
        return resources.files("bsmamba2.config").joinpath(f"{name}.yaml").read_text("utf-8")
    path = Path(name)
    try:
        if path.is_file():
            if path.stat().st_size > _MAX_BYTES:
                raise ConfigError(f"{name} is too large for a configuration: name another file.")
            return path.read_text("utf-8")
        reason: Exception | None = None
    except (OSError, ValueError) as error:  # not UTF-8, or not a possible file name
        reason = error
    known = ", ".join(config_names())
    raise ConfigError(
        f"No configuration {shown(name, 300)[1:-1]}: name one of {known}, or a readable YAML file."
    ) from reason


def _plain_values(text: str, name: str) -> Any:
    """Parses YAML into plain values; raises ConfigError."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it has characters that YAML does not allow"
        raise ConfigError(f"{name} is not valid YAML{where}: {problem}.") from error
    except Exception as error:  # dates, numbers and nesting on which PyYAML itself fails
        raise ConfigError(
            f"{name} is not valid YAML: it has a value that cannot be read "
            f"({type(error).__name__}); quote or remove it."
        ) from error


def read_section(kind: type[T], values: Any, where: str = "") -> T:
    """Builds a dataclass from plain values; every key must be known and present.

    Args:
        kind: A dataclass of numbers, strings, tuples and further such dataclasses, or None.
        values: A mapping, as read from YAML or JSON.
        where: Prefix of the keys in messages, such as "section.".

    Raises:
        ConfigError: A key is missing, unknown or mistyped; the message names the first one.
    """
    require(isinstance(values, Mapping), f"'{where.rstrip('.')}' must hold keys and values.")
    hints = typing.get_type_hints(kind)
    known = {field.name for field in fields(typing.cast(Any, kind))}
    for key in values:
        if key not in known:
            name = shown(key).strip("'")
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{where}{close[0]}'?" if close else "remove it."
            raise ConfigError(f"Unknown configuration key '{where}{name}'; {hint}")
    missing = sorted(known - set(values))
    absent = f"{where}{missing[0]}" if missing else ""
    require(not missing, f"The configuration lacks '{absent}': add it.")
    return kind(**{key: _convert(hints[key], values[key], f"{where}{key}") for key in known})


def _convert(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint):
        return read_section(typing.cast(type, hint), value, f"{where}.")
    if typing.get_origin(hint) is tuple:
        kinds = typing.get_args(hint)
        require(isinstance(value, (list, tuple)), f"'{where}' must be a list, not {shown(value)}.")
        if kinds[-1] is not Ellipsis:
            require(len(value) == len(kinds), f"'{where}' must have {len(kinds)} values.")
        else:
            kinds = (kinds[0],) * len(value)
        return tuple(_convert(k, v, where) for k, v in zip(kinds, value, strict=True))
    if isinstance(hint, types.UnionType):  # a type or None
        return None if value is None else _convert(typing.get_args(hint)[0], value, where)
    if hint is float and type(value) is int:
        value = float(value) if abs(value) < 1 << 1000 else math.inf
    name = getattr(hint, "__name__", str(hint))
    require(type(value) is hint, f"'{where}' must be of type {name}, not {shown(value)}.")
    require(hint is not float or math.isfinite(value), f"'{where}' must be finite, not {value}.")
    return value


def read_assignment(text: str) -> tuple[str, str, Any]:
    """Splits `section.key=value` and parses the value as YAML; raises ConfigError."""
    name, equals, value = text.partition("=")
    section, dot, key = name.strip().partition(".")
    changes = bool(equals and dot and key)
    require(changes, f"{shown(text)} is not an assignment: write section.key=value.")
    return section, key, _plain_number(_plain_values(value, f"The value of {shown(name)}"))


def _plain_number(value: Any) -> Any:
    """Converts numbers such as 5e-4, which YAML 1.1 reads as text because they lack a dot."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
