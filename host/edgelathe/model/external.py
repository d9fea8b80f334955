"""External data: tensors of an ONNX model that lie in a file beside its protobuf (ONNX, docs/ExternalData.md).

A protobuf holds up to 2 GB. A model that is larger keeps the large initializers of its main graph beside it, in the
order in which the protobuf names them; those that were read from files stay on the disk, mapped, and are paged in as
they are looked at.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.core.errors import UserError

if TYPE_CHECKING:
    import onnx
    import onnx_ir
    from numpy.typing import NDArray

#: Bytes of a protobuf.
LARGEST = 2**31 - 1
#: Bytes from which on a tensor goes outside: shapes and other settings stay where shape inference reads them.
LEAST = 1024
#: Tensors begin at multiples of it, so that runtimes can map them (onnx.proto, TensorProto.external_data).
PAGE = 4096
#: What a model in memory calls the file.
NAME = "weights"
_HASHED = 1 << 24


@dataclass(frozen=True)
class External:
    """The file beside a model, as a sequence of bytes: each part at the next multiple of PAGE, zeros between.

    Attributes:
        parts: flat read-only bytes of one tensor each, little-endian.
    """

    parts: tuple[memoryview, ...]

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each part begins."""
        out, at = [], 0
        for part in self.parts:
            out.append(at)
            at = -(-(at + len(part)) // PAGE) * PAGE
        return tuple(out)

    @cached_property
    def sha256(self) -> str:
        """Hash of the file."""
        found = hashlib.sha256()
        for at in range(0, len(self), _HASHED):
            found.update(self[at : at + _HASHED])
        return found.hexdigest()

    def __len__(self) -> int:
        return self.offsets[-1] + len(self.parts[-1]) if self.parts else 0

    def __getitem__(self, at: slice) -> bytes:
        """The bytes from at.start to at.stop, as of a file that is read."""
        start, stop, _ = at.indices(len(self))
        pieces: list[bytes | memoryview] = []
        i = max(0, bisect_right(self.offsets, start) - 1)
        while start < stop:
            end = min(stop, self.offsets[i + 1] if i + 1 < len(self.parts) else len(self))
            piece = self.parts[i][start - self.offsets[i] : end - self.offsets[i]]
            pieces += [piece, bytes(end - start - len(piece))]
            start, i = end, i + 1
        return b"".join(pieces)


def tensors(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    """The initializers of the main graph that lie outside, in the order of the parts."""
    return [t for t in proto.graph.initializer if t.data_location == t.EXTERNAL]


def itemsize(data_type: int) -> float:
    """Bytes of one value, 0.5 where two share a byte; 0 for text, and for what is no type."""
    import onnx_ir

    try:
        return onnx_ir.DataType(data_type).itemsize
    except (TypeError, ValueError):
        return 0.0


def nbytes(tensor: onnx.TensorProto) -> int:
    """Bytes that the values of a tensor take by its shape and type, wherever they are; 0 as for `itemsize`."""
    return math.ceil(math.prod(map(int, tensor.dims)) * itemsize(tensor.data_type))


def goes_out(data_type: int, size: int) -> bool:
    """Whether a model beyond the limit has a tensor of `size` bytes beside it. Packed types, which are small, stay."""
    return size >= LEAST and itemsize(data_type) >= 1


def array(tensor: onnx.TensorProto, part: memoryview) -> NDArray[Any]:
    """The values of an external tensor, in its shape and type, without a copy."""
    import onnx_ir

    return np.frombuffer(part, onnx_ir.DataType(tensor.data_type).numpy()).reshape(tuple(tensor.dims))


def located(data: bytes, external: External, name: str) -> bytes:
    """The protobuf `data` of a model with `name` as that of the file beside it."""
    import onnx

    proto = onnx.ModelProto()
    proto.ParseFromString(data)
    place(proto, external, name)
    return bytes(proto.SerializeToString(deterministic=True))


def place(proto: onnx.ModelProto, external: External, name: str) -> None:
    """Write where its external tensors are, in place: in the file `name`, at the offsets of the parts."""
    for tensor, at, part in zip(tensors(proto), external.offsets, external.parts, strict=True):
        del tensor.external_data[:]
        for key, value in (("location", name), ("offset", at), ("length", len(part))):
            tensor.external_data.add(key=key, value=str(value))


def part(proto: onnx.ModelProto, name: str) -> External:
    """Move the large initializers out of a protobuf, in place. Raises UserError, for `name`, where that does not do."""
    import onnx

    moved = [t for t in proto.graph.initializer if goes_out(t.data_type, nbytes(t))]
    parts = []
    for tensor in moved:
        parts.append(_bytes(onnx.numpy_helper.to_array(tensor)))
        bare = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        bare.data_location = bare.EXTERNAL
        tensor.CopyFrom(bare)
    check(proto, name)
    return External(tuple(parts))


def check(proto: onnx.ModelProto, name: str) -> None:
    """Raises UserError, for `name`, where a protobuf is too large without its external tensors."""
    size = proto.ByteSize()
    if size > LARGEST:
        mend = "store weights as initializers of the main graph, of a byte or more each"
        raise UserError(name, f"{size / 1e9:.1f} GB beside its large weights: more than a protobuf holds", mend)


def size(model: onnx_ir.Model) -> int:
    """Bytes of the constants of a graph."""
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)


def serialize(model: onnx_ir.Model) -> tuple[onnx.ModelProto, External]:
    """A graph as a protobuf and what lies beside it, without a copy; the graph is as it was."""
    import onnx_ir as ir

    values = [
        v for v in model.graph.initializers.values()
        if v.const_value is not None and goes_out(int(v.const_value.dtype), v.const_value.nbytes)
    ]  # fmt: skip
    held = [v.const_value for v in values]
    external = External(tuple(_bytes(t.numpy()) for t in held if t is not None))
    try:
        for value, tensor, at, part in zip(values, held, external.offsets, external.parts, strict=True):
            assert tensor is not None
            assert isinstance(tensor.shape, ir.Shape)
            value.const_value = ir.ExternalTensor(
                NAME, at, len(part), tensor.dtype, shape=tensor.shape, name=str(value.name)
            )
        return ir.serde.serialize_model(model), external
    finally:
        for value, tensor in zip(values, held, strict=True):
            value.const_value = tensor


def put_back(model: onnx_ir.Model, proto: onnx.ModelProto, external: External) -> None:
    """Give the initializers of a graph that was read from `proto` their values, without a copy."""
    import onnx_ir as ir

    for tensor, part in zip(tensors(proto), external.parts, strict=True):
        value = model.graph.initializers[tensor.name]
        value.const_value = ir.Tensor(array(tensor, part), ir.DataType(tensor.data_type), name=tensor.name)


def as_inputs(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with inputs in place of external tensors: for checks that would look for the file."""
    import onnx

    out = onnx.ModelProto()
    out.CopyFrom(proto)
    given = {v.name for v in out.graph.input}
    for tensor in tensors(out):
        if tensor.name not in given:
            out.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    inside = [t for t in out.graph.initializer if t.data_location != t.EXTERNAL]
    del out.graph.initializer[:]
    out.graph.initializer.extend(inside)
    return out


def _bytes(values: NDArray[Any]) -> memoryview:
    plain = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return plain.reshape(-1).view(np.uint8).data.toreadonly()
