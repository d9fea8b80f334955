"""Small ONNX models by hand, of any opset, and what ONNX Runtime makes of a model."""

from __future__ import annotations

import collections
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from edgelathe.core.dataset import Dataset
from edgelathe.core.device import SessionOptions
from edgelathe.model import onnx as onnx_model
from edgelathe.model import run
from edgelathe.model.types import Model

# Integer products without sums in 16 bits, so that figures are the same on x86 with VNNI, without it, and on Arm.
EXACT = SessionOptions("onnxruntime", "CPUExecutionProvider", config={"session.x64quantprecision": "1"})
ARM = {"session.qdqisint8allowed": "1"}  # int8 activations stay int8, as on Arm


class Graph:
    """Collects nodes and constants; `build` makes a model of them."""

    def __init__(self, seed: int = 0) -> None:
        self.rng, self.nodes, self.constants = np.random.default_rng(seed), [], []

    def const(self, data, name: str | None = None) -> str:
        name = name or f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(data), name))
        return name

    def weights(self, *shape: int, scale: float = 1.0) -> str:
        fan = max(1, int(np.prod(shape[1:])))
        return self.const((self.rng.normal(size=shape) * scale / np.sqrt(fan)).astype(np.float32))

    def op(self, kind: str, *inputs: str, name: str | None = None, outputs: int = 1, **attributes):
        label = name if name is not None else f"{kind}_{len(self.nodes)}"
        outs = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), outs, name=label, **attributes))
        return outs[0] if outputs == 1 else outs

    def conv(self, x: str, inputs: int, outputs: int, k: int = 3, **attributes) -> str:
        group = attributes.get("group", 1)
        pads = attributes.pop("pads", [k // 2] * 4)
        w, b = self.weights(outputs, inputs // group, k, k), self.weights(outputs, scale=0.3)
        return self.op("Conv", x, w, b, pads=pads, **attributes)

    def bn(self, x: str, channels: int) -> str:
        r = self.rng
        arrays = [
            r.uniform(0.5, 2, channels),
            r.normal(size=channels),
            r.normal(size=channels),
            r.uniform(0.3, 2, channels),
        ]
        return self.op("BatchNormalization", x, *(self.const(a.astype(np.float32)) for a in arrays))

    def build(self, outputs, shape=("n", 3, 8, 8), opset: int = 13, ir_version: int = 8, inputs=()) -> Model:
        outputs = [outputs] if isinstance(outputs, str) else outputs
        given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape), *inputs]
        results = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
        graph = helper.make_graph(self.nodes, "g", given, results, self.constants)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
        proto = onnx.shape_inference.infer_shapes(proto)
        del proto.graph.value_info[:]
        return onnx_model.from_proto(proto, "tiny")


def samples(model: Model, n: int = 16, seed: int = 1) -> Dataset:
    """Random samples that fit the model's inputs."""
    rng = np.random.default_rng(seed)
    return Dataset(
        "calib",
        {
            i.name: rng.normal(size=(n, *(d or 2 for d in i.shape[1:]))).astype(np.float32)
            for i in model.signature.inputs
        },
    )


def outputs(model: Model, data: Dataset) -> list[np.ndarray]:
    return run.outputs(model, data.inputs, EXACT)


def sqnr(reference: np.ndarray, other: np.ndarray) -> float:
    """Signal to noise of `other` in dB."""
    noise = float(((reference - other) ** 2).sum())
    return 200.0 if noise == 0 else float(10 * np.log10((reference**2).sum() / noise))


def operators(model: Model) -> list[str]:
    return [n.op_type for n in onnx_model.to_proto(model).graph.node]


def node_names(model: Model) -> set[str]:
    return {n.name for n in onnx_model.to_proto(model).graph.node}


def optimized(model: Model, config=()) -> collections.Counter:
    """Operators of the graph that ONNX Runtime really runs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        so = ort.SessionOptions()
        so.optimized_model_filepath, so.log_severity_level = str(path), 4
        for key, value in dict(config).items():
            so.add_session_config_entry(key, value)
        ort.InferenceSession(model.data, so, providers=["CPUExecutionProvider"])
        return collections.Counter(n.op_type for n in onnx.load(path).graph.node)
