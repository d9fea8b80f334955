"""Which layers of an integer ONNX model saturate on x86 without VNNI: a bound from the weights, shares from samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.model.fixed import onnx_linear, onnx_narrow
from edgelathe.model.fixed.onnx import OnnxProgram, prepared, ready
from edgelathe.model.fixed.onnx_narrow import Saturation
from edgelathe.model.fixed.onnx_rescale import Target
from edgelathe.model.fixed.onnx_units import known_grids
from edgelathe.model.fixed.simulate import chunk
from edgelathe.model.fixed.types import Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model.types import Model


@dataclass(frozen=True)
class Narrow:
    """One layer on a kernel that adds two products in saturating 16 bits.

    Attributes:
        layer: its name.
        op: Conv, Gemm or MatMul.
        reach: the furthest that two products can go, as a share of 16 bits; at most 1: it never saturates.
        channels: share of output channels that can saturate.
        seen: what happened on samples; None: none were given.
    """

    layer: str
    op: str
    reach: float
    channels: float
    seen: Saturation | None = None

    @property
    def share(self) -> float | None:
        """Share of sums of two products that saturated on the samples."""
        return None if self.seen is None else self.seen.share


def saturating(model: Model, samples: Mapping[str, NDArray[Any]] | None = None) -> tuple[Narrow, ...]:
    """Every layer that such a kernel computes, in order. `samples` are arrays [n, ...] by input name.

    Without samples only the weights are looked at, in a fraction of a second; with samples the model runs in fixed
    point as on such a machine: a layer gets what the layers before it make there.

    Raises UserError where the model cannot be simulated.
    """
    graph = prepared(model)
    program = ready(graph, model, Target(narrow=True), {})
    if samples is not None:
        n = len(next(iter(samples.values())))
        size = chunk(samples, program.batch)
        for start in range(0, n, size):
            rows = np.arange(start, start + size) if program.batch else np.arange(start, min(n, start + size))
            program.run({k: v[np.minimum(rows, n - 1)] for k, v in samples.items()}, exact=False)
    return tuple(_layers(program, seen=samples is not None))


def _layers(program: OnnxProgram, *, seen: bool) -> list[Narrow]:
    graph = program.graph
    grids = known_grids(graph, program.units, {})
    found = []
    for unit in program.units:
        node = unit.node
        if node.op not in onnx_linear.OPERATORS or node.domain or node.inputs[0] not in grids:
            continue
        weights = graph.constants.get(node.inputs[1])
        data = Value(np.zeros(0, np.int8), grids[node.inputs[0]])
        layer = onnx_linear.prepare(node, data, weights, None, constant=True)
        if layer is None or not onnx_linear.pairs_up(layer):
            continue
        largest = layer.grid.high - layer.grid.low
        reaches = onnx_narrow.reach(onnx_linear.rows(layer), largest)
        happened = program.saturation.get(node.name, Saturation()) if seen else None
        found.append(Narrow(node.name, node.op, float(reaches.max(initial=0)), float((reaches > 1).mean()), happened))
    return found
