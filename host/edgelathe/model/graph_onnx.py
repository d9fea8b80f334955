"""The layers of an ONNX model: shapes by inference (else by running it once), constants given to their first user."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.core.signature import Signature
from edgelathe.model import external, run
from edgelathe.model.graph import Layer
from edgelathe.model.onnx import dtype_name, skeleton, type_name
from edgelathe.model.types import Model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import onnx

    from edgelathe.model.external import External

Shape = tuple[int | None, ...]
Known = tuple[int, ...]

# Inputs that hold scales, zero points and other settings, by operator.
_QLINEAR = (1, 2, 4, 5, 6, 7)
SETTINGS: dict[str, tuple[int, ...]] = {
    "QuantizeLinear": (1, 2), "DequantizeLinear": (1, 2), "ConvInteger": (2, 3), "MatMulInteger": (2, 3),
    "DynamicQuantizeMatMul": (2, 3), "MatMulNBits": (2, 3), "QGemm": (1, 2, 4, 5, 7, 8),
    "DynamicQuantizeLSTM": (8, 9, 10, 11),
    "QLinearConv": _QLINEAR, "QLinearMatMul": _QLINEAR, "QLinearAdd": _QLINEAR, "QLinearMul": _QLINEAR,
    "BatchNormalization": (3, 4),  # running statistics are measured, not trained
}  # fmt: skip
# Operators that have settings only.
NO_WEIGHTS = frozenset(
    ("Resize", "Upsample", "Clip", "Pad", "Range", "OneHot", "Dropout", "TopK", "NonMaxSuppression", "ConstantOfShape")
)


def layers(model: Model) -> Iterator[Layer]:
    """Every node that depends on an input; nodes that only compute constants belong to the layer that uses them."""
    proto = _inlined(skeleton(model))
    shapes, dtypes = _types(proto, model.external)
    constants = _Constants(proto.graph)
    for node in proto.graph.node:
        if constants.absorbs(node):
            continue
        parameters, size, kinds = constants.spend(node)
        inner = _inner(node)
        output = next((o for o in node.output if o), "")
        yield Layer(
            name=node.name or output,
            op=node.op_type,
            inputs=tuple(i for i in node.input if i and i not in constants.known),
            outputs=tuple(o for o in node.output if o),
            parameters=parameters + sum(math.prod(t.dims) for t in inner if _is_weight(t)),
            macs=_macs(node, shapes),
            bytes=size + sum(map(_stored, inner)),
            dtype=max(kinds)[1] if kinds else dtypes.get(output, "undefined"),
            shape=shapes.get(output),
        )


class _Constants:
    """Which tensors are constants, what they are made of, and which of that no layer has claimed yet."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.tensors = {t.name: t for t in graph.initializer}
        self.known = set(self.tensors) | {t.values.name for t in graph.sparse_initializer}
        self.behind: dict[str, list[tuple[str, bool]]] = {n: [(n, True)] for n in self.tensors}
        self.spent: set[str] = set()

    def absorbs(self, node: onnx.NodeProto) -> bool:
        """Whether the node computes a constant; it is remembered, with the constants behind it."""
        if any(i and i not in self.known for i in node.input) or not node.output or _random(node) or _subgraphs(node):
            return False
        sources = list(self.sources(node))
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name in ("value", "sparse_value"):
                self.tensors[node.output[0]] = attribute.t
                sources.append((node.output[0], True))
        for output in node.output:
            self.known.add(output)
            self.behind[output] = sources
        return True

    def sources(self, node: onnx.NodeProto) -> Iterator[tuple[str, bool]]:
        """Names of the stored tensors behind a node's constant inputs, and whether they may be weights there."""
        for i, name in enumerate(node.input):
            setting = node.op_type in NO_WEIGHTS or i in SETTINGS.get(node.op_type, ())
            yield from ((n, weight and not setting) for n, weight in self.behind.get(name, ()))

    def spend(self, node: onnx.NodeProto) -> tuple[int, int, list[tuple[int, str]]]:
        """Parameters and bytes of the constants that the node is the first to use; (elements, dtype) of its weights."""
        parameters = size = 0
        kinds = []
        for name, weight in self.sources(node):
            tensor = self.tensors[name]
            elements = math.prod(tensor.dims)
            counts = weight and _is_weight(tensor)
            if counts:
                kinds.append((elements, dtype_name(tensor.data_type)))
            if name not in self.spent:
                self.spent.add(name)
                size += _stored(tensor)
                parameters += elements * _packed(node) if counts else 0
        return parameters, size, kinds


def _stored(tensor: onnx.TensorProto) -> int:
    """Bytes of a tensor in the model's files."""
    return int(tensor.ByteSize()) + (external.nbytes(tensor) if tensor.data_location == tensor.EXTERNAL else 0)


def _is_weight(tensor: onnx.TensorProto) -> bool:
    """Numbers of a dtype that weights have; single numbers and int64 (shapes, axes) are settings."""
    return bool(tensor.dims) and dtype_name(tensor.data_type) not in ("int64", "bool", "str", "undefined")


def _packed(node: onnx.NodeProto) -> int:
    """Weights per stored element: MatMulNBits packs several into a byte."""
    bits = next((a.i for a in node.attribute if a.name == "bits"), 4)
    return 8 // bits if node.op_type == "MatMulNBits" else 1


def _inlined(proto: onnx.ModelProto) -> onnx.ModelProto:
    import onnx.inliner

    return onnx.inliner.inline_local_functions(proto) if proto.functions else proto


def _subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [g for a in node.attribute for g in (*([a.g] if a.HasField("g") else []), *a.graphs)]


def _inner(node: onnx.NodeProto) -> list[onnx.TensorProto]:
    """Constants inside of a node's subgraphs (If, Loop, Scan)."""
    found: list[onnx.TensorProto] = []
    for graph in _subgraphs(node):
        found += graph.initializer
        for inner in graph.node:
            found += [a.t for a in inner.attribute if inner.op_type == "Constant" and a.name == "value"]
            found += _inner(inner)
    return found


def _random(node: onnx.NodeProto) -> bool:
    return node.op_type.startswith("Random") or node.op_type in ("Bernoulli", "Multinomial")


def _types(proto: onnx.ModelProto, beside: External | None) -> tuple[dict[str, Shape], dict[str, str]]:
    """Shapes for one sample and dtypes of all tensors, by name, as far as they can be known."""
    import onnx

    shapes: dict[str, Shape] = {}
    dtypes: dict[str, str] = {}
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    del fixed.graph.value_info[:]  # they may hold a symbolic batch
    for value in fixed.graph.input:
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].dim_value <= 0:
            dims[0].dim_value = 1
    for value in fixed.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        tensor = value.type.tensor_type
        dtypes[value.name] = type_name(value.type)
        if tensor.HasField("shape"):
            shapes[value.name] = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
    for constant in proto.graph.initializer:
        shapes[constant.name], dtypes[constant.name] = tuple(constant.dims), dtype_name(constant.data_type)
    missing = [
        o for n in proto.graph.node if n.op_type in MACS for o in (*n.input, *n.output)
        if o and None in shapes.get(o, (None,))
    ]  # fmt: skip
    if missing:
        shapes |= _observed(fixed, beside, dict.fromkeys(missing))
    return shapes, dtypes


def _observed(proto: onnx.ModelProto, beside: External | None, names: Mapping[str, None]) -> dict[str, Shape]:
    """Shapes seen when the model runs once on zeros; none where an axis other than the batch is open.

    Inference knows no shapes behind operators of ONNX Runtime's own domain, as its quantizer and optimizer make them.
    """
    import onnx
    import onnxruntime as ort

    outputs, constants = {v.name for v in proto.graph.output}, {t.name for t in proto.graph.initializer}
    wanted = [n for n in names if n not in constants and n not in {v.name for v in proto.graph.input}]
    proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in wanted if n not in outputs)
    feed: dict[str, Any] = {}
    for value in proto.graph.input:
        tensor = value.type.tensor_type
        dims = [d.dim_value for d in tensor.shape.dim]
        if value.name in constants:
            continue
        if 0 in dims or not value.type.HasField("tensor_type"):
            return {}
        feed[value.name] = np.zeros(dims, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        whole = Model("onnx", proto.SerializeToString(), "", Signature((), ()), beside)
        values = run.open_onnx(whole, options, ["CPUExecutionProvider"]).run(wanted, feed)
    except Exception:  # a model that refuses zeros keeps its unknown shapes
        return {}
    return {n: tuple(np.shape(v)) for n, v in zip(wanted, values, strict=True)}


def _macs(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int | None:
    """Multiply-accumulates of a node; 0 for operators without products, None where shapes are unknown."""
    if any(inner.op_type in MACS for graph in _subgraphs(node) for inner in graph.node):
        return None
    rule = MACS.get(node.op_type)
    if rule is None:
        return 0
    tensors = [_known(shapes.get(n)) if n else () for n in (*node.input, node.output[0])]
    if any(s is None for s in tensors):
        return None
    *inputs, output = [s for s in tensors if s is not None]
    return rule(node, inputs, output)


def _known(shape: Shape | None) -> Known | None:
    """The shape where every axis is known."""
    if shape is None or None in shape:
        return None
    return tuple(d for d in shape if d is not None)


def _conv(_node: onnx.NodeProto, inputs: list[Known], output: Known, weight: int = 1) -> int:
    """Weights [out, in / groups, *kernel]."""
    return math.prod(output) * math.prod(inputs[weight][1:])


def _qlinear_conv(node: onnx.NodeProto, inputs: list[Known], output: Known) -> int:
    return _conv(node, inputs, output, 3)


def _conv_transpose(_node: onnx.NodeProto, inputs: list[Known], _output: Known) -> int:
    """Weights [in, out / groups, *kernel]."""
    return math.prod(inputs[0]) * math.prod(inputs[1][1:])


def _matmul(_node: onnx.NodeProto, inputs: list[Known], output: Known) -> int:
    return math.prod(output) * inputs[0][-1]


def _gemm(node: onnx.NodeProto, inputs: list[Known], output: Known) -> int:
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return math.prod(output) * inputs[0][0 if transposed else -1]


def _recurrent(_node: onnx.NodeProto, inputs: list[Known], _output: Known) -> int:
    """W [directions, gates * hidden, input] and R [directions, gates * hidden, hidden], once per step and sample."""
    return inputs[0][0] * inputs[0][1] * (math.prod(inputs[1]) + math.prod(inputs[2]))


def _einsum(node: onnx.NodeProto, inputs: list[Known], _output: Known) -> int:
    """The product of all labels' lengths, where two or more tensors meet."""
    equation = next(a.s.decode() for a in node.attribute if a.name == "equation").replace(" ", "")
    if len(inputs) < 2 or "..." in equation:
        return 0
    terms = equation.split("->")[0].split(",")
    lengths = {
        label: n for term, shape in zip(terms, inputs, strict=True) for label, n in zip(term, shape, strict=True)
    }
    return math.prod(lengths.values())


MACS: dict[str, Callable[[onnx.NodeProto, list[Known], Known], int]] = {
    "Conv": _conv, "FusedConv": _conv, "ConvInteger": _conv, "DeformConv": _conv, "NhwcFusedConv": _conv,
    "QLinearConv": _qlinear_conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm, "QGemm": _gemm, "FusedGemm": _gemm,
    "MatMul": _matmul, "MatMulInteger": _matmul, "QLinearMatMul": _matmul, "FusedMatMul": _matmul,
    "DynamicQuantizeMatMul": _matmul, "MatMulIntegerToFloat": _matmul, "MatMulNBits": _matmul,
    "LSTM": _recurrent, "GRU": _recurrent, "RNN": _recurrent, "DynamicQuantizeLSTM": _recurrent,
    "Einsum": _einsum,
}  # fmt: skip
