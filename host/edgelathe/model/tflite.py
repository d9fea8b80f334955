"""TFLite files as frozen values, read without trusting the file. Source: TFLite schema, version 3 (schema.fbs)."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.core.signature import Signature, TensorInfo
from edgelathe.model.flatbuffer import FormatError, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

# TensorType of the schema: numpy's name, bits per element (0: of no fixed size).
TYPES: dict[int, tuple[str, int]] = {
    0: ("float32", 32), 1: ("float16", 16), 2: ("int32", 32), 3: ("uint8", 8), 4: ("int64", 64), 5: ("str", 0),
    6: ("bool", 8), 7: ("int16", 16), 8: ("complex64", 64), 9: ("int8", 8), 10: ("float64", 64),
    11: ("complex128", 128), 12: ("uint64", 64), 13: ("resource", 0), 14: ("variant", 0), 15: ("uint32", 32),
    16: ("uint16", 16), 17: ("int4", 4), 18: ("bfloat16", 16), 19: ("int2", 2), 20: ("uint4", 4),
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """One tensor. `shape` has None for an open axis; `nbytes` is what its constant takes in the file, 0 if none."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    buffer: int
    nbytes: int
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()
    axis: int = 0

    @property
    def constant(self) -> bool:
        """Whether the file holds its values."""
        return self.nbytes > 0

    @property
    def elements(self) -> int:
        """Number of values; an open axis counts as 1."""
        return math.prod(1 if d is None else d for d in self.shape)


@dataclass(frozen=True)
class Operator:
    """One operation: the schema's name (or the custom code), tensor indices of its subgraph (-1: left out).

    `options`: the table of its own options, by the field numbers of the schema; None where it has none.
    """

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    custom: bool = False
    options: Table | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Subgraph:
    """Tensors, operations in order, and the tensors that go in and out."""

    name: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Parsed:
    """A whole file. `buffers` are views on its bytes; subgraph 0 is the one that runs."""

    subgraphs: tuple[Subgraph, ...]
    buffers: tuple[NDArray[np.uint8], ...] = field(repr=False)
    description: str = ""

    @property
    def main(self) -> Subgraph:
        """The subgraph that an interpreter runs."""
        return self.subgraphs[0]


def parse(data: bytes) -> Parsed:
    """A TFLite file, every offset and index checked. Raises FormatError (a ValueError) saying what is wrong with it."""
    if data[4:8] != b"TFL3":
        raise FormatError("no TFL3 mark at byte 4")
    root = Table.root(data)
    if root.number(0, "I") != 3:
        raise FormatError(f"schema version {root.number(0, 'I')} instead of 3")
    buffers = tuple(_buffer(data, b) for b in root.tables(4))
    codes = [_code(c) for c in root.tables(1)]
    subgraphs = tuple(_subgraph(g, codes, buffers) for g in root.tables(2))
    if not subgraphs:
        raise FormatError("it holds no subgraph")
    _check_rest(root, len(buffers), subgraphs)
    return Parsed(subgraphs, buffers, root.text(3))


def signature(parsed: Parsed) -> Signature:
    """Inputs and outputs of the subgraph that runs, in the file's order."""
    return Signature(
        tuple(_info(parsed.main.tensors[i]) for i in parsed.main.inputs),
        tuple(_info(parsed.main.tensors[i]) for i in parsed.main.outputs),
    )


@functools.cache
def op_names() -> dict[int, str]:
    """BuiltinOperator of the schema: names by number."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    return {v: k for k, v in vars(BuiltinOperator).items() if isinstance(v, int)}


def _buffer(data: bytes, table: Table) -> NDArray[np.uint8]:
    # Files over 2 GB keep their buffers behind the FlatBuffer, by offset and size; offset 1 stands for "empty".
    offset, size = table.number(1, "Q"), table.number(2, "Q")
    if offset > 1:
        if offset + size > len(data):
            raise FormatError(f"a buffer of {size} bytes at byte {offset} reaches beyond the end ({len(data)} bytes)")
        return np.frombuffer(data, np.uint8, size, offset)
    values = table.array(0, "u1")
    return np.empty(0, np.uint8) if values is None else values.view(np.uint8)


def _code(table: Table) -> tuple[str, bool]:
    number = max(table.number(3, "i"), table.number(0, "b"))
    if number == 32:  # CUSTOM
        return table.text(1) or "CUSTOM", True
    if number not in op_names():
        raise FormatError(f"operation number {number} is unknown")
    return op_names()[number], False


def _subgraph(table: Table, codes: list[tuple[str, bool]], buffers: tuple[NDArray[np.uint8], ...]) -> Subgraph:
    tensors = tuple(_tensor(t, buffers) for t in table.tables(0))
    operators = tuple(_operator(o, codes, len(tensors)) for o in table.tables(3))
    inputs, outputs = (_indices(table, f, len(tensors), -1) for f in (1, 2))
    if not outputs:
        raise FormatError("a subgraph has no output")
    return Subgraph(table.text(4), tensors, operators, inputs, outputs)


def _tensor(table: Table, buffers: tuple[NDArray[np.uint8], ...]) -> Tensor:
    name, shape = table.text(3), table.numbers(0, "<i4")
    kind, buffer = table.number(1, "b"), table.number(2, "I")
    if kind not in TYPES:
        raise FormatError(f"tensor '{name}' has unknown type {kind}")
    if buffer >= len(buffers):
        raise FormatError(f"tensor '{name}' wants buffer {buffer} of {len(buffers)}")
    dtype, bits = TYPES[kind]
    dims: list[int | None] = [None if d < 0 else d for d in table.numbers(7, "<i4") or shape]
    nbytes = buffers[buffer].nbytes
    sparsity = table.table(6)
    want = (math.prod(d or 0 for d in dims) * bits + 7) // 8
    if nbytes and bits and sparsity is None and nbytes != want:
        raise FormatError(f"tensor '{name}' wants {want} bytes, its buffer has {nbytes}")
    q = table.table(4)
    scales = () if q is None else tuple(float(v) for v in _floats(q.array(2, "<f4")))
    zeros = () if q is None else tuple(q.numbers(3, "<i8"))
    axis = 0 if q is None else q.number(6, "i")
    return Tensor(name, tuple(dims), dtype, buffer, nbytes, scales, zeros, axis)


def _floats(values: NDArray[np.generic] | None) -> list[float]:
    return [] if values is None else [float(v) for v in values.astype(np.float64)]


def _operator(table: Table, codes: list[tuple[str, bool]], tensors: int) -> Operator:
    index = table.number(0, "I")
    if index >= len(codes):
        raise FormatError(f"an operation wants operator code {index} of {len(codes)}")
    unions = [table.table(options) for options in (4, 12)]  # their vtables are checked, their fields by who reads them
    table.array(5, "u1")
    _indices(table, 8, tensors, -1)
    op, custom = codes[index]
    options = unions[0] or unions[1]
    return Operator(op, _indices(table, 1, tensors, -1), _indices(table, 2, tensors, 0), custom, options)


def _indices(table: Table, number: int, count: int, low: int) -> tuple[int, ...]:
    values = tuple(table.numbers(number, "<i4"))
    if any(not low <= v < count for v in values):
        raise FormatError(f"tensor index {next(v for v in values if not low <= v < count)} of {count}")
    return values


def _check_rest(root: Table, buffers: int, subgraphs: tuple[Subgraph, ...]) -> None:
    """Metadata and signature definitions, which the interpreter reads too."""
    for entry in root.tables(6):
        entry.text(0)
        if entry.number(1, "I") >= buffers:
            raise FormatError(f"metadata '{entry.text(0)}' wants buffer {entry.number(1, 'I')} of {buffers}")
    for entry in root.tables(7):
        graph = entry.number(4, "I")
        if graph >= len(subgraphs):
            raise FormatError(f"signature '{entry.text(2)}' wants subgraph {graph} of {len(subgraphs)}")
        for tensor in entry.tables(0) + entry.tables(1):
            if tensor.number(1, "I") >= len(subgraphs[graph].tensors):
                raise FormatError(f"signature '{entry.text(2)}' wants tensor {tensor.number(1, 'I')}")


def _info(tensor: Tensor) -> TensorInfo:
    scale = tensor.scales[0] if tensor.scales and not tensor.dtype.startswith("float") else None
    zero = None if scale is None else (tensor.zero_points[0] if tensor.zero_points else 0)
    return TensorInfo(tensor.name, tensor.shape, tensor.dtype, scale, zero)
