"""A TFLite model as the simulator takes it: operators where they stand, grids of their tensors, constants unpacked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.core.errors import UserError
from edgelathe.model import tflite
from edgelathe.model.fixed.types import Arithmetic, Grid, Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from edgelathe.model.flatbuffer import Table
    from edgelathe.model.types import Model

_NARROW = {"int4": (4, True), "uint4": (4, False), "int2": (2, True)}  # packed in bytes, the lowest bits first


@dataclass(frozen=True, eq=False)
class Slot:
    """A tensor as one operator sees it.

    Attributes:
        index: its number in the file.
        shape: as the file has it; None for an open axis.
        dtype: of the file: what it computes with where `grid` is None.
        grid: of its integers; None where it holds reals, indices or flags.
        constant: its numbers where they are known before a run, on `grid`.
        exact: the same without rounding, float32: the weights of the float model where these are known.
        assigned: the grid is not the file's, but was put in its place.
    """

    index: int
    name: str
    shape: tuple[int | None, ...]
    dtype: str
    grid: Grid | None
    constant: NDArray[Any] | None = None
    exact: NDArray[Any] | None = None
    assigned: bool = False


@dataclass(frozen=True, eq=False)
class Site:
    """One operator where it stands: all that its kernels are made from. `None` among the inputs: left out."""

    op: str
    name: str
    options: Table | None
    inputs: tuple[Slot | None, ...]
    outputs: tuple[Slot, ...]
    arithmetic: Arithmetic
    model: str

    def number(self, field: int, code: str = "b", default: int = 0) -> int:
        """A whole number of its options, by the schema's field number."""
        return self.options.number(field, code, default) if self.options else default

    def real(self, field: int, default: float = 0.0) -> float:
        """A float32 of its options."""
        return self.options.real(field, default) if self.options else default

    def input(self, position: int) -> Slot:
        """An input that must be there. Raises UserError."""
        if position < len(self.inputs) and (slot := self.inputs[position]) is not None:
            return slot
        raise self.refused(f"has no input {position}")

    def optional(self, position: int) -> Slot | None:
        """An input that may be left out."""
        return self.inputs[position] if position < len(self.inputs) else None

    def setting(self, position: int) -> NDArray[Any]:
        """An input that must be constant: a shape, axes, paddings. Raises UserError."""
        slot = self.input(position)
        if slot.constant is None:
            raise self.refused(f"computes its input '{slot.name}' while it runs")
        return slot.constant

    def refused(self, what: str, mend: str = "measure it on a device instead") -> UserError:
        """That this operator cannot be simulated."""
        return UserError(f"{self.model}: {self.name}", f"{self.op} {what}", mend)


@dataclass(frozen=True, eq=False)
class Graph:
    """Operators in order; tensors by number. `batch` is the fixed length of the first axis, None where it is open."""

    sites: tuple[Site, ...]
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    batch: int | None


def read(model: Model, arithmetic: Arithmetic, grids: Mapping[int, Grid] | None = None) -> Graph:
    """The graph of the subgraph that runs. `grids` replace those of the file, by tensor; constants follow."""
    parsed = tflite.parse(model.data)
    slots = [_slot(parsed, i, t, grids or {}) for i, t in enumerate(parsed.main.tensors)]
    sites = []
    for o in parsed.main.operators:
        if o.op == "DEQUANTIZE" and slots[o.inputs[0]].constant is not None:  # it only unpacks weights: no layer
            slots[o.outputs[0]] = _unpacked(slots[o.inputs[0]], slots[o.outputs[0]])
            continue
        ins = tuple(slots[i] if i >= 0 else None for i in o.inputs)
        outs = tuple(slots[i] for i in o.outputs)
        sites.append(Site(o.op, outs[0].name if outs else o.op, o.options, ins, outs, arithmetic, model.name))
    inputs, outputs = (tuple(slots[i] for i in which) for which in (parsed.main.inputs, parsed.main.outputs))
    fixed = [s.shape[0] for s in inputs if s.shape and s.shape[0] is not None]
    return Graph(tuple(sites), inputs, outputs, max(fixed) if fixed else None)


def grid_of(tensor: tflite.Tensor) -> Grid | None:
    """The grid that the file gives a tensor of integers; None where it has none."""
    if not tensor.scales or tensor.dtype.startswith(("float", "bfloat")):
        return None
    bits, signed = _NARROW.get(tensor.dtype) or (8 * np.dtype(tensor.dtype).itemsize, not tensor.dtype.startswith("u"))
    scales = np.asarray(tensor.scales, np.float64)
    zeros = np.zeros(len(scales), np.int64)
    zeros[:] = tensor.zero_points if len(tensor.zero_points) in (1, len(scales)) else 0
    return Grid(scales, zeros, bits, signed, tensor.axis if len(scales) > 1 else None)


def _slot(parsed: tflite.Parsed, index: int, tensor: tflite.Tensor, grids: Mapping[int, Grid]) -> Slot:
    grid = grid_of(tensor)
    constant = _constant(parsed, tensor) if tensor.constant else None
    exact = None if constant is None else Value(constant, grid).real
    if index in grids:
        grid = grids[index]
        constant = None if exact is None else grid.quantize(exact)
    return Slot(index, tensor.name, tensor.shape, tensor.dtype, grid, constant, exact, index in grids)


def _unpacked(source: Slot, out: Slot) -> Slot:
    real = Value(source.constant, source.grid).real.astype(np.float32) if source.constant is not None else None
    return replace(out, constant=real, exact=source.exact if source.exact is None else source.exact.astype(np.float32))


def _constant(parsed: tflite.Parsed, tensor: tflite.Tensor) -> NDArray[Any] | None:
    raw, shape = parsed.buffers[tensor.buffer], tuple(d or 0 for d in tensor.shape)
    if tensor.dtype in ("str", "resource", "variant"):
        return None
    if tensor.dtype in _NARROW:
        return unpack(raw, *_NARROW[tensor.dtype])[: tensor.elements].reshape(shape)
    if tensor.dtype == "bfloat16":
        wide = raw.view(np.uint16).astype(np.uint32) << 16
        return np.asarray(wide.view(np.float32).reshape(shape))
    values = raw.view(np.dtype(tensor.dtype).newbyteorder("<"))
    return values.reshape(shape) if values.size == tensor.elements else None  # sparse weights have fewer


def unpack(raw: NDArray[np.uint8], bits: int, signed: bool) -> NDArray[Any]:
    """Integers of 2 or 4 bits from bytes, the lowest first. Gives int8, or uint8 where they have no sign."""
    parts = [(raw >> shift) & ((1 << bits) - 1) for shift in range(0, 8, bits)]
    values = np.stack(parts, axis=1).reshape(-1)
    if not signed:
        return np.asarray(values)
    half = 1 << (bits - 1)
    return np.asarray(((values ^ half).astype(np.int16) - half).astype(np.int8))
