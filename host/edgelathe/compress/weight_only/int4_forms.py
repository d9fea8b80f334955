"""Weights in blocks as they stand in a graph: ONNX Runtime's own operator, standard int4, or unpacked at load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.graph import moves as g

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from edgelathe.compress.graph.packed import Packer
    from edgelathe.compress.weights.blockwise import Blocks, Form

DOMAIN = "com.microsoft"
#: Of ONNX's own operators, for int4 tensors and for scales by block.
OPSET, IR_VERSION = 21, 10
_INT8 = 4  # MatMulNBits' accuracy level: activations are quantized to int8, block by block


def size(shape: Sequence[int], form: Form) -> int:
    """Bytes of weights [rows, inputs] in the file, scales and zero points with them, nodes not counted; about."""
    rows, inputs = shape
    blocks = -(-inputs // form.block)
    zeros = 0 if form.symmetric else rows * -(-blocks * form.bits // 8)
    return rows * blocks * (form.block * form.bits // 8 + (2 if form.half else 4)) + zeros


class Products:
    """Rewrites MatMul and Gemm in one graph; weights that several layers read are stored once."""

    def __init__(self, graph: ir.Graph, names: g.Names) -> None:
        self._graph, self._names = graph, names
        self._stored: dict[Blocks, list[ir.Value]] = {}

    def nbits(self, node: ir.Node, blocks: Blocks, *, integer: bool) -> None:
        """`MatMulNBits`, which keeps weights in 4 bits in memory; `integer`: it quantizes activations as they come.

        Layout (ContribOperators.md, com.microsoft.MatMulNBits): B uint8 [N, blocks, block / 2], the first of two codes
        in the low bits; scales [N, blocks]; zero points uint8 [N, blocks / 2 rounded up], packed likewise.
        """
        import onnx_ir as ir

        rows, inputs = blocks.codes.shape
        stored = self._once(blocks, self._nbits_values)
        product = self._product(node)
        product.op_type, product.domain = "MatMulNBits", DOMAIN
        level = {"accuracy_level": _INT8} if integer else {}
        settings = {"K": inputs, "N": rows, "bits": blocks.form.bits, "block_size": blocks.form.block, **level}
        for key, value in settings.items():
            product.attributes.add(ir.AttrInt64(key, value))
        product.resize_inputs(1 + len(stored))
        for i, value_ in enumerate(stored):
            product.replace_input_with(i + 1, value_)

    def qdq(self, node: ir.Node, blocks: Blocks) -> None:
        """Standard int4 weights [inputs, outputs] (opset 21), made real by blocks of inputs in front of a MatMul."""
        import onnx_ir as ir

        product = self._product(node)
        product.op_type = "MatMul"
        if product is not node:
            self._subtract(node)
        settings = {"axis": 0, "block_size": blocks.form.block}
        real = ir.node("DequantizeLinear", self._once(blocks, self._qdq_values), settings, name=self._names())
        real.outputs[0].name = self._names()
        self._graph.insert_before(product, real)
        product.replace_input_with(1, real.outputs[0])

    def _nbits_values(self, blocks: Blocks) -> list[ir.Value]:
        pairs = blocks.padded().reshape(*blocks.scale.shape, -1, 2)
        out = [self._constant(pairs[..., 0] | (pairs[..., 1] << 4)), self._scale(blocks)]
        if not blocks.form.symmetric:
            rows, count = blocks.zero.shape
            zero = np.zeros((rows, count + count % 2), np.uint8)
            zero[:, :count] = blocks.zero
            out.append(self._constant(zero[:, ::2] | (zero[:, 1::2] << 4)))
        return out

    def _scale(self, blocks: Blocks) -> ir.Value:
        """Scales [N, blocks] as float32; where they are stored as float16 a Cast, which is computed once, at load."""
        import onnx_ir as ir

        if not blocks.form.half:
            return self._constant(blocks.scale)
        cast = ir.node("Cast", [self._constant(blocks.scale.astype(np.float16))], {"to": ir.DataType.FLOAT})
        cast.name, cast.outputs[0].name = self._names(), self._names()
        self._graph.insert_before(self._graph[0], cast)
        return cast.outputs[0]

    def _qdq_values(self, blocks: Blocks) -> list[ir.Value]:
        import ml_dtypes

        scale, codes, zero = (np.ascontiguousarray(v.T) for v in (blocks.scale, blocks.codes, blocks.zero))
        if blocks.form.symmetric:
            signed = codes.astype(np.int8) - np.int8(blocks.form.middle)
            return [self._constant(signed.astype(ml_dtypes.int4)), self._constant(scale)]
        return [self._constant(v) for v in (codes.astype(ml_dtypes.uint4), scale, zero.astype(ml_dtypes.uint4))]

    def _product(self, node: ir.Node) -> ir.Node:
        """The node that multiplies: the layer's own, or one in front of it, and its own adds the bias.

        ONNX Runtime takes the sum into the product (MatMulNBits has an input for it) where its kernel can.
        """
        import onnx_ir as ir

        bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
        node.attributes.clear()
        if bias is None:
            node.resize_inputs(2)
            return node
        product = ir.node("MatMul", list(node.inputs[:2]), name=self._names())
        product.outputs[0].name = self._names()
        self._graph.insert_before(node, product)
        node.op_type = "Add"
        node.resize_inputs(2)
        node.replace_input_with(0, product.outputs[0])
        node.replace_input_with(1, bias)
        return product

    def _subtract(self, node: ir.Node) -> None:
        """Let the node take away a constant bias of the other sign: ONNX Runtime would make a product and an Add one
        Gemm, which it has no 4-bit kernel for."""
        bias = g.array(node.inputs[1])
        if bias is not None:
            node.op_type = "Sub"
            node.replace_input_with(1, self._constant(-bias))

    def _once(self, blocks: Blocks, make: Callable[[Blocks], list[ir.Value]]) -> list[ir.Value]:
        if blocks not in self._stored:
            self._stored[blocks] = make(blocks)
        return self._stored[blocks]

    def _constant(self, data: NDArray[Any]) -> ir.Value:
        return g.constant(self._graph, data, self._names())


def unpacked(packer: Packer, blocks: Blocks, shape: Sequence[int], axis: int) -> ir.Value:
    """The weights as float32 of `shape`, whose axis `axis` counts the rows; the runtime computes them once, at load."""
    import onnx_ir as ir

    codes, form = blocks.padded(), blocks.form
    if form.bits == 8:
        value = packer.integers(codes.astype(np.int16) - form.middle, 8, np.float32)
    else:
        table = np.arange(form.top + 1, dtype=np.float32)
        value = packer.lookup(codes, form.bits, table - form.middle if form.symmetric else table)
        if not form.symmetric:
            value = packer.node("Sub", [value, packer.lookup(blocks.zero[:, :, None], form.bits, table)])
    scale: ir.Value | NDArray[Any] = blocks.scale[:, :, None]
    if form.half:
        scale = packer.node("Cast", [blocks.scale[:, :, None].astype(np.float16)], to=ir.DataType.FLOAT)
    value = packer.node("Mul", [value, scale])
    rows, inputs = blocks.codes.shape
    if codes.size != blocks.codes.size:
        value = packer.node("Reshape", [value, np.array([rows, -1], np.int64)])
        ends = (np.array([n], np.int64) for n in (0, inputs, 1))
        value = packer.node("Slice", [value, *ends])
    moved = [shape[axis], *(n for i, n in enumerate(shape) if i != axis)]
    value = packer.node("Reshape", [value, np.array(moved, np.int64)])
    if axis == 0:
        return value
    order = list(range(1, len(shape)))
    order.insert(axis, 0)
    return packer.node("Transpose", [value], perm=order)
