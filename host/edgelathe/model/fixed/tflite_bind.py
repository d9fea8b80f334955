"""Each TFLite operator bound to its kernels: one for the integers of the model, one without any rounding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.core.errors import nearest
from edgelathe.model.fixed.hybrid import HYBRID
from edgelathe.model.fixed.moves import MOVES
from edgelathe.model.fixed.real import REAL
from edgelathe.model.fixed.tflite_kernels import FIXED, Fixed, Result
from edgelathe.model.fixed.types import Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model.fixed.tflite_graph import Site

Exact = Callable[[Sequence["NDArray[Any]"]], tuple["NDArray[Any]", ...]]
#: Which inputs an operator moves; of the others here only the first.
_MOVED: dict[str, slice] = {"CONCATENATION": slice(None), "PACK": slice(None), "SPLIT": slice(1, 2), "SHAPE": slice(0)}


@dataclass(frozen=True, eq=False)
class Step:
    """One operator, bound: with integers, and without rounding."""

    site: Site
    fixed: Fixed
    exact: Exact


def bind(site: Site) -> Step:
    """The operator's kernels. Raises UserError for one that is not simulated."""
    return Step(site, _fixed(site), _exact(site))


def _fixed(site: Site) -> Fixed:
    out = site.outputs[0].grid if site.outputs else None
    if site.op in MOVES:
        _check_moved(site)
        move = MOVES[site.op](site, out.zero_point if out else 0)
        return lambda x: Result(move(x))
    if out is not None:
        if site.op not in FIXED:
            raise site.refused("has no fixed-point kernel here" + _hint(site.op, FIXED))
        return FIXED[site.op](site)
    weights = site.optional(1)
    if site.op in HYBRID and weights is not None and weights.grid is not None:
        hybrid = HYBRID[site.op](site)
        return lambda x: Result((hybrid(x),))
    if site.op == "DEQUANTIZE":
        return lambda x: Result((Value(x[0], site.input(0).grid).real.astype(np.float32),))
    exact = _exact(site)
    return lambda x: Result(exact(x))


def _exact(site: Site) -> Exact:
    if site.op in MOVES:
        return MOVES[site.op](site, 0)
    if site.op in ("QUANTIZE", "DEQUANTIZE"):
        return lambda x: (x[0].astype(np.float32),)
    if site.op not in REAL:
        raise site.refused("is not simulated" + _hint(site.op, REAL))
    run = REAL[site.op](site)
    return lambda x: (run(x),)


def _hint(op: str, table: Mapping[str, object]) -> str:
    near = nearest(op, table, otherwise=" ").removeprefix("did you mean ").rstrip("? ")
    return f" ({near} has one)" if near else ""


def _check_moved(site: Site) -> None:
    """What only moves values cannot change their grid. Raises UserError where a file says so."""
    out = site.outputs[0].grid
    for slot in site.inputs[_MOVED.get(site.op, slice(1))] if out else ():
        if slot and slot.grid and out and (slot.grid.scale, slot.grid.zero_point) != (out.scale, out.zero_point):
            raise site.refused("changes the scale of what it moves")
