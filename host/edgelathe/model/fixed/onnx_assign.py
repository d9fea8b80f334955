"""Grids for an ONNX model: weights and activations of any bit widths, without a file that holds them.

Weights are symmetric with a scale per output channel, activations have one grid from 0 (Jacob et al., 2018, 2.1) that
spans what samples reached. As in an integer file, what comes after the last layer with weights stays real.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.core.errors import UserError
from edgelathe.model import onnx as onnx_model
from edgelathe.model.fixed.onnx import OnnxProgram, program, ready
from edgelathe.model.fixed.onnx_expand import expand
from edgelathe.model.fixed.onnx_graph import LOAD, STORE, Graph, Node, read
from edgelathe.model.fixed.onnx_linear import OPERATORS
from edgelathe.model.fixed.onnx_norms import absorb
from edgelathe.model.fixed.onnx_rescale import Target
from edgelathe.model.fixed.onnx_units import CLAMPS, MOVES, fold, known_grid, known_grids, units
from edgelathe.model.fixed.types import Bits, Grid, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model.types import Model

Range = tuple[float, float]
_SMALLEST = 2.0**-100  # of a scale: products of two stay normal float32 numbers
_ON_THE_FLY = frozenset(
    ("DynamicQuantizeLinear", "DynamicQuantizeMatMul", "ConvInteger", "MatMulInteger", "MatMulNBits")
)


def requantized(
    model: Model,
    bits: Bits,
    samples: Mapping[str, NDArray[Any]],
    *,
    target: Target | None = None,
    grids: Mapping[str, Grid] | None = None,
    reference: Model | None = None,
) -> OnnxProgram:
    """A model with integer weights and activations of `bits`; None keeps those of the model.

    An integer model takes new widths from its own weights and from the ranges that its grids span.

    Args:
        model: float or QDQ; BatchNormalization behind a layer is folded into it, as targets do.
        bits: of weights and activations.
        samples: arrays [n, ...] by input name whose ranges the grids of a float model's activations span.
        target: what it is computed by.
        grids: of some tensors by name, in place of those.
        reference: the float model that an integer one was made from, where that is known.

    Raises UserError for a model that quantizes on the fly, or whose activations are not finite on the samples.
    """
    for asked in (bits.weights, bits.activations):
        if asked is not None and not 2 <= asked <= 16:
            raise UserError(model.name, f"{asked} bits cannot be simulated", "give 2 to 16")
    graph = expand(read(onnx_model.to_proto(model), model.name))
    found = next((n.op for n in graph.nodes if n.op in _ON_THE_FLY), None)
    if found:
        what = f"its grids are not in the file ({found})"
        raise UserError(model.name, what, "give the float model, or leave out the bit widths")
    chosen = dict(grids or {})
    integer = any(n.op in (STORE, LOAD) for n in graph.nodes)
    if integer and bits.activations is not None:
        regrid(graph, bits.activations)
    graph = absorb(fold(graph))
    if not integer and bits.activations is not None:
        wanted = stored(graph)
        seen = ranges(ready(graph, model, Target(), {}), samples, wanted, model.name)
        chosen = {name: affine(*seen[name], bits.activations) for name in wanted if name in seen} | chosen
    put_weights(graph, chosen, bits.weights)
    compared = None if reference is None else program(reference)
    return ready(graph, model, target or Target(), chosen, compared)


def stored(graph: Graph) -> set[str]:
    """Names of the tensors that become integer: all that layers with weights hang on, save those inside of a unit."""
    readers, wanted = graph.readers(), set()
    for node in reversed(graph.nodes):
        if weighted(graph, node) or any(o in wanted for o in node.outputs):
            wanted |= {n for n in node.inputs if n and n not in graph.constants}
    producers = {o: n for n in graph.nodes for o in n.outputs}
    inner = set()
    for name in wanted:
        near = readers.get(name, [])
        producer = producers.get(name)
        if producer is not None and producer.op in MOVES:
            inner.add(name)  # keeps the grid of what it moves
        elif len(near) == 1 and near[0].op in CLAMPS and name not in graph.outputs and producer is not None:
            inner.add(name)  # clamped before it is stored
    return wanted - inner - set(graph.outputs)


def weighted(graph: Graph, node: Node) -> bool:
    """Whether it is a layer of products with constant weights."""
    return node.op in OPERATORS and len(node.inputs) > 1 and node.inputs[1] in graph.constants


def ranges(ran: OnnxProgram, samples: Mapping[str, NDArray[Any]], names: set[str], where: str) -> dict[str, Range]:
    """Least and greatest value of float tensors over the samples. Raises UserError where one is not finite."""
    found: dict[str, Range] = {}

    def take(name: str, data: NDArray[Any]) -> None:
        if name not in names or data.dtype.kind != "f" or not data.size:
            return
        low, high = float(data.min()), float(data.max())
        if not np.isfinite([low, high]).all():
            raise UserError(where, f"value '{name}' is not finite on these samples", "check the preprocessing")
        old = found.get(name, (low, high))
        found[name] = min(old[0], low), max(old[1], high)

    n = len(next(iter(samples.values())))
    size = ran.batch or 16
    for start in range(0, n, size):
        rows = (
            np.minimum(np.arange(start, start + size), n - 1) if ran.batch else np.arange(start, min(n, start + size))
        )
        fed = {name: array[rows] for name, array in samples.items()}
        for name, array in fed.items():
            take(name, array)
        ran.run(fed, exact=False, hear=lambda name, value: take(name, value.data))
    return found


def affine(low: float, high: float, bits: int) -> Grid:
    """The grid of 2**bits integers from 0 that spans low..high and holds 0; an empty range gets scale 1."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32((high - low) / ((1 << bits) - 1)))
    if scale < _SMALLEST:
        return Grid.of(1.0, 0, bits, signed=False)
    return Grid.of(scale, min(max(round(-low / scale), 0), (1 << bits) - 1), bits, signed=False)


def symmetric(w: NDArray[Any], axis: int, bits: int, floor: NDArray[np.float64] | None = None) -> Value:
    """Weights in -(2**(bits-1) - 1)..2**(bits-1) - 1, a scale per index of `axis`, none below `floor`."""
    largest = (1 << (bits - 1)) - 1
    axes = tuple(i for i in range(w.ndim) if i != axis)
    scale = np.abs(w.astype(np.float64)).max(axis=axes) / largest
    scale = np.maximum(scale, _SMALLEST if floor is None else np.maximum(floor, _SMALLEST))
    grid = Grid(scale.astype(np.float32).astype(np.float64), np.zeros(scale.shape, np.int64), bits, axis=axis)
    return Value(np.clip(np.rint(w / grid.spread(grid.scales, w.shape)), -largest, largest).astype(np.int32), grid)


def regrid(graph: Graph, bits: int) -> None:
    """Put activations of an integer graph on grids of `bits` that span what their old ones do."""
    for index, node in enumerate(graph.nodes):
        if node.op not in (STORE, LOAD) or node.inputs[0] in graph.constants:
            continue
        old = known_grid(graph, node)
        if old is None or old.axis is not None or old.bits > 16:
            continue
        low, high = ((end - old.zero_point) * old.scale for end in (old.low, old.high))
        new = affine(low, high, bits)
        names = tuple(f"{node.inputs[1]}/{'/'.join(node.inputs[2:3])}/{kind}" for kind in ("scale", "zero"))
        graph.constants[names[0]] = Value(np.array(new.scale, np.float32))
        graph.constants[names[1]] = Value(np.array(new.zero_point))
        graph.kinds[names[1]] = bits, False
        attributes = {k: v for k, v in node.attributes.items() if k != "output_dtype"}
        graph.nodes[index] = replace(node, inputs=(node.inputs[0], *names), attributes=attributes)


def put_weights(graph: Graph, grids: Mapping[str, Grid], bits: int | None) -> None:
    """Give layers with constant weights integer ones of `bits` (None: their own), biases in units of both scales."""
    known = known_grids(graph, units(graph, grids), {n: g for n, g in grids.items() if n in graph.inputs})
    for index, node in enumerate(graph.nodes):
        held = graph.constants[node.inputs[1]] if weighted(graph, node) else None
        if held is None or held.real.dtype.kind != "f" or held.data.ndim < 2 or (bits is None and held.grid is None):
            continue
        grid, w = known.get(node.inputs[0]), held.real
        axis = {"Conv": 0, "Gemm": 0 if node.get("transB", 0) else 1, "MatMul": w.ndim - 1}[node.op]
        bias = graph.constants.get(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
        names, real = list(node.inputs), None if bias is None else bias.real
        floor = None
        if grid is None or real is None or real.ndim != 1 or node.get("beta", 1.0) != 1.0:
            real = None
        else:
            # The bias has to fit 32 bits in units of both scales, with room for the sum.
            floor = np.broadcast_to(np.abs(real.astype(np.float64)) / grid.scale / 2.0**30, (w.shape[axis],))
        if bits is not None:
            names[1] = f"{node.name}/weights"
            held = graph.constants[names[1]] = symmetric(w, axis, bits, floor)
            graph.originals[names[1]] = w
        if real is not None and grid is not None and held.grid is not None and held.grid.axis in (None, axis):
            names[2] = f"{node.name}/bias"
            scales = np.broadcast_to(held.grid.scales.reshape(-1) * grid.scale, (w.shape[axis],))
            unit = Grid(scales, np.zeros(scales.shape, np.int64), 32, axis=0)
            graph.constants[names[2]] = Value(unit.quantize(np.broadcast_to(real, scales.shape)), unit)
            graph.originals[names[2]] = real
        graph.nodes[index] = replace(node, inputs=tuple(names))
