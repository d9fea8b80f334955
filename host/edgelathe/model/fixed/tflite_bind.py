"""Each TFLite operator bound to its kernels: one for the integers of the model, one without any rounding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.core.errors import nearest
from edgelathe.model.fixed.elementwise import quantize
from edgelathe.model.fixed.hybrid import HYBRID
from edgelathe.model.fixed.moves import MOVES
from edgelathe.model.fixed.real import REAL
from edgelathe.model.fixed.tflite_common import Fixed, Result
from edgelathe.model.fixed.tflite_kernels import FIXED
from edgelathe.model.fixed.types import Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model.fixed.tflite_graph import Site, Slot

Exact = Callable[[Sequence["NDArray[Any]"]], tuple["NDArray[Any]", ...]]
#: Which inputs an operator moves; of the others here only the first.
_MOVED: dict[str, slice] = {"CONCATENATION": slice(None), "PACK": slice(None), "SPLIT": slice(1, 2), "SHAPE": slice(0)}
#: Operators with a state that lives in the interpreter: 16-bit cells, gates with scales of their own (intermediates).
_STATES = frozenset(
    (
        "LSTM", "RNN", "SVDF", "UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN",
        "BIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_RNN",
    )
)  # fmt: skip
_CONTROL = frozenset(("WHILE", "IF", "CALL"))  # how converters write a GRU, and an LSTM that they do not know


@dataclass(frozen=True, eq=False)
class Step:
    """One operator, bound: with integers, and without rounding."""

    site: Site
    fixed: Fixed
    exact: Exact


def bind(site: Site) -> Step:
    """The operator's kernels. Raises UserError for one that is not simulated."""
    if site.op in _STATES or site.op in _CONTROL:
        why = (
            "it keeps a state from step to step, in integers of its own" if site.op in _STATES else "it runs a subgraph"
        )
        mend = "export it unrolled, each step as plain operators, or measure it on a device"
        raise site.refused(f"is not simulated: {why}", mend)
    return Step(site, _fixed(site), _exact(site))


def _fixed(site: Site) -> Fixed:
    if site.op in MOVES:
        return _move(site)
    if any(s.grid for s in site.outputs):
        return _integer(site)
    weights = site.optional(1)
    if site.op in HYBRID and weights is not None and weights.grid is None and weights.dtype != "float32":
        raise site.refused(f"has {weights.dtype} weights whose scales are not where they usually are (blockwise?)")
    if site.op in HYBRID and weights is not None and weights.grid is not None and not weights.assigned:
        hybrid = HYBRID[site.op](site)
        return lambda x: Result((hybrid(x),))
    return _between_grids(site)


def _move(site: Site) -> Fixed:
    _check_moved(site)
    grid = site.outputs[0].grid
    move = MOVES[site.op](site, grid.zero_point if grid else 0)
    return lambda x: Result(move(x))


def _integer(site: Site) -> Fixed:
    if site.op in FIXED and not _real_weights(site):
        return FIXED[site.op](site)
    if not site.outputs[0].assigned:
        raise site.refused("has no fixed-point kernel here" + _hint(site.op, FIXED))
    return _between_grids(site)


def _real_weights(site: Site) -> bool:
    """Whether a layer's weights are no constant integers: there is no kernel for that here."""
    return site.op in HYBRID and (site.input(1).constant is None or site.input(1).grid is None)


def _between_grids(site: Site) -> Fixed:
    """An operator that computes in float: its inputs become real, its output goes on the grid that it was assigned."""
    run, out = _exact(site), site.outputs[0].grid
    present = [s for s in site.inputs if s]

    def compute(x: Sequence[NDArray[Any]]) -> Result:
        made = run([Value(v, s.grid).real for v, s in zip(x, present, strict=True)])
        if out is None:
            return Result(made)
        data, clipped = quantize(made[0], out)
        return Result((data, *made[1:]), clipped)

    return compute


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


def moved(site: Site) -> tuple[Slot | None, ...]:
    """The inputs whose values an operator only moves."""
    return site.inputs[_MOVED.get(site.op, slice(1))]


def _check_moved(site: Site) -> None:
    """What only moves values cannot change their grid. Raises UserError where a file says so."""
    out = site.outputs[0].grid
    for slot in moved(site) if out else ():
        if slot and slot.grid and out and (slot.grid.scale, slot.grid.zero_point) != (out.scale, out.zero_point):
            raise site.refused("changes the scale of what it moves")
