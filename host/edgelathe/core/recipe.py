"""The recipe grammar: text `step(option=value,...)+step(...)` and TOML, which say the same.

Only the form is checked here; whether steps, options and layers exist is known by `edgelathe.recipes`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field

from edgelathe.core.errors import UserError

Value = bool | int | float | str


@dataclass(frozen=True)
class Step:
    """One step: its name, its options as written, and options per layer name or glob."""

    use: str
    options: Mapping[str, Value] = field(default_factory=dict)
    layers: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)

    def __str__(self) -> str:
        inside = ",".join(f"{k}={_text(v)}" for k, v in self.options.items())
        return f"{self.use}({inside})" if inside else self.use


@dataclass(frozen=True)
class Recipe:
    """An ordered list of steps; the empty recipe is the uncompressed model.

    `session` is how the result is to be run (runtime, provider, threads and the runtime's own entries);
    `holdout` is the rule by which `fit` set calibration samples aside from the evaluation data, where it did.
    """

    steps: tuple[Step, ...] = ()
    session: Mapping[str, Value] = field(default_factory=dict)
    holdout: Mapping[str, Value] = field(default_factory=dict)

    def __str__(self) -> str:
        return "+".join(map(str, self.steps))


_TABLES = ("session", "holdout")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_OPTION = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_-]*)\s*=\s*([^,()=\s]+)\s*")


def parse(text: str) -> Recipe:
    """A recipe from its text form. Raises UserError naming the place where the text stops being a recipe."""
    steps, at = [], 0
    text = text.strip()
    while True:
        name = _NAME.match(text, at)
        if not name:
            raise _bad(text, at, "a step's name is missing")
        at, options = name.end(), {}
        if text[at : at + 1] == "(":
            close = text.find(")", at)
            if close < 0:
                raise _bad(text, at, "the bracket is not closed")
            for part in filter(str.strip, text[at + 1 : close].split(",")):
                pair = _OPTION.fullmatch(part)
                if not pair:
                    raise _bad(text, at, f"'{part.strip()}' is not option=value")
                if pair[1] in options:
                    raise _bad(text, at, f"'{pair[1]}' is said twice")
                options[pair[1]] = _value(pair[2])
            at = close + 1
        steps.append(Step(name[0], options))
        rest = text[at:].lstrip()
        if not rest:
            return Recipe(tuple(steps))
        if rest[0] != "+":
            raise _bad(text, at, f"'{rest[0]}' where '+' or the end was expected")
        at = len(text) - len(rest) + 1
        at += len(text[at:]) - len(text[at:].lstrip())


def from_toml(text: str, where: str) -> Recipe:
    """A recipe from `[[step]]` tables. `where` names the file in messages. Raises UserError."""
    try:
        doc = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise UserError(where, f"not TOML: {e}", "see `[[step]]` in docs/recipes.md") from None
    unknown = set(doc) - {"step", *_TABLES, "schema"}
    if unknown:
        raise UserError(where, f"unknown key '{min(unknown)}'", "a recipe has [[step]] tables")
    for table in _TABLES:
        if not isinstance(doc.get(table, {}), dict):
            raise UserError(f"{where}: {table}", "not a table", f"write [{table}]")
    steps = doc.get("step")
    if not isinstance(steps, list) or not all(isinstance(s, dict) for s in steps):
        raise UserError(where, "no [[step]] table", 'write [[step]] and use = "int8" below it')
    out = []
    for i, table in enumerate(steps):
        use, layers = table.pop("use", None), table.pop("layers", {})
        if not isinstance(use, str):
            raise UserError(f"{where}: step[{i}]", "no `use`", 'name the step, as in use = "int8"')
        for key, value in table.items():
            if not isinstance(value, Value):
                raise UserError(
                    f"{where}: step[{i}].{key}", f"{value!r} is no option value", "give a number, text or true/false"
                )
        if not isinstance(layers, dict) or not all(isinstance(v, dict) for v in layers.values()):
            raise UserError(f"{where}: step[{i}].layers", "not a table per layer", '[step.layers."name-or-glob"]')
        out.append(Step(use, table, layers))
    return Recipe(tuple(out), **{table: doc.get(table, {}) for table in _TABLES})


def to_toml(recipe: Recipe) -> str:
    """The TOML form: `from_toml` of it gives the same recipe."""
    lines = ['schema = "edgelathe.recipe/1"', ""]
    for table in _TABLES:
        if rows := getattr(recipe, table):
            lines += [f"[{table}]", *(f"{_key(k)} = {_toml(v)}" for k, v in rows.items()), ""]
    for step in recipe.steps:
        lines += [
            "[[step]]",
            f"use = {_toml(step.use)}",
            *(f"{_key(k)} = {_toml(v)}" for k, v in step.options.items()),
            "",
        ]
        for layer, options in step.layers.items():
            lines += [f"[step.layers.{_toml(layer)}]", *(f"{_key(k)} = {_toml(v)}" for k, v in options.items()), ""]
    return "\n".join(lines)


def _value(text: str) -> Value:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _toml(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    return repr(value)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key)


def _bad(text: str, at: int, what: str) -> UserError:
    return UserError(
        f"recipe '{text}'", f"{what} at character {at + 1}", "the form is step(option=value,...)+step(...)"
    )
