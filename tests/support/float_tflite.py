"""Float TFLite models made from others at hand: from a small ONNX network, and from an integer TFLite file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from edgelathe.compress.graph import fold
from edgelathe.compress.types import Context
from edgelathe.model import io
from edgelathe.model import onnx as onnx_model
from support.tiny_tflite import Net, T

if TYPE_CHECKING:
    from edgelathe.model.types import Model

_RELU = schema.ActivationFunctionType.RELU


def from_onnx(model: Model) -> Model:
    """A float TFLite model, NHWC, of an ONNX network of Conv, Relu, Add, GlobalAveragePool, Flatten and Gemm, NCHW."""
    graph = onnx_model.to_proto(fold.apply(model, fold.Options(), Context()).model).graph
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    readers = [n for node in graph.node for n in node.input]
    relu = {n.input[0]: n.output[0] for n in graph.node if n.op_type == "Relu" and readers.count(n.input[0]) == 1}
    (given,) = [i for i in graph.input if i.name not in constants]
    _, c, h, w = (d.dim_value for d in given.type.tensor_type.shape.dim)
    first = T(given.name, (1, h, w, c), "float32")
    net, values = Net(), {given.name: first}
    for node in graph.node:
        if node.op_type == "Relu":
            if node.output[0] not in values:
                x = values[node.input[0]]
                values[node.output[0]] = T(node.output[0], x.shape, "float32")
                net.op("RELU", [x], [values[node.output[0]]])
            continue
        name = relu.get(node.output[0], node.output[0])
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        fused = _RELU if node.output[0] in relu else 0
        values[name] = values[node.output[0]] = _one(net, node, attributes, values, constants, name, fused)
    return net.build([first], [values[graph.output[0].name]], "from_onnx")


def _one(net, node, attributes, values, constants, name, fused):
    x = values[node.input[0]]
    if node.op_type == "Conv":
        return _conv(net, node, attributes, x, constants, name, fused)
    if node.op_type == "Add":
        out = T(name, x.shape, "float32")
        net.op("ADD", [x, values[node.input[1]]], [out], table="AddOptions", fusedActivationFunction=fused)
    elif node.op_type == "GlobalAveragePool":
        out = T(name, (1, 1, 1, x.shape[3]), "float32")
        axes = T(name + "/axes", dtype="int32", values=np.array([1, 2], np.int32))
        net.op("MEAN", [x, axes], [out], table="ReducerOptions", keepDims=True)
    elif node.op_type == "Flatten":
        out = T(name, (1, int(np.prod(x.shape))), "float32")
        shape = T(name + "/shape", dtype="int32", values=np.array(out.shape, np.int32))
        net.op("RESHAPE", [x, shape], [out], table="ReshapeOptions", newShape=list(out.shape))
    else:
        assert node.op_type == "Gemm", node.op_type
        weights = constants[node.input[1]] if attributes.get("transB") else constants[node.input[1]].T
        out = T(name, (1, len(weights)), "float32")
        parts = [
            T(node.input[1], dtype="float32", values=weights),
            T(name + "/b", dtype="float32", values=constants[node.input[2]]),
        ]
        net.op("FULLY_CONNECTED", [x, *parts], [out], table="FullyConnectedOptions", fusedActivationFunction=fused)
    return out


def _conv(net, node, attributes, x, constants, name, fused):
    weights, bias = constants[node.input[1]], constants[node.input[2]]
    (top, left, bottom, right), (sy, sx) = attributes.get("pads", (0,) * 4), attributes.get("strides", (1, 1))
    padding = schema.Padding.VALID
    if (
        (sy, sx) == (1, 1)
        and 2 * top == 2 * bottom == weights.shape[2] - 1
        and 2 * left == 2 * right == weights.shape[3] - 1
    ):
        padding, top, left, bottom, right = schema.Padding.SAME, 0, 0, 0, 0
    if top or left or bottom or right:
        pads = T(
            name + "/pads", dtype="int32", values=np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
        )
        padded = T(name + "/padded", (1, x.shape[1] + top + bottom, x.shape[2] + left + right, x.shape[3]), "float32")
        net.op("PAD", [x, pads], [padded], table="PadOptions")
        x = padded
    size = [(n - k) // s + 1 for n, k, s in zip(x.shape[1:3], weights.shape[2:], (sy, sx), strict=True)]
    size = list(x.shape[1:3]) if padding == schema.Padding.SAME else size
    out = T(name, (1, *size, len(weights)), "float32")
    depthwise = attributes.get("group", 1) > 1
    kernel = weights[:, 0].transpose(1, 2, 0)[None] if depthwise else weights.transpose(0, 2, 3, 1)
    options = {"padding": padding, "strideW": sx, "strideH": sy, "fusedActivationFunction": fused}
    kind, table = ("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions") if depthwise else ("CONV_2D", "Conv2DOptions")
    if depthwise:
        options["depthMultiplier"] = 1
    parts = [T(name + "/w", dtype="float32", values=kernel), T(name + "/b", dtype="float32", values=bias)]
    net.op(kind, [x, *parts], [out], table=table, **options)
    return out


def _drop_unread(graph: schema.SubGraphT) -> None:
    """Drop tensors that nothing reads or makes: a runtime allocates none, and those that ask for each would fail."""
    lists = [(o, k) for o in graph.operators for k in ("inputs", "outputs")] + [(graph, "inputs"), (graph, "outputs")]
    used = sorted({int(t) for of, key in lists for t in getattr(of, key) if t >= 0})
    place = {t: i for i, t in enumerate(used)} | {-1: -1}
    graph.tensors = [graph.tensors[t] for t in used]
    for of, key in lists:
        setattr(of, key, [place[int(t)] for t in getattr(of, key)])


def from_integer(data: bytes, name: str) -> Model:
    """The float model that an integer file stands for: each constant as the reals that it stands for.

    QUANTIZE and DEQUANTIZE at its ends are left out; the clamps of the grids are kept as they are fused.
    """
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    (graph,) = model.subgraphs
    codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
    same: dict[int, int] = {}
    kept = []
    for op in graph.operators:
        op.inputs = [same.get(t, t) for t in op.inputs]
        if codes[op.opcodeIndex] in (schema.BuiltinOperator.QUANTIZE, schema.BuiltinOperator.DEQUANTIZE):
            same[op.outputs[0]] = op.inputs[0]
        else:
            kept.append(op)
    graph.operators, graph.outputs = kept, [same.get(t, t) for t in graph.outputs]
    _drop_unread(graph)
    for tensor in graph.tensors:
        q = tensor.quantization
        if q is None or q.scale is None or not len(q.scale):
            continue
        raw = model.buffers[tensor.buffer].data
        if raw is not None:
            kind = {
                schema.TensorType.UINT8: np.uint8,
                schema.TensorType.INT8: np.int8,
                schema.TensorType.INT32: np.int32,
            }
            values = np.asarray(raw, np.uint8).view(kind[tensor.type]).reshape(tensor.shape).astype(np.float64)
            along = [-1 if i == q.quantizedDimension and len(q.scale) > 1 else 1 for i in range(values.ndim)]
            real = (values - np.reshape(q.zeroPoint, along)) * np.reshape(q.scale, along).astype(np.float64)
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(real.astype(np.float32).tobytes(), np.uint8)
            tensor.buffer = len(model.buffers)
            model.buffers.append(buffer)
        tensor.type, tensor.quantization = schema.TensorType.FLOAT32, None
    used = {t.buffer for t in graph.tensors}
    for i, buffer in enumerate(model.buffers):
        buffer.data = buffer.data if i in used else None
    model.signatureDefs = []
    return io.from_bytes(bytes(flatbuffer_utils.convert_object_to_bytearray(model)), "tflite", name)
