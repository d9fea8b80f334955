"""Integers of 1 to 8 bits stored packed in an ONNX file, without a wasted bit, and unpacked by standard operators.

ONNX Runtime computes the unpacking once, when the session loads (constant folding, before it fuses DequantizeLinear
into integer kernels), so the model runs as if the values were stored plainly. Where optimizations are off it is
computed in every run: slower, equal values. The operators are those of opset 11, so no newer type is needed.

Forms, chosen for few nodes and for narrow values in between, as each node copies its output at load:
1, 2 and 4 bits lie in planes: byte j of m holds the values j, m + j, 2m + j, ..., which two shifts bring out.
3, 5, 6 and 7 bits lie in words of 3, 5 or 7 bytes, which a product with powers of 256 makes, then two shifts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.graph.moves import array, constant

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir
    from numpy.typing import DTypeLike, NDArray

    from edgelathe.compress.graph.moves import Names

#: Values that lie in one byte or in one word, by bits.
GROUP = {1: 8, 2: 4, 3: 8, 4: 2, 5: 8, 6: 4, 7: 8, 8: 1}
# Values that are looked up at once, by bits: fewer steps at load, for a table of all their combinations.
_JOINED = {1: 4, 2: 2, 3: 2, 4: 2, 5: 1, 6: 1, 7: 1, 8: 1}


class Packer:
    """Puts packed constants into one graph; what their unpacking has in common is stored once."""

    def __init__(self, graph: ir.Graph, names: Names) -> None:
        self._graph, self._names = graph, names
        self._shared: dict[tuple[Any, ...], ir.Value] = {}
        self._last: ir.Node | None = None

    def integers(self, integers: NDArray[Any], bits: int, dtype: DTypeLike) -> ir.Value:
        """A value of the array's shape and of the integer type `dtype`.

        Integers lie in 0 .. 2**bits - 1, or where there is a negative one in -2**(bits-1) .. 2**(bits-1) - 1.
        Raises ValueError for others.
        """
        low = -(1 << (bits - 1)) if integers.size and integers.min() < 0 else 0
        self._check(integers, bits, low)
        wanted = np.dtype(dtype)
        if bits == 8:
            plain = integers.astype(np.int8 if low else np.uint8)
            return self._cast(constant(self._graph, plain, self._names()), plain.dtype, wanted)
        if low:
            table = np.arange(low, -low, dtype=np.int8)
            return self._cast(self.lookup(integers.astype(np.int64) - low, bits, table), table.dtype, wanted)
        flat, made = self._unsigned(integers.reshape(-1), bits)
        return self._shaped(self._cast(flat, made, wanted), integers.shape)

    def moved(
        self, integers: NDArray[np.int8], bits: int, values: Sequence[int], offset: NDArray[np.int8], axis: int | None
    ) -> ir.Value:
        """An int8 value of the array's shape, whose integers are `values`, ascending, moved by `offset` along `axis`.

        `offset` is int8 [channels], or of one number where `axis` is None. Raises ValueError for other integers.
        """
        import onnx_ir as ir

        table = np.asarray(values, np.int8)
        along = offset.reshape([-1 if i == axis else 1 for i in range(integers.ndim)])
        plain = integers.astype(np.int64) - along
        indices = np.searchsorted(table, plain).clip(0, len(table) - 1)
        if (table[indices] != plain).any():
            raise ValueError("integers that are none of the values")
        if not offset.any():
            return self.lookup(indices, bits, table)
        found = self.lookup(indices, bits, table.astype(np.int32))
        by = self._cast(self._constant(along), np.dtype(np.int8), np.dtype(np.int32))
        return self.node("Cast", [self.node("Add", [found, by])], to=ir.DataType.INT8)

    def lookup(self, indices: NDArray[Any], bits: int, table: NDArray[Any]) -> ir.Value:
        """`table[indices]` for a table of one axis and of any type, with the indices stored in `bits` each.

        Several indices are looked up at once in a table of their combinations, which is made at load too. Raises
        ValueError for indices outside of the table or of the bits.
        """
        self._check(indices, min(bits, 8), 0)
        if indices.size and indices.max() >= len(table):
            raise ValueError(f"index {indices.max()} in a table of {len(table)}")
        joined, flat = _JOINED[bits], indices.reshape(-1)
        padded = np.zeros(-(-flat.size // joined) * joined, np.int64)
        padded[: flat.size] = flat
        units = (padded.reshape(-1, joined) << (bits * np.arange(joined))).sum(axis=1)
        if joined > 1:  # filled up, so that tables of any length share their combinations
            table = np.concatenate([table, np.repeat(table[-1:], (1 << bits) - len(table))])
        rows = self._rows(table, bits) if joined > 1 else self._share(table)
        stored, made = self._unsigned(units, bits * joined)
        out = self._node("Gather", [rows, self._cast(stored, made, np.dtype(np.int32))])
        if padded.size > flat.size:
            out = self._cut(self._node("Reshape", [out, self._share(np.array([-1], np.int64))]), flat.size)
        return self._shaped(out, indices.shape)

    def _unsigned(self, flat: NDArray[Any], bits: int) -> tuple[ir.Value, np.dtype[Any]]:
        """Values [n] of `bits` each as a value whose elements are these in order, and the type that they have."""
        if bits == 8:
            return self._constant(flat.astype(np.uint8)), np.dtype(np.uint8)
        group = GROUP[bits]
        padded = np.zeros(-(-flat.size // group) * group, np.uint64)
        padded[: flat.size] = flat
        planes = padded.reshape(group, -1)
        count = group * bits // 8
        word = np.dtype(np.uint8 if count == 1 else np.uint32 if count <= 4 else np.uint64)
        places = np.arange(group, dtype=np.uint64)[:, None] * np.uint64(bits)
        words = (planes << places).sum(axis=0, dtype=np.uint64)
        of_byte = np.arange(count, dtype=np.uint64)[:, None] * np.uint64(8)
        value = self._constant(((words >> of_byte) & np.uint64(255)).astype(np.uint8))
        if count > 1:
            powers = (np.uint64(1) << of_byte).astype(word).reshape(1, count)
            value = self._node("MatMul", [self._share(powers), self._cast(value, np.dtype(np.uint8), word)])
        top = 8 * word.itemsize - bits
        up = self._share((np.uint64(top) - places).astype(word))
        value = self._node("BitShift", [value, up], direction="LEFT")
        value = self._node("BitShift", [value, self._share(np.array(top, word))], direction="RIGHT")
        if padded.size > flat.size:
            value = self._node("Reshape", [value, self._share(np.array([-1], np.int64))])
            value = self._cut(value, flat.size)
        elif flat.size != planes.shape[1]:
            value = self._node("Reshape", [value, self._share(np.array([flat.size], np.int64))])
        return value, word

    def _rows(self, table: NDArray[Any], bits: int) -> ir.Value:
        """[2**(bits * joined), joined]: what each unit stands for."""
        key = ("rows", bits, table.dtype.str, table.tobytes())
        return self._once(key, lambda: self._node("Gather", [self._share(table), self._combinations(bits)]))

    def _combinations(self, bits: int) -> ir.Value:
        """int32 [2**(bits * joined), joined]: the indices that lie in each unit."""
        joined = _JOINED[bits]
        units = np.arange(1 << (bits * joined))[:, None]
        rows = ((units >> (bits * np.arange(joined))) & ((1 << bits) - 1)).astype(np.uint8)
        return self._once(
            ("combinations", bits), lambda: self._cast(self._constant(rows), rows.dtype, np.dtype(np.int32))
        )

    def node(self, op: str, inputs: Sequence[ir.Value | NDArray[Any]], **attributes: Any) -> ir.Value:
        """The output of one more operator on values and on constants, computed at load as the rest."""
        values = [self._share(v) if isinstance(v, np.ndarray) else v for v in inputs]
        return self._node(op, values, **attributes)

    def _shaped(self, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        return self._node("Reshape", [value, self._share(np.array(shape, np.int64))])

    def _cut(self, value: ir.Value, size: int) -> ir.Value:
        return self._node(
            "Slice", [value, self._share(np.array([0], np.int64)), self._share(np.array([size], np.int64))]
        )

    def _cast(self, value: ir.Value, have: np.dtype[Any], wanted: np.dtype[Any]) -> ir.Value:
        import onnx_ir as ir

        return value if have == wanted else self._node("Cast", [value], to=ir.DataType.from_numpy(wanted))

    def _node(self, op: str, inputs: list[ir.Value], **attributes: Any) -> ir.Value:
        """One more node, behind the packer's earlier ones and in front of the model's own."""
        import onnx_ir as ir

        node = ir.node(op, inputs, attributes)
        node.outputs[0].name = self._names()
        if self._last is not None:
            self._graph.insert_after(self._last, node)
        elif len(self._graph):
            self._graph.insert_before(self._graph[0], node)
        else:
            self._graph.append(node)
        node.name = None  # the graph has made up a long one
        self._last = node
        return node.outputs[0]

    def _constant(self, data: NDArray[Any]) -> ir.Value:
        return constant(self._graph, data, self._names())

    def _share(self, data: NDArray[Any]) -> ir.Value:
        key = (data.dtype.str, data.shape, data.tobytes())
        return self._once(key, lambda: self._constant(data))

    def _once(self, key: tuple[Any, ...], make: Callable[[], ir.Value]) -> ir.Value:
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    @staticmethod
    def _check(integers: NDArray[Any], bits: int, low: int) -> None:
        if bits not in GROUP:
            raise ValueError(f"{bits} bits; 1 to 8 can be packed")
        if integers.size and (integers.min() < low or integers.max() > low + (1 << bits) - 1):
            raise ValueError(f"integers {integers.min()} to {integers.max()} do not fit {bits} bits")


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that `count` integers of `bits` take in the file, the nodes that unpack them left out."""
    return -(-count // GROUP[bits]) * GROUP[bits] * bits // 8


def bits_of(value: ir.Value | None, count: int) -> int | None:
    """The bits that each of `count` integers has in the file, where a `Packer` made the value; else None."""
    node = value.producer() if value is not None else None
    if node is None:
        return None
    while node is not None:  # back to the bytes: past tables, powers and numbers of places
        at = node.inputs[1 if node.op_type in ("Gather", "MatMul") else 0]
        node = at.producer() if at is not None else None
    data = array(at)
    return None if data is None or data.dtype != np.uint8 or not count else max(1, data.size * 8 // count)
