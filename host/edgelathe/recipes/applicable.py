"""Which steps there are for a format, which operators they change, and whether a profile's space is sound."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgelathe.core import recipe as grammar
from edgelathe.core.errors import UserError
from edgelathe.core.profile import Hardware
from edgelathe.model.types import Format
from edgelathe.recipes.resolve import resolve
from edgelathe.recipes.table import STEPS

_FORMATS: tuple[Format, ...] = ("onnx", "tflite")
_BARE = Hardware(None, frozenset())


def steps_by_op(format: Format, *, large: bool = False) -> Mapping[str, tuple[str, ...]]:
    """The steps that can change a layer, by the layer's operator; those of `large` models alone."""
    out: dict[str, list[str]] = {}
    for name, row in STEPS.items():
        for op in row[format].ops if format in row and (row[format].large or not large) else ():
            out.setdefault(op, []).append(name)
    return {op: tuple(names) for op, names in out.items()}


def check_space(recipes: Mapping[str, Iterable[str]], where: str) -> list[str]:
    """What is wrong with the recipes of a profile, one line each. `where` names its file."""
    problems = []
    for format in _FORMATS:
        for text in recipes.get(format, ()):
            try:
                resolve(grammar.parse(text), format, _BARE, f"{where}: recipes.{format}: '{text}'")
            except UserError as e:
                problems.append(str(e))
    return problems
