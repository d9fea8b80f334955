"""A model's large weights left in its bytes: a message that holds the rest, and the places of what was left out.

Parsing copies every weight, and a graph that is made from the message keeps that copy beside the file's bytes. What is
left out here is looked up in those bytes, each time that it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx
    import onnx_ir
    from numpy.typing import NDArray

_LEAST = 1024  # bytes; smaller constants say something of shapes, and cost nothing
# Fields that are looked into (onnx.proto): ModelProto.graph, GraphProto.initializer, TensorProto.raw_data.
_GRAPH, _INITIALIZER, _RAW = 7, 5, 9
_VARINT, _EIGHT, _DELIMITED, _FOUR = 0, 1, 2, 5  # wire types of the encoding (protobuf.dev, Encoding)


def parse(data: bytes) -> tuple[onnx.ModelProto, dict[int, memoryview]]:
    """The message without its large initializers, and the bytes of those by their number in the graph.

    Only what lies in `raw_data` is left out: all that exporters write. Raises `google.protobuf.message.DecodeError`
    for bytes that are no model.
    """
    import onnx
    import onnx_ir

    parts: dict[int, memoryview] = {}
    proto = onnx.ModelProto()
    try:
        light = _model(memoryview(data), parts)
    except IndexError:  # cut off: the parser says so in its own words
        proto.ParseFromString(data)
        return proto, {}
    proto.ParseFromString(light)
    for number in tuple(parts):
        tensor = proto.graph.initializer[number]
        if onnx_ir.DataType(tensor.data_type).bitwidth < 8:  # several values a byte: small, and left to the parser
            tensor.raw_data = bytes(parts.pop(number))
    return proto, parts


def rest(graph: onnx_ir.Graph, proto: onnx.ModelProto, parts: dict[int, memoryview]) -> None:
    """Let the initializers of a graph, found by name, take their values from `parts` of the model `proto`."""
    import onnx_ir

    for number, part in parts.items():
        tensor = proto.graph.initializer[number]
        value = graph.initializers[tensor.name]
        assert value.const_value is not None
        value.const_value = onnx_ir.LazyTensor(
            _Values(part, tensor.data_type, tuple(tensor.dims)),
            onnx_ir.DataType(tensor.data_type),
            onnx_ir.Shape(tensor.dims),
            name=tensor.name,
            doc_string=tensor.doc_string or None,
            metadata_props=dict(value.const_value.metadata_props),
        )


class _Values:
    """A copy of one tensor, in memory only as long as its taker keeps it: in the file it need not be aligned."""

    def __init__(self, part: memoryview, data_type: int, dims: tuple[int, ...]) -> None:
        self._part, self._data_type, self._dims = part, data_type, dims

    def __call__(self) -> onnx_ir.Tensor[NDArray[Any]]:
        import onnx_ir

        dtype = onnx_ir.DataType(self._data_type)
        values = np.frombuffer(bytes(self._part), dtype.numpy().newbyteorder("<")).reshape(self._dims)
        return onnx_ir.Tensor(values, dtype)


def _model(data: memoryview, parts: dict[int, memoryview]) -> bytes:
    out: list[bytes | memoryview] = []
    numbers = 0
    for field, head, body in _fields(data):
        if field == _GRAPH and body is not None:
            graph, numbers = _graph(body, parts, numbers)
            out += [_key(_GRAPH), _varint(len(graph)), graph]
        else:
            out.append(head)
    return b"".join(out)


def _graph(data: memoryview, parts: dict[int, memoryview], numbers: int) -> tuple[bytes, int]:
    """The graph without large initializers, and the number of the next one."""
    out: list[bytes | memoryview] = []
    for field, head, body in _fields(data):
        if field == _INITIALIZER and body is not None:
            if len(body) > _LEAST:
                tensor = _tensor(body, parts, numbers)
                out += [_key(_INITIALIZER), _varint(len(tensor)), tensor]
            else:
                out.append(head)
            numbers += 1
        else:
            out.append(head)
    return b"".join(out), numbers


def _tensor(data: memoryview, parts: dict[int, memoryview], number: int) -> bytes:
    out: list[memoryview] = []
    for field, head, body in _fields(data):
        if field == _RAW and body is not None and len(body) > _LEAST:
            parts[number] = body  # of several, the last one counts
        else:
            out.append(head)
    return b"".join(out)


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview, memoryview | None]]:
    """Number, whole and body (where it has a length) of each field of a message. Raises IndexError where it is cut."""
    at, end = 0, len(data)
    while at < end:
        start = at
        key, at = _read(data, at)
        kind, body = key & 7, None
        if kind == _VARINT:
            _, at = _read(data, at)
        elif kind == _DELIMITED:
            size, at = _read(data, at)
            body, at = data[at : at + size], at + size
        elif kind in (_EIGHT, _FOUR):
            at += 8 if kind == _EIGHT else 4
        else:
            raise IndexError(at)
        if at > end:
            raise IndexError(at)
        yield key >> 3, data[start:at], body


def _read(data: memoryview, at: int) -> tuple[int, int]:
    """The varint at a place, and the place behind it."""
    out = shift = 0
    while True:
        byte = data[at]
        out |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return out, at


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _key(field: int) -> bytes:
    return _varint(field << 3 | _DELIMITED)
