"""Grids of any bit widths for a TFLite model: for a float one from ranges on samples, for an integer one from its own.

Weights are symmetric with a scale per output channel. Activations of up to 8 bits are asymmetric, wider ones symmetric,
as in TFLite's quantization specification. Integer inputs and outputs of a model keep what the file says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.core.errors import UserError
from edgelathe.model.fixed import tflite, tflite_graph
from edgelathe.model.fixed.moves import MOVES
from edgelathe.model.fixed.simulate import chunk
from edgelathe.model.fixed.tflite_bind import moved
from edgelathe.model.fixed.types import Arithmetic, Bits, Grid

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from edgelathe.model.fixed.tflite_graph import Graph, Site, Slot
    from edgelathe.model.types import Model

Range = tuple[float, float]
#: The axis of weights that has a scale each.
CHANNEL = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0}
_BIAS = {"TRANSPOSE_CONV": 3}  # which input it is; of all others the third
_UNIT = {"SOFTMAX": 0, "LOGISTIC": 0, "TANH": 1}  # outputs of 0..1, or -1..1 with one bit for the sign
_SAME = frozenset((  # compute on one grid, as TFLite does
    "AVERAGE_POOL_2D", "MAX_POOL_2D", "MAXIMUM", "MINIMUM", "REDUCE_MAX", "REDUCE_MIN", "RESIZE_BILINEAR",
))  # fmt: skip
_SMALLEST = 2.0**-100  # of a scale: products of two stay normal float32 numbers


def grids(model: Model, bits: Bits, samples: Mapping[str, NDArray[Any]] | None) -> dict[int, Grid]:
    """The grid of every tensor that gets another than the file's, by its number.

    Args:
        model: float or integer.
        bits: of weights and activations; None: as the model has them, in a float model real.
        samples: arrays [n, ...] by input name, whose ranges the activations of a float model span.

    Raises:
        UserError: ranges are wanted and there are no samples, or they are not finite.
    """
    graph = tflite_graph.read(model, Arithmetic())
    real = all(s.grid is None for s in _slots(graph))
    found: dict[int, Grid] = {}
    if bits.activations is not None:
        ranges = _observed(model, samples) if real else _declared(graph)
        found |= _activations(graph, bits.activations, ranges)
    if bits.weights is not None:
        found |= {s.index: symmetric(s.exact, axis, bits.weights) for s, axis in _weights(graph) if s.exact is not None}
    return found


def spanning(low: float, high: float, bits: int) -> Grid:
    """The grid of an activation that spans low..high and 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    if bits > 8:
        scale = max(-low, high) / ((1 << (bits - 1)) - 1)
        return Grid.of(float(np.float32(scale)) if scale > _SMALLEST else 1.0, 0, bits)
    scale = float(np.float32((high - low) / ((1 << bits) - 1)))
    if scale < _SMALLEST:
        return Grid.of(1.0, 0, bits)
    first = -(1 << (bits - 1))
    return Grid.of(scale, min(max(round(first - low / scale), first), -first - 1), bits)


def symmetric(w: NDArray[Any], axis: int, bits: int) -> Grid:
    """The grid of weights: the largest of each channel at the last integer but one, so that both signs reach as far."""
    size = np.abs(w).max(axis=tuple(a for a in range(w.ndim) if a != axis)).astype(np.float64)
    scales = (size / ((1 << (bits - 1)) - 1)).astype(np.float32).astype(np.float64)
    return Grid(np.where(scales < _SMALLEST, 1.0, scales), np.zeros(len(scales), np.int64), bits, axis=axis)


def _slots(graph: Graph) -> Iterator[Slot]:
    yield from graph.inputs
    for site in graph.sites:
        yield from (s for s in (*site.inputs, *site.outputs) if s)


def _weights(graph: Graph) -> Iterator[tuple[Slot, int]]:
    for site in graph.sites:
        slot = site.optional(1)
        if site.op in CHANNEL and slot is not None and slot.constant is not None:
            yield slot, CHANNEL[site.op]


def _activations(graph: Graph, bits: int, ranges: Mapping[int, Range]) -> dict[int, Grid]:
    """One grid for each group of tensors that must share it. Those with an end of integer type keep the file's."""
    found: dict[int, Grid] = {}
    kept = {s.index for s in (*graph.inputs, *graph.outputs) if s.grid is not None}
    for group in _groups(graph, set(ranges)):
        if group.members & kept:
            continue
        grid = _unit(group.unit, bits) if group.unit else None
        if grid is None:
            ends = [ranges[i] for i in group.members]
            grid = spanning(min(e[0] for e in ends), max(e[1] for e in ends), bits)
        found |= dict.fromkeys(group.members, grid)
    return found


def _unit(op: str, bits: int) -> Grid:
    """The grid that TFLite wants of an output between -1 and 1."""
    sign = _UNIT[op] or bits > 8
    return Grid.of(2.0 ** -(bits - sign), 0 if sign else -(1 << (bits - 1)), bits)


@dataclass(frozen=True)
class Group:
    """Tensors that share a grid; `unit`: the operator that says which, "" where none does."""

    members: frozenset[int]
    unit: str


def _groups(graph: Graph, known: set[int]) -> list[Group]:
    """Tensors of `known` ranges, joined where an operator only moves values or computes on one grid."""
    parent = {i: i for i in known}

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for site in graph.sites:
        for a in _joined(site):
            for b in site.outputs:
                if a.index in parent and b.index in parent:
                    parent[root(a.index)] = root(b.index)
    units = {
        root(s.index): site.op for site in graph.sites if site.op in _UNIT for s in site.outputs if s.index in parent
    }
    members: dict[int, set[int]] = {}
    for i in known:
        members.setdefault(root(i), set()).add(i)
    return [Group(frozenset(m), units.get(r, "")) for r, m in members.items()]


def _joined(site: Site) -> list[Slot]:
    """The inputs whose grid the outputs share."""
    if site.op in MOVES:
        return [s for s in moved(site) if s]
    return [s for s in site.inputs if s] if site.op in _SAME else []


def _declared(graph: Graph) -> dict[int, Range]:
    """The ranges of an integer model's activations, from their grids; operands of sums and products too."""
    found: dict[int, Range] = {}
    for slot in _slots(graph):
        if slot.grid is not None and slot.grid.bits in (8, 16) and slot.grid.axis is None and _is_value(graph, slot):
            g = slot.grid
            found[slot.index] = ((g.low - g.zero_point) * g.scale, (g.high - g.zero_point) * g.scale)
    return found


def _is_value(graph: Graph, slot: Slot) -> bool:
    return slot.constant is None or slot.index not in {s.index for s, _ in _weights(graph)}


def _observed(model: Model, samples: Mapping[str, NDArray[Any]] | None) -> dict[int, Range]:
    """The smallest and largest value of every tensor of a float model on samples, constant operands among them."""
    if samples is None:
        raise UserError(model.name, "ranges of activations want samples", "give them with --calib")
    program = tflite.program(model, Arithmetic())
    skipped = {s.index for s, _ in _weights(program.graph)} | {
        s.index for site in program.graph.sites if site.op in CHANNEL and (s := site.optional(_BIAS.get(site.op, 2)))
    }
    found: dict[int, Range] = {}
    for slot in _slots(program.graph):
        if slot.exact is not None and slot.dtype == "float32" and slot.index not in skipped:
            found[slot.index] = (float(slot.exact.min(initial=0)), float(slot.exact.max(initial=0)))
    n, size = len(next(iter(samples.values()))), chunk(samples, program.batch)
    for start in range(0, n, size):
        rows = np.minimum(np.arange(start, start + size), n - 1)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # told below, by name
            for slot, values in program.exact({k: v[rows] for k, v in samples.items()}):
                if values.dtype.kind == "f":
                    low, high = found.get(slot.index, (0.0, 0.0))
                    found[slot.index] = float(np.minimum(low, values.min())), float(np.maximum(high, values.max()))
    bad = next((i for i, r in found.items() if not np.isfinite(r).all()), None)
    if bad is not None:
        name = next(s.name for s in _slots(program.graph) if s.index == bad)
        raise UserError(f"{model.name}: {name}", "is not finite on the samples", "check the data's preprocessing")
    return found
