"""Small TFLite models by hand, and what TFLite's interpreter makes of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from edgelathe.core.device import SessionOptions
from edgelathe.model import io, run
from edgelathe.model.types import Model

REFERENCE = SessionOptions("ai-edge-litert", "CPU", 1, {"edgelathe.kernels": "reference"})
DEFAULT = SessionOptions("ai-edge-litert", "CPU", 1, {})

_TYPES = {
    "float32": schema.TensorType.FLOAT32, "int8": schema.TensorType.INT8, "uint8": schema.TensorType.UINT8,
    "int16": schema.TensorType.INT16, "int32": schema.TensorType.INT32, "int64": schema.TensorType.INT64,
    "int4": schema.TensorType.INT4,
}  # fmt: skip


@dataclass(frozen=True)
class T:
    """One tensor: shape and type of its values, or the values; `scale` may be a list, then along `axis`."""

    name: str
    shape: tuple[int, ...] = ()
    dtype: str = "int8"
    scale: Any = None
    zero: Any = 0
    values: Any = None
    axis: int = 0


@dataclass
class Net:
    """Collects operators; `build` makes a model of them."""

    tensors: dict[str, T] = field(default_factory=dict)
    operators: list[tuple[str, list[T | None], list[T], Any]] = field(default_factory=list)

    def op(self, kind: str, inputs: list[T | None], outputs: list[T], **options: Any) -> list[T]:
        """Add an operator; `options` by the names of the schema, with `table` naming their type where it is not
        that of the operator."""
        for t in (*inputs, *outputs):
            if t is not None:
                self.tensors.setdefault(t.name, t)
        self.operators.append((kind, inputs, outputs, options))
        return outputs

    def build(self, inputs: list[T], outputs: list[T], name: str = "tiny") -> Model:
        model, graph = schema.ModelT(), schema.SubGraphT()
        model.version, model.description = 3, ""
        model.buffers, graph.tensors = [schema.BufferT()], []
        index = {t: i for i, t in enumerate(self.tensors)}
        for t in self.tensors.values():
            graph.tensors.append(_tensor(t, model.buffers))
        codes: dict[str, int] = {}
        model.operatorCodes, graph.operators = [], []
        for kind, ins, outs, options in self.operators:
            if kind not in codes:
                codes[kind] = len(codes)
                model.operatorCodes.append(_code(kind))
            operator = schema.OperatorT()
            operator.opcodeIndex = codes[kind]
            operator.inputs = [-1 if t is None else index[t.name] for t in ins]
            operator.outputs = [index[t.name] for t in outs]
            _set_options(operator, dict(options))
            graph.operators.append(operator)
        graph.inputs, graph.outputs = [index[t.name] for t in inputs], [index[t.name] for t in outputs]
        model.subgraphs, model.signatureDefs, model.metadata = [graph], [], []
        return io.from_bytes(bytes(flatbuffer_utils.convert_object_to_bytearray(model)), "tflite", name)


def _code(kind: str) -> schema.OperatorCodeT:
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, kind)
    code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
    return code


def _tensor(t: T, buffers: list[Any]) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.type = t.name.encode(), _TYPES[t.dtype]
    tensor.buffer = 0
    values = None
    if t.values is not None:
        values = np.asarray(t.values, "int8" if t.dtype == "int4" else t.dtype)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(_pack(values) if t.dtype == "int4" else values.tobytes(), np.uint8)
        tensor.buffer = len(buffers)
        buffers.append(buffer)
    tensor.shape = list(t.shape if values is None else values.shape)
    if t.scale is not None:
        tensor.quantization = q = schema.QuantizationParametersT()
        q.scale = np.atleast_1d(np.asarray(t.scale, np.float32))
        q.zeroPoint = np.broadcast_to(np.asarray(t.zero, np.int64), q.scale.shape).copy()
        q.quantizedDimension = t.axis
    return tensor


def _pack(values: np.ndarray) -> bytes:
    flat = np.append(values.reshape(-1), np.zeros(values.size % 2, np.int8)).astype(np.uint8) & 15
    return bytes(flat[::2] | flat[1::2] << 4)


def _set_options(operator: schema.OperatorT, options: dict[str, Any]) -> None:
    table = options.pop("table", None)
    if table is None:
        return
    holder = getattr(schema, f"{table}T")()
    for key, value in options.items():
        assert hasattr(holder, key), f"{table} has no {key}"
        setattr(holder, key, value)
    operator.builtinOptionsType, operator.builtinOptions = getattr(schema.BuiltinOptions, table), holder


def answers(model: Model, inputs: dict[str, np.ndarray], options: SessionOptions = REFERENCE) -> list[np.ndarray]:
    """Outputs of the interpreter, samples one at a time, with its reference kernels unless others are named."""
    return run.outputs(model, inputs, options)
