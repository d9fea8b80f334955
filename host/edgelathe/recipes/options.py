"""A step's options as written, checked against the dataclass that declares them."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

from edgelathe.core.errors import UserError, nearest
from edgelathe.core.recipe import Value


def build(options: type[Any], written: Mapping[str, Value], where: str) -> Any:
    """An instance of `options` with the values `written`; dashes in names count as underscores.

    Raises UserError naming the option, the value seen and what would be right.
    """
    fields = {f.name: f for f in dataclasses.fields(options)}
    hints = get_type_hints(options)
    values = {}
    for name, value in written.items():
        key = name.replace("-", "_")
        if key not in fields:
            known = ", ".join(fields) or "none"
            raise UserError(where, f"unknown option '{name}'", nearest(name, fields, f"its options are: {known}"))
        values[key] = _checked(f"{where}: {name}", value, hints[key], fields[key].metadata)
    return options(**values)


def written(options: Any, *, defaults: bool = True) -> dict[str, Value]:
    """The options as values of a recipe: the inverse of `build`. Open choices (None) are left out."""
    out = {}
    for f in dataclasses.fields(options):
        value = getattr(options, f.name)
        if value is not None and (defaults or value != f.default):
            out[f.name] = value
    return out


def describe(options: type[Any]) -> list[tuple[str, str, str]]:
    """Name, default and help of each option, for `--help` and the reference."""
    return [
        (
            f.name,
            "open" if f.default is None else str(f.default).lower() if isinstance(f.default, bool) else str(f.default),
            _range(f.metadata, f.metadata.get("text", "")),
        )
        for f in dataclasses.fields(options)
    ]


def _checked(where: str, value: Value, hint: Any, meta: Mapping[str, Any]) -> Value:
    wanted = _kinds(hint)
    if float in wanted and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) not in wanted and str in wanted and not meta.get("choices"):
        value = str(value)
    if type(value) not in wanted:
        names = " or ".join(sorted(_words(k) for k in wanted))
        raise UserError(where, f"{value!r} is not {names}", _range(meta, "give " + names))
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(where, f"{value} is not a finite number", _range(meta, "give a number"))
    choices, low, high = meta.get("choices", ()), meta.get("low"), meta.get("high")
    if choices and value not in choices:
        raise UserError(where, f"'{value}' is no choice", nearest(str(value), map(str, choices)))
    if isinstance(value, int | float) and ((low is not None and value < low) or (high is not None and value > high)):
        raise UserError(where, f"{value} is out of range", _range(meta, "change it"))
    return value


def _kinds(hint: Any) -> frozenset[type]:
    if get_origin(hint) in (Union, types.UnionType):
        return frozenset().union(*map(_kinds, get_args(hint)))
    return frozenset() if hint is type(None) else frozenset({hint})


def _words(kind: type) -> str:
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}.get(kind, kind.__name__)


def _range(meta: Mapping[str, Any], text: str) -> str:
    low, high, choices = meta.get("low"), meta.get("high"), meta.get("choices")
    if choices:
        return f"{text} (one of {', '.join(map(str, choices))})"
    if low is not None and high is not None:
        return f"{text} ({low:g} to {high:g})"
    if low is not None or high is not None:
        return f"{text} ({'at least' if low is not None else 'at most'} {low if low is not None else high:g})"
    return text
