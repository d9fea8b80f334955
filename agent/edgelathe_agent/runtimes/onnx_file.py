"""What an ONNX file says of its inputs and outputs, read without the onnx package, which devices do not have.

Field numbers are those of onnx.proto3 (github.com/onnx/onnx); the wire format is that of Protocol Buffers ("Encoding").
Weights are stepped over, not read.
"""

from __future__ import annotations

import contextlib
import mmap
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from edgelathe_agent.protocol import AgentError

_GRAPH = 7  # ModelProto
_NODE, _INITIALIZER, _INPUT, _OUTPUT = 1, 5, 11, 12  # GraphProto
_OP_TYPE = 4  # NodeProto
_DATA_TYPE, _TENSOR_NAME = 2, 8  # TensorProto
_NAME, _TYPE = 1, 2  # ValueInfoProto
_TENSOR, _ELEMENT, _SHAPE, _DIM, _DIM_VALUE = 1, 1, 2, 1, 1  # TypeProto, TypeProto.Tensor, TensorShapeProto
_FLOAT16 = 10
_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16",
}  # fmt: skip


class File(NamedTuple):
    """`inputs`, `outputs` as an Engine has them; whether weights are float16, and whether there are Q/DQ nodes."""

    inputs: List[Dict[str, Any]]
    outputs: List[Dict[str, Any]]
    half: bool
    quantized: bool


def read(path: str) -> File:
    """Raises AgentError("model") for what is no ONNX model."""
    found: Optional[File] = None
    with contextlib.suppress(ValueError, IndexError), open(path, "rb") as f:
        found = _graph(memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)))
    if found is None:
        raise AgentError("model", "this is no ONNX model", "check it with `edgelathe inspect`")
    return found


def _graph(model: memoryview) -> File:
    inputs: List[Dict[str, Any]] = []
    outputs: List[Dict[str, Any]] = []
    weights = set()
    half = quantized = False
    graph = _last(model, _GRAPH)
    if graph is None:
        raise ValueError("no graph")
    for number, value in _fields(graph):
        if number == _NODE:
            quantized |= bytes(_last(value, _OP_TYPE) or b"") == b"QuantizeLinear"
        elif number == _INITIALIZER:
            weights.add(bytes(_last(value, _TENSOR_NAME) or b"").decode())
            half |= _last(value, _DATA_TYPE) == _FLOAT16
        elif number in (_INPUT, _OUTPUT):
            (inputs if number == _INPUT else outputs).append(_value(value))
    return File([i for i in inputs if i["name"] not in weights], outputs, half, quantized)


def _value(info: memoryview) -> Dict[str, Any]:
    tensor = _last(_last(info, _TYPE) or memoryview(b""), _TENSOR)
    if tensor is None:
        raise ValueError("no tensor")
    dims = [_last(d, _DIM_VALUE) for n, d in _fields(_last(tensor, _SHAPE) or memoryview(b"")) if n == _DIM]
    return {
        "name": bytes(_last(info, _NAME) or b"").decode(),
        "shape": [d if d else None for d in dims],
        "dtype": _DTYPES.get(_last(tensor, _ELEMENT), "unknown"), "scale": None, "zero_point": None,
    }  # fmt: skip


def _last(message: memoryview, number: int) -> Any:
    """The last field of that number, as Protocol Buffers want it; None where there is none."""
    found = None
    for n, value in _fields(message):
        if n == number:
            found = value
    return found


def _fields(message: memoryview) -> Iterator[Tuple[int, Any]]:
    """(number, value) of each field: an int, or the bytes of a length-delimited one. Raises ValueError, IndexError."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
        elif wire == 2:
            size, at = _varint(message, at)
            if at + size > len(message):
                raise ValueError("cut short")
            yield number, message[at : at + size]
            at += size
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")


def _varint(message: memoryview, at: int) -> Tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number too long")
