"""What is computed at one go: an operator, the clamps after it, and the grid that its output is stored on.

ONNX Runtime fuses DequantizeLinear, operator, Relu or Clip, QuantizeLinear into one integer kernel where nothing else
reads what lies between; so does the simulator, which never sees the real number in between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.model.fixed import onnx_float
from edgelathe.model.fixed.onnx_graph import LOAD, STORE, Graph, Node, grid, kind_of
from edgelathe.model.fixed.onnx_rescale import store
from edgelathe.model.fixed.types import Grid, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLAMPS = frozenset(("Relu", "Clip"))
# The stored numbers only change places: they keep their grid.
MOVES = frozenset(
    (
        "MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather", "GatherElements",
        "Split", "DepthToSpace", "SpaceToDepth", "Expand", "Tile", "Identity", "ReduceMax", "ReduceMin",
        "Resize", "Pad",
    )
)  # fmt: skip
_RANDOM = frozenset(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
)


@dataclass(frozen=True, eq=False)
class Unit:
    """One step of the walk.

    Attributes:
        node: the operator.
        low, high: what the clamps behind it leave; None: no bound.
        grid: of the output; None: it stays as it is.
        output: name of the tensor that the first output ends in, behind clamps and QuantizeLinear.
        clips: whether the grid is the file's own: float without rounding is still clamped by it, as quantizers leave
            the clamping of a Relu or a Clip to the grid.
    """

    node: Node
    low: float | None
    high: float | None
    grid: Grid | None
    output: str
    clips: bool

    @property
    def clamped(self) -> bool:
        """Whether a Relu or Clip belongs to it."""
        return self.low is not None or self.high is not None


def fold(graph: Graph) -> Graph:
    """The graph without nodes that only compute constants; weights behind DequantizeLinear become values on a grid."""
    kept = []
    for node in graph.nodes:
        inputs = [graph.constants.get(n) if n else None for n in node.inputs]
        known = node.inputs and all(v is not None or not n for v, n in zip(inputs, node.inputs, strict=True))
        if not known or node.op in _RANDOM or any(a.HasField("g") or a.graphs for a in node.proto.attribute):
            kept.append(node)
            continue
        for name, value in zip(node.outputs, constant(graph, node, inputs), strict=False):
            if name:
                graph.constants[name] = value
                if value.grid is not None and value.grid.bits <= 32:
                    graph.kinds[name] = value.grid.bits, value.grid.signed
    graph.nodes[:] = kept
    return graph


def constant(graph: Graph, node: Node, inputs: list[Value | None]) -> list[Value]:
    """What a node makes of constants."""
    first = inputs[0]
    if node.op in (STORE, LOAD) and first is not None:
        given = _grid(graph, node, inputs, first.data.ndim, first.data)
        if given is not None:
            return [Value(store(first.real, given)[0] if node.op == STORE else first.data, given)]
    if node.op == "Transpose" and first is not None and first.grid is not None and not first.grid.block:
        order = node.get("perm", list(range(first.data.ndim))[::-1])
        old = first.grid
        axis = None if old.axis is None else list(order).index(old.axis)
        turned = Grid(old.scales, old.zero_points, old.bits, old.signed, axis)
        return [Value(np.ascontiguousarray(first.data.transpose(order)), turned)]
    return [Value(a) for a in onnx_float.run(node, [None if v is None else v.real for v in inputs])]


def units(graph: Graph, grids: Mapping[str, Grid]) -> list[Unit]:
    """The steps of a folded graph. `grids`: tensors of a float model that are to be stored in integers."""
    readers, outputs = graph.readers(), set(graph.outputs)
    taken: set[int] = set()
    found = []
    for node in graph.nodes:
        if id(node) in taken:
            continue
        if node.op in (STORE, LOAD):
            found.append(Unit(node, None, None, None, node.outputs[0], True))
            continue
        name, low, high, grid_, clips = node.outputs[0], None, None, grids.get(node.outputs[0]), False
        while grid_ is None and name not in outputs and len(readers.get(name, ())) == 1:
            (reader,) = readers[name]
            if reader.op in CLAMPS and reader.inputs[0] == name and (ends := _bounds(graph, reader)) is not None:
                low = ends[0] if low is None else low if ends[0] is None else max(low, ends[0])
                high = ends[1] if high is None else high if ends[1] is None else min(high, ends[1])
                grid_ = grids.get(reader.outputs[0])
            elif reader.op == STORE and reader.inputs[0] == name:
                grid_ = known_grid(graph, reader)
                if grid_ is None or grid_.axis is not None:
                    grid_ = None
                    break
                clips = True
            else:
                break
            taken.add(id(reader))
            name = reader.outputs[0]
        found.append(Unit(node, low, high, grid_, name, clips))
    return found


def known_grids(graph: Graph, steps: Sequence[Unit], inputs: Mapping[str, Grid]) -> dict[str, Grid]:
    """The grid of every tensor that is surely stored in integers when it is read, before anything is computed."""
    found = dict(inputs)
    for unit in steps:
        node = unit.node
        if node.op == LOAD:
            given = known_grid(graph, node)
            if given is not None:
                found[unit.output] = given
        elif unit.grid is not None:
            found[unit.output] = unit.grid
        elif node.op in MOVES and node.inputs[0] in found and not unit.clamped:
            found |= {name: found[node.inputs[0]] for name in node.outputs if name}
    return found


def known_grid(graph: Graph, node: Node) -> Grid | None:
    """The grid of a QuantizeLinear or DequantizeLinear of activations; None where the model computes its scale."""
    return _grid(graph, node, [None, *(graph.constants.get(n) for n in node.inputs[1:])], None, None)


def _bounds(graph: Graph, node: Node) -> tuple[float | None, float | None] | None:
    """Where a Relu or Clip cuts; None where the model computes that."""
    rest = [graph.constants.get(n) if n else None for n in node.inputs[1:]]
    if any(v is None and n for v, n in zip(rest, node.inputs[1:], strict=True)):
        return None
    return onnx_float.bounds(node, [None if v is None else v.real for v in rest])


def _grid(
    graph: Graph, node: Node, inputs: list[Value | None], rank: int | None, data: NDArray[np.generic] | None
) -> Grid | None:
    """The grid of a QuantizeLinear or DequantizeLinear with constant scales; None where the model computes them."""
    scale = inputs[1] if len(inputs) > 1 else None
    zero = inputs[2] if len(inputs) > 2 else None
    if scale is None or (zero is None and len(node.inputs) > 2 and node.inputs[2]):
        return None
    kind = kind_of(graph, node, data if node.op == LOAD else None if zero is None else zero.data)
    return grid(node, np.asarray(scale.data), None if zero is None else zero.data, kind, rank)


def stored_grid(graph: Graph, node: Node, inputs: list[Value | None]) -> Grid | None:
    """The grid of a QuantizeLinear or DequantizeLinear at run time, whatever its scales come from."""
    first = inputs[0]
    assert first is not None
    return _grid(graph, node, inputs, first.data.ndim, first.data)
