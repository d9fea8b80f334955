"""A TFLite file opened for changes: constants written in place, and stretches of operators as files of their own."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.model import tflite

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

_PACKED = 17  # int4 of the schema's TensorType: two to a byte, the lower half first


class File:
    """The object tree of a file. Tensors and operators have the numbers that `tflite.parse` gives them."""

    def __init__(self, data: bytes) -> None:
        from ai_edge_litert.tools import flatbuffer_utils

        self.tree = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
        self.graph = self.tree.subgraphs[0]
        for buffer in self.tree.buffers:
            if buffer.data is not None:  # what stands behind the FlatBuffer comes as bytes, which are packed one by one
                buffer.data = np.frombuffer(buffer.data, np.uint8)

    def data(self) -> bytes:
        """The file."""
        return _serialized(self.tree)

    def constant(self, tensor: int) -> NDArray[Any]:
        """The stored numbers of a constant [shape], as int8 where they are packed; empty where there are none."""
        entry = self.graph.tensors[tensor]
        raw = self.tree.buffers[entry.buffer].data
        flat = np.zeros(0, np.uint8) if raw is None else np.asarray(raw, np.uint8)
        shape = [int(n) for n in entry.shape] if entry.shape is not None else []
        if entry.type == _PACKED:
            halves = np.stack([flat & 15, flat >> 4], axis=1).reshape(-1)[: int(np.prod(shape))].astype(np.int8)
            return np.where(halves > 7, halves - 16, halves).astype(np.int8).reshape(shape)
        return flat.view(tflite.TYPES[entry.type][0]).reshape(shape)

    def set_constant(self, tensor: int, values: NDArray[Any]) -> None:
        """Store other numbers of the tensor's type and size, in a buffer of its own where others read the old one."""
        entry = self.graph.tensors[tensor]
        raw = _pack(values) if entry.type == _PACKED else values.astype(tflite.TYPES[entry.type][0]).tobytes()
        buffer = copy.copy(self.tree.buffers[entry.buffer])
        buffer.data = np.frombuffer(raw, np.uint8)
        if sum(t.buffer == entry.buffer for g in self.tree.subgraphs for t in g.tensors) > 1:
            entry.buffer = len(self.tree.buffers)
            self.tree.buffers.append(buffer)
        else:
            self.tree.buffers[entry.buffer] = buffer

    def set_scale(self, tensor: int, scale: NDArray[np.float32]) -> None:
        """Other scales [channels] or [1] of a tensor that has as many already."""
        self.graph.tensors[tensor].quantization.scale = np.asarray(scale, np.float32).reshape(-1)

    def add_constant(self, name: str, values: NDArray[np.int32]) -> int:
        """A new tensor of int32; gives its number."""
        from ai_edge_litert import schema_py_generated as schema

        buffer, entry = schema.BufferT(), schema.TensorT()
        buffer.data = np.frombuffer(values.astype(np.int32).tobytes(), np.uint8)
        entry.name, entry.type, entry.shape = name.encode(), schema.TensorType.INT32, list(values.shape)
        entry.buffer = len(self.tree.buffers)
        self.tree.buffers.append(buffer)
        self.graph.tensors.append(entry)
        return len(self.graph.tensors) - 1

    def code(self, op: str, version: int) -> int:
        """The number of an operator code of at least this version, made where there is none."""
        from ai_edge_litert import schema_py_generated as schema

        number = getattr(schema.BuiltinOperator, op)
        for i, code in enumerate(self.tree.operatorCodes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == number:
                code.version = max(code.version, version)
                return i
        code = schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), version
        self.tree.operatorCodes.append(code)
        return len(self.tree.operatorCodes) - 1

    def part(self, operators: Iterable[int], inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """A file of some operators, in order, between tensors; it holds only the constants that they read."""
        tree, graph = copy.copy(self.tree), copy.copy(self.graph)
        graph.operators = [self.graph.operators[i] for i in operators]
        graph.inputs, graph.outputs = list(inputs), list(outputs)
        read = {t for op in graph.operators for t in op.inputs if t >= 0}
        kept = {0} | {self.graph.tensors[t].buffer for t in read}
        empty = copy.copy(self.tree.buffers[0])
        empty.data = None
        tree.buffers = [b if i in kept else empty for i, b in enumerate(self.tree.buffers)]
        used = read | {t for op in graph.operators for t in op.outputs} | {*inputs, *outputs}
        bare = type(self.graph.tensors[0])()  # takes the number of a tensor that the part has not
        bare.name = b""
        graph.tensors = [t if i in used else bare for i, t in enumerate(self.graph.tensors)]
        tree.subgraphs, tree.signatureDefs, tree.metadata, tree.metadataBuffer = [graph], [], [], []
        return _serialized(tree)


def _serialized(tree: Any) -> bytes:
    from ai_edge_litert.tools import flatbuffer_utils

    return bytes(flatbuffer_utils.convert_object_to_bytearray(tree))


def _pack(values: NDArray[Any]) -> bytes:
    flat = values.reshape(-1).astype(np.int8)
    pairs = np.append(flat, np.zeros(flat.size % 2, np.int8)).view(np.uint8).reshape(-1, 2) & 15
    return (pairs[:, 0] | pairs[:, 1] << 4).tobytes()
