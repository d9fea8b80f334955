"""The grid of every stored value of an integer plan, from one pass over the calibration samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgelathe.calibrate import ranges, scales, statistics
from edgelathe.compress.graph.moves import options_for
from edgelathe.compress.integer import effective

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

    from edgelathe.calibrate.scales import Grid
    from edgelathe.compress.integer.int8 import Options
    from edgelathe.compress.integer.qplan import Plan
    from edgelathe.compress.types import Context
    from edgelathe.model.types import Model

_INPUT_VALUES = 1 << 18  # of each input that its grid is fitted to


@dataclass(frozen=True, eq=False)
class Calibrated:
    """What the samples say: the grid of each stored value, and float means by name.

    `never`: names of stored values that no sample has; `constant`: of those that hold one number only, with it.
    """

    grid: dict[ir.Value, Grid]
    mean: dict[str, NDArray[np.float64] | None]
    never: frozenset[str] = frozenset()
    constant: Mapping[str, float] = field(default_factory=dict)


def calibrate(model: Model, plan: Plan, options: Options, context: Context) -> Calibrated:
    """One pass over the samples; then a grid for every value that other grids follow."""
    data = context.data
    assert data is not None
    wanted: dict[str, int | None] = {str(root.name): None for root in plan.grid.values()}
    if options.correct:
        for node in plan.weights:
            wanted[str(node.inputs[0].name)] = 1 if node.op_type == "Conv" else -1  # type: ignore[union-attr]  # has data
    model, parts = effective.beside(model, plan)
    for part in parts.values():
        wanted |= {part.seen: None, part.clamped: wanted.get(part.clamped)}
    seen, signed = ranges.collect(model, data, wanted), bool(options.signed)
    grid: dict[ir.Value, Grid] = {}
    roots = {str(root.name) for root in plan.grid.values()}
    for root in dict.fromkeys(plan.grid.values()):
        producer, name = root.producer(), str(root.name)
        own = (options_for(options, producer, context.overrides) if producer is not None else None) or options
        levels = 128 if options.symmetric and seen[name].low >= 0 else 256
        if own.scale == "auto" and name in parts:
            span = scales.seen(seen[parts[name].seen], seen[parts[name].clamped], levels)
        else:
            span = scales.RULES[own.scale](seen[name], levels, own.percentile)
        if options.symmetric:
            grid[root] = scales.symmetric(*span)
        elif root.is_graph_input():
            some = statistics.thin(data.inputs[name], _INPUT_VALUES)
            grid[root] = scales.fit(some, (span, (seen[name].low, seen[name].high)), signed)
        else:
            grid[root] = scales.affine(*span, signed)
    return Calibrated(
        {value: grid[root] for value, root in plan.grid.items()},
        {name: s.mean for name, s in seen.items()},
        frozenset(name for name in roots if not seen[name].samples),
        {name: seen[name].low for name in roots if seen[name].samples and seen[name].constant},
    )
