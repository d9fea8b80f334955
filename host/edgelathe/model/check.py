"""What must hold before bytes count as a model; each check names what is wrong and the mend."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships no types

from edgelathe.core.errors import UserError
from edgelathe.model import check_types, external, external_file, nodes_onnx, tflite
from edgelathe.model import onnx as onnx_model
from edgelathe.model.flatbuffer import FormatError
from edgelathe.model.run import one_line
from edgelathe.model.types import Model

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import onnx

OLDEST_OPSET = 11
AGAIN = "export the model again, or copy it whole"

# First bytes of files that are taken for models: what they are, and the way from there.
MAGICS = {
    b"PK\x03\x04": ("a zip archive (a PyTorch or Keras file?)", "export it to ONNX, e.g. with torch.onnx.export"),
    b"\x89HDF": ("an HDF5 file (a Keras model?)", "convert it with tf2onnx or the TFLite converter"),
    b"\x80\x02": ("a pickle (a PyTorch file?)", "export it to ONNX with torch.onnx.export"),
    b"\x1f\x8b": ("a gzip archive", "unpack it first"),
    b"version https://git-lfs": ("a Git LFS pointer", "fetch the file itself with `git lfs pull`"),
}


def onnx_file(path: Path, data: bytes) -> Model:
    """An ONNX file's bytes as a model, nodes in order, external weights taken in or mapped. Raises UserError."""
    proto = _decode(path, data)
    _check_opsets(path, proto)
    _check_operators(path, proto)
    _check_names(path, proto)
    check_types.check(path, proto.graph, _graphs(proto.graph.node))
    check_types.check_nodes(path, _nodes(proto))
    check_types.check_samples(path, proto.graph)
    moved = _sort(path, proto)
    found = [t for t in _tensors(proto) if t.data_location == t.EXTERNAL]
    if not found and not moved:
        _check_spec(path, proto)
        return Model("onnx", data, path.stem, onnx_model.signature(proto))
    beside = external_file.take_in(path, proto, found, len(data))
    _check_spec(path, external.as_inputs(proto) if beside else proto)
    return onnx_model.from_proto(proto, path.stem, beside)


def tflite_file(path: Path, data: bytes) -> Model:
    """A TFLite file's bytes as a model. Raises UserError."""
    try:
        parsed = tflite.parse(data)
    except FormatError as e:
        raise UserError(path, f"a broken TFLite model: {e}", AGAIN) from None
    return Model("tflite", data, path.stem, tflite.signature(parsed))


def _decode(path: Path, data: bytes) -> onnx.ModelProto:
    import onnx

    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        what, mend = _guess(data)
        raise UserError(path, what, mend) from None
    if not proto.graph.node and not proto.graph.output:
        what, mend = _guess(data)
        raise UserError(path, what, mend)
    if not proto.graph.output:
        raise UserError(path, "an ONNX model without outputs, probably cut off", AGAIN)
    return proto


def _guess(data: bytes) -> tuple[str, str]:
    """What the bytes are instead of a model, and the mend."""
    for magic, answer in MAGICS.items():
        if data.startswith(magic):
            return answer
    head = data[:1000]
    if not set(head) & {*range(9), *range(14, 27), *range(28, 32), 127}:
        return "a text file, not a model", "give an .onnx or .tflite file"
    return "not an ONNX or TFLite model, or cut off", AGAIN


def _check_opsets(path: Path, proto: onnx.ModelProto) -> None:
    import onnx

    versions = onnx_model.opsets(proto)
    if "" not in versions:
        raise UserError(path, "it names no version of the ONNX operators (opset_import)", AGAIN)
    opset, newest = versions[""], onnx.defs.onnx_opset_version()
    if opset < OLDEST_OPSET:
        mend = "export it again with opset 17, or use onnx.version_converter.convert_version(model, 17)"
        raise UserError(path, f"opset {opset} is too old, edgelathe takes {OLDEST_OPSET} to {newest}", mend)
    if opset > newest:
        mend = f"export it again with opset {newest}, or update the onnx and onnxruntime packages"
        raise UserError(path, f"opset {opset} is newer than what is installed here (to {newest})", mend)


def _check_operators(path: Path, proto: onnx.ModelProto) -> None:
    """Operators of the ONNX domains exist in their opset; other domains are those of ONNX Runtime or of the model."""
    import onnx

    versions = onnx_model.opsets(proto)
    own = {(f.domain, f.name) for f in proto.functions}
    unknown: dict[str, str] = {}
    for node in _nodes(proto):
        domain = "" if node.domain == "ai.onnx" else node.domain
        if (node.domain, node.op_type) in own or domain.startswith("com.microsoft"):
            continue  # ONNX Runtime knows its own, and is asked when the model is loaded
        if not onnx.defs.has(node.op_type, domain=domain, max_inclusive_version=versions.get(domain, 1)):
            unknown.setdefault(f"{domain}:{node.op_type}".lstrip(":"), node.name or next(iter(node.output), ""))
    if unknown:
        listed = ", ".join(f"{op} (node '{name[:60]}')" for op, name in list(unknown.items())[:3])
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise UserError(
            path,
            f"unknown operators in opset {versions['']}: {listed}{more}",
            "export it with standard ONNX operators only",
        )


def _check_names(path: Path, proto: onnx.ModelProto) -> None:
    for name, count in Counter(n.name for n in proto.graph.node if n.name).most_common(1):
        if count > 1:
            what = f"{count} nodes are called '{name}', and layers are told apart by name"
            raise UserError(path, what, "give each node a name of its own, or none")


def _sort(path: Path, proto: onnx.ModelProto) -> bool:
    """Put nodes in order, in place: runtimes take them in any, steps do not. Whether something moved."""
    try:
        return nodes_onnx.sort(proto.graph)
    except ValueError:
        raise UserError(path, "some of its nodes wait for one another", AGAIN) from None


def _check_spec(path: Path, proto: onnx.ModelProto) -> None:
    """The rules of the format, but for the shapes of outputs: runtimes infer those, and some tools leave them out."""
    import onnx

    checked = proto
    if any(onnx_model.shapeless(v) for v in proto.graph.output):
        checked = onnx.ModelProto()
        checked.CopyFrom(proto)
        for value in filter(onnx_model.shapeless, checked.graph.output):
            value.type.tensor_type.shape.SetInParent()
    try:
        onnx.checker.check_model(checked)
    except (onnx.checker.ValidationError, ValueError, MemoryError) as e:
        raise UserError(path, f"not valid ONNX: {one_line(e)}", AGAIN) from None


def _graphs(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    """All graphs within nodes."""
    for node in nodes:
        for graph in nodes_onnx.subgraphs(node):
            yield graph
            yield from _graphs(graph.node)


def _nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """All nodes: of the graph, its subgraphs, and the model's functions."""
    for nodes in (proto.graph.node, *(f.node for f in proto.functions)):
        yield from nodes
        for graph in _graphs(nodes):
            yield from graph.node


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for graph in (proto.graph, *_graphs(proto.graph.node)):
        yield from graph.initializer
    for node in _nodes(proto):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
