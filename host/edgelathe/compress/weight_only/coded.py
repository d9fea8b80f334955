"""Weights as indices into tables of representatives: what they are worth, what they take, how they stand in a graph."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgelathe.compress.graph.packed import packed_bytes

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgelathe.compress.graph.packed import Packer


@dataclass(frozen=True, eq=False)
class Coded:
    """One constant.

    Attributes:
        indices: into the table, in the shape of the constant.
        table: float32 [k]: one for all; int8 or int16 [channels, k]: one a channel, in units of `steps`.
        steps: float32 [channels]: what the table's values are multiplied by; None: nothing.
        axis: of the channels in the constant.
    """

    indices: NDArray[np.int64]
    table: NDArray[np.float32] | NDArray[np.int8] | NDArray[np.int16]
    steps: NDArray[np.float32] | None = None
    axis: int = 0

    @property
    def bits(self) -> int:
        """Of one index."""
        return max(1, math.ceil(math.log2(self.table.shape[-1])))

    @property
    def bytes(self) -> int:
        """Indices and tables in the file; the nodes that look them up are not counted."""
        steps = 0 if self.steps is None else self.steps.nbytes
        return packed_bytes(self.indices.size, self.bits) + self.table.nbytes + steps

    def real(self) -> NDArray[np.float32]:
        """The constant, to the last bit as ONNX Runtime computes it."""
        if self.table.ndim == 2:
            assert self.steps is not None
            rows = self.table.astype(np.float32) * self.steps[:, None]
            moved = np.moveaxis(self.indices, self.axis, 0)
            found = np.take_along_axis(rows, moved.reshape(len(rows), -1), axis=1).reshape(moved.shape)
            return np.ascontiguousarray(np.moveaxis(found, 0, self.axis))
        found = self.table[self.indices].astype(np.float32)
        return found if self.steps is None else found * self.steps.reshape(self._along())

    def write(self, packer: Packer) -> ir.Value:
        """The constant as a value of the packer's graph."""
        if self.table.ndim == 1:
            found = packer.lookup(self.indices, self.bits, self.table)
            return found if self.steps is None else packer.node("Mul", [found, self.steps.reshape(self._along())])
        import onnx_ir as ir

        assert self.steps is not None
        moved = np.moveaxis(self.indices, self.axis, 0)
        rows = packer.node("Cast", [self.table], to=ir.DataType.FLOAT)
        rows = packer.node("Mul", [rows, self.steps[:, None]])
        index = packer.integers(moved.reshape(len(self.steps), -1), self.bits, np.int32)
        found = packer.node("GatherElements", [rows, index], axis=1)
        found = packer.node("Reshape", [found, np.array(moved.shape, np.int64)])
        if self.axis == 0:
            return found
        order = list(range(1, self.indices.ndim))
        order.insert(self.axis, 0)
        return packer.node("Transpose", [found], perm=order)

    def _along(self) -> list[int]:
        return [-1 if i == self.axis else 1 for i in range(self.indices.ndim)]
