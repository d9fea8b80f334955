"""Models with external data, and a limit at which small ones count as too large for a protobuf."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgelathe.model import external, io
from edgelathe.model.types import Model

#: Bytes that no protobuf holds in these tests.
LIMIT = 8000
WIDTH = 32


def chain(layers: int = 4, width: int = WIDTH, seed: int = 0) -> onnx.ModelProto:
    """x [n, width] through MatMul, Gemm and Relu in turn, weights with unit gain."""
    rng, nodes, constants, x = np.random.default_rng(seed), [], [], "x"
    for i in range(layers):
        w = (rng.normal(size=(width, width)) * np.sqrt(2 / width)).astype(np.float32)
        constants.append(numpy_helper.from_array(w, f"w{i}"))
        inputs = [x, f"w{i}"]
        if i % 2:
            constants.append(numpy_helper.from_array(rng.normal(size=width).astype(np.float32), f"b{i}"))
            inputs.append(f"b{i}")
        nodes.append(helper.make_node("Gemm" if i % 2 else "MatMul", inputs, [f"m{i}"], name=f"fc{i}"))
        x = f"x{i}" if i < layers - 1 else "y"
        nodes.append(helper.make_node("Relu", [f"m{i}"], [x], name=f"act{i}"))
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", width]) for n in "xy"]
    graph = helper.make_graph(nodes, "chain", values[:1], values[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write(proto: onnx.ModelProto, path: Path) -> Path:
    """Write a model whose initializers all lie in `weights.bin` beside it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    onnx.save(copy, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def huge(path: Path, layers: int = 8, width: int = 8192) -> Path:
    """Write a chain of products with Relu between, without more than one matrix in memory: 2**31 bytes of weights."""
    nodes, tensors, x = [], [], "x"
    with (path.parent / "weights.bin").open("wb") as f:
        for i in range(layers):
            tensor = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[width, width])
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "weights.bin"), ("offset", f.tell()), ("length", 4 * width**2)):
                tensor.external_data.add(key=key, value=str(value))
            tensors.append(tensor)
            f.write(
                (
                    np.random.default_rng(i).standard_normal((width, width), np.float32)
                    * np.float32(np.sqrt(2 / width))
                ).data
            )
            nodes.append(helper.make_node("MatMul", [x, f"w{i}"], [f"m{i}"], name=f"fc{i}"))
            x = f"x{i}" if i < layers - 1 else "y"
            nodes.append(helper.make_node("Relu", [f"m{i}"], [x], name=f"act{i}"))
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", width]) for n in "xy"]
    graph = helper.make_graph(nodes, "chain", values[:1], values[1:], tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(made.SerializeToString())
    return path


def load(path: Path, monkeypatch: pytest.MonkeyPatch, limit: int = LIMIT) -> Model:
    """A model that is too large for a protobuf from now on, until the test ends."""
    monkeypatch.setattr(external, "LARGEST", limit)
    return io.load(path, large=True)


def samples(n: int = 6, width: int = WIDTH) -> dict[str, np.ndarray]:
    """Inputs of `chain`."""
    return {"x": np.random.default_rng(1).normal(size=(n, width)).astype(np.float32)}
