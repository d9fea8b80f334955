"""Write integer values into a graph as QuantizeLinear and DequantizeLinear, in as few bytes as ONNX Runtime fuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.calibrate.scales import Grid, affine, symmetric
from edgelathe.compress.graph.moves import Names, array, constant, drop, set_constant
from edgelathe.compress.graph.packed import Packer

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray

    from edgelathe.compress.weights.qweights import Stored

_LONG = 40  # characters; longer names of inner tensors (exporters join whole paths) give way to brief ones


class Writer:
    """Adds nodes to one graph; equal scales and zero points are one initializer."""

    def __init__(self, graph: ir.Graph, names: Names, *, symmetric: bool = False) -> None:
        """`symmetric`: no zero points, and biases stay float."""
        self._graph, self._names, self._symmetric = graph, names, symmetric
        self._shared: dict[tuple[Any, ...], ir.Value] = {}
        self._packer = Packer(graph, names)

    def value(self, value: ir.Value, grid: Grid, readers: set[ir.Node] | None) -> None:
        """Store a computed value in integers; `readers` (None: all, outputs of the model too) take it from there."""
        uses = [u for u in value.uses() if readers is None or u.node in readers]
        parameters = self._parameters(grid)
        stored = self._node("QuantizeLinear", [value, *parameters])
        real = self._node("DequantizeLinear", [stored.outputs[0], *parameters])
        producer = value.producer()
        if producer is None:
            self._graph.insert_before(self._graph[0], [stored, real])
        else:
            self._graph.insert_after(producer, [stored, real])
        for node, index in uses:
            node.replace_input_with(index, real.outputs[0])
        if readers is None and value.is_graph_output():
            self._become_output(value, real.outputs[0])

    def weights(self, node: ir.Node, stored: Stored, input_scale: float) -> None:
        """Put integer weights and bias in place of the layer's float ones."""
        # The format lets zero points of weights be left out or shared; QGemm needs them, and where ONNX Runtime makes
        # weights uint8 (x86 with exact products) it fails on shared ones.
        zero = constant(self._graph, np.zeros(stored.scale.shape, np.int8), self._names())
        integers = self._packed(stored)
        self._constant(node, 1, integers, [self._share(stored.scale), zero], stored.axis)
        if stored.bias is not None:
            scale = np.broadcast_to(stored.scale * np.float32(input_scale), stored.bias.shape)
            if self._symmetric:
                set_constant(node, 2, (stored.bias * scale).astype(np.float32), self._names)
                return
            self._constant(node, 2, stored.bias, [self._share(scale.astype(np.float32))], 0)

    def _packed(self, stored: Stored) -> NDArray[np.int8] | ir.Value:
        """The integers as they are where they take 8 bits, else a value that unpacks them."""
        if stored.bits == 8:
            return stored.weights
        if stored.values is None or stored.offset is None:
            return self._packer.integers(stored.weights, stored.bits, np.int8)
        offset = stored.offset if stored.axis is not None else stored.offset[:1]
        return self._packer.moved(stored.weights, stored.bits, stored.values, offset, stored.axis)

    def operand(self, node: ir.Node, index: int, signed: bool) -> None:
        """Store a constant operand of a layer without weights, with one scale."""
        data = array(node.inputs[index])
        assert data is not None
        low, high = float(data.min()), float(data.max())
        grid = symmetric(low, high) if self._symmetric else affine(low, high, signed)
        # Asked for exact products on x86, ONNX Runtime makes int8 constants uint8, and fails on shared zeros.
        scale, shared = self._parameters(grid)
        zero = constant(self._graph, np.asarray(array(shared)), self._names())
        self._constant(node, index, grid.store(data), [scale, zero], None)

    def _constant(
        self,
        node: ir.Node,
        index: int,
        data: NDArray[Any] | ir.Value,
        parameters: list[ir.Value],
        axis: int | None,
    ) -> None:
        """Put integers in place of a layer's constant."""
        old = node.inputs[index]
        name = old.name if old is not None and old.name and len(old.name) <= _LONG and len(old.uses()) == 1 else None
        if name:
            del self._graph.initializers[name]
        value = constant(self._graph, data, name or self._names()) if isinstance(data, np.ndarray) else data
        attributes = {"axis": axis} if axis is not None and axis != 1 else {}
        real = self._node("DequantizeLinear", [value, *parameters], attributes)
        self._graph.insert_before(node, real)
        node.replace_input_with(index, real.outputs[0])
        if name:
            drop(old)

    def _parameters(self, grid: Grid) -> list[ir.Value]:
        # uint8 with zero point 0 is the default, but the kernels of Reshape and Gemm are only found with it written.
        zero = np.array(grid.zero, np.int8 if grid.signed else np.uint8)
        return [self._share(np.array(grid.scale, np.float32)), self._share(zero)]

    def _share(self, data: NDArray[Any]) -> ir.Value:
        key = (data.dtype.str, data.shape, data.tobytes())
        if key not in self._shared:
            self._shared[key] = constant(self._graph, data, self._names())
        return self._shared[key]

    def _node(self, op: str, inputs: list[ir.Value], attributes: Mapping[str, Any] | None = None) -> ir.Node:
        import onnx_ir as ir

        node = ir.node(op, inputs, attributes or {}, name=self._names())
        node.outputs[0].name = self._names()
        return node

    def _become_output(self, value: ir.Value, real: ir.Value) -> None:
        name, brief = value.name, real.name
        value.name, real.name = brief, name
        real.type, real.shape = value.type, value.shape
        outputs = self._graph.outputs
        outputs[outputs.index(value)] = real


def finish(model: ir.Model, names: Names) -> None:
    """Drop what nothing reads; shorten long names of inner tensors and weights. Nodes, inputs, outputs keep theirs."""
    import onnx_ir.passes.common as passes

    passes.RemoveUnusedNodesPass()(model)
    graph = model.graph
    for value in tuple(graph.initializers.values()):
        if value.name and len(value.name) > _LONG and not value.is_graph_output():
            del graph.initializers[value.name]
            value.name = names()
            graph.register_initializer(value)
    for node in graph:
        for value in node.outputs:
            if value.name and len(value.name) > _LONG and not value.is_graph_output():
                value.name = names()
