"""ONNX models as protobuf and as onnx_ir graphs, and back: equal graphs become equal bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgelathe.core.errors import UserError
from edgelathe.core.signature import Signature, TensorInfo
from edgelathe.model import aside, external
from edgelathe.model.types import Model

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx
    import onnx_ir

    from edgelathe.model.external import External

_APART = 1 << 20  # bytes of the least weights that are laid apart


def to_proto(model: Model) -> onnx.ModelProto:
    """A fresh `ModelProto`, whole, that may be changed. Raises UserError where none holds the model.

    Raises `google.protobuf.message.DecodeError` for bytes that are no model.
    """
    if model.external is not None:
        what = f"{model.bytes / 1e9:.1f} GB: more than the protobuf that is needed here holds"
        raise UserError(model.name, what, "compress it below 2 GB first, e.g. with int4 or fp16")
    return skeleton(model)


def skeleton(model: Model) -> onnx.ModelProto:
    """A fresh `ModelProto` in which external tensors have shapes and types, and no values."""
    import onnx

    proto = onnx.ModelProto()
    proto.ParseFromString(model.data)
    return proto


def from_proto(proto: onnx.ModelProto, name: str, beside: External | None = None) -> Model:
    """A model from a `ModelProto`; equal protos give equal bytes, in every process.

    `beside`: the values of its external tensors. One without, but too large, is changed: its large weights go outside.
    Raises UserError where it is too large without them.
    """
    data = _whole(proto) if beside is None else None
    if data is None:
        beside = beside or external.part(proto, name)
        external.place(proto, beside, external.NAME)
        data = bytes(proto.SerializeToString(deterministic=True))
    return Model("onnx", data, name, signature(proto), beside)


def apart(model: Model) -> Model:
    """The same model with its largest weights outside, as views on the bytes that hold them.

    For a runtime, which copies and parses the others. Those of settings, that it reads as it loads, stay.
    """
    if model.external is not None:
        return model
    proto, parts = aside.parse(model.data)
    outside = []
    for number, part in parts.items():
        tensor = proto.graph.initializer[number]
        if len(part) < _APART:
            tensor.raw_data = bytes(part)
        else:
            tensor.data_location = tensor.EXTERNAL
            outside.append(part)
    if not outside:
        return model
    beside = external.External(tuple(outside))
    external.place(proto, beside, external.NAME)
    return replace(model, data=bytes(proto.SerializeToString()), external=beside)


def to_ir(model: Model) -> onnx_ir.Model:
    """A fresh `onnx_ir.Model` that may be changed, over weights in `model`; nodes without a name stay without.

    Raises UserError for weights in sparse form, which onnx_ir would leave out.
    """
    import onnx_ir

    proto, parts = aside.parse(model.data)
    refuse_sparse(proto, model.name)
    ir_model = onnx_ir.serde.deserialize_model(proto)
    _restore_names(proto.graph, ir_model.graph)
    aside.rest(ir_model.graph, proto, parts)
    if model.external is not None:
        external.put_back(ir_model, proto, model.external)
    return ir_model


def rest_on(ir_model: onnx_ir.Model, model: Model) -> None:
    """Let a graph of which `model` was made take its large weights from there, and hold none itself."""
    aside.rest(ir_model.graph, *aside.parse(model.data))


def from_ir(ir_model: onnx_ir.Model, name: str) -> Model:
    """A model from an `onnx_ir.Model`, serialized deterministically; with external data where no protobuf holds it.

    Shapes of inner values are left out: runtimes infer them, they cost bytes, and one that a transform left behind
    makes a model refuse to load. IR version 3 lists every initializer among the inputs too (ONNX, IR.md); where one is
    not, the model becomes version 4.
    """
    import onnx_ir

    beside = None
    if external.size(ir_model) > external.LARGEST:
        proto, beside = external.serialize(ir_model)
    else:
        proto = onnx_ir.serde.serialize_model(ir_model)
    del proto.graph.value_info[:]
    if {t.name for t in proto.graph.initializer} - {v.name for v in proto.graph.input}:
        proto.ir_version = max(proto.ir_version, 4)
    return from_proto(proto, name, beside)


def signature(proto: onnx.ModelProto) -> Signature:
    """Inputs (initializers left out) and outputs in the file's order; shapes that the file leaves out are inferred."""
    if any(map(shapeless, proto.graph.output)):
        import onnx

        proto = onnx.shape_inference.infer_shapes(proto)
    constants = {t.name for t in proto.graph.initializer} | {t.values.name for t in proto.graph.sparse_initializer}
    return Signature(
        tuple(_info(v) for v in proto.graph.input if v.name not in constants),
        tuple(_info(v) for v in proto.graph.output),
    )


def refuse_sparse(proto: onnx.ModelProto, name: str) -> None:
    """Raises UserError for constants of the main graph in sparse form: runtimes take them, steps do not."""
    found = [t.values.name for t in proto.graph.sparse_initializer]
    found += [n.output[0] for n in proto.graph.node for a in n.attribute if a.HasField("sparse_tensor")]
    if found:
        what = f"constant '{found[0]}' is stored in sparse form, which only inspect, bench and eval take"
        raise UserError(name, what, "export the model with dense weights")


def shapeless(value: onnx.ValueInfoProto) -> bool:
    """Whether it is a tensor whose shape the file leaves out."""
    return value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape")


def opsets(proto: onnx.ModelProto) -> dict[str, int]:
    """Operator set versions by domain; the ONNX domain is ""."""
    return {"" if o.domain == "ai.onnx" else o.domain: o.version for o in proto.opset_import}


def weight_types(model: Model, operators: Collection[str]) -> frozenset[str]:
    """The float types of the constants that these operators of the main graph read as they are stored."""
    import onnx

    graph = aside.parse(model.data)[0].graph
    types = {t.name: t.data_type for t in graph.initializer}
    types |= {
        n.output[0]: a.t.data_type
        for n in graph.node
        for a in n.attribute
        if n.op_type == "Constant" and a.HasField("t")
    }
    read = {types[name] for n in graph.node if n.op_type in operators for name in n.input if name in types}
    floats = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE
    return frozenset(dtype_name(t) for t in read.intersection(floats))


def dtype_name(elem_type: int) -> str:
    """Numpy's name of an ONNX element type; `str` for text, `undefined` for none."""
    import onnx

    if elem_type in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
        return "str" if elem_type else "undefined"
    return str(onnx.helper.tensor_dtype_to_np_dtype(elem_type).name)


def type_name(value: onnx.TypeProto) -> str:
    """That of a tensor's elements as `dtype_name` has it; else sequence, optional, map or sparse_tensor."""
    kind = value.WhichOneof("value") or "tensor_type"
    return dtype_name(value.tensor_type.elem_type) if kind == "tensor_type" else kind.removesuffix("_type")


def _info(value: onnx.ValueInfoProto) -> TensorInfo:
    tensor = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim)
    return TensorInfo(value.name, shape, type_name(value.type))


def _whole(proto: onnx.ModelProto) -> bytes | None:
    """The message in one piece; None where it is larger than the encoding allows."""
    from google.protobuf.message import EncodeError  # type: ignore[import-untyped]  # ships no types

    try:
        data = bytes(proto.SerializeToString(deterministic=True))
    except (EncodeError, ValueError):  # upb and the plain C++ build word it differently
        return None
    return data if len(data) <= external.LARGEST else None


def _restore_names(proto: onnx.GraphProto, graph: onnx_ir.Graph) -> None:
    """onnx_ir names the nameless on reading; names that the file does not have would cost bytes."""
    for before, after in zip(proto.node, graph, strict=True):
        if not before.name:
            after.name = None
