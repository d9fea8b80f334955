"""int4 against ONNX Runtime's own 4-bit quantizer at the same block size: bytes, and error of the answers.

The models are a transformer block and an MLP with weights and inputs that have outlier channels, as trained ones do.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgelathe.compress.graph import fold
from edgelathe.compress.types import Context
from edgelathe.compress.weight_only import int4
from edgelathe.core.dataset import Dataset
from edgelathe.model import onnx as onnx_model
from support.tiny_onnx import Graph, outputs, sqnr

if TYPE_CHECKING:
    from edgelathe.model.types import Model

pytestmark = pytest.mark.bench
BLOCK = 32
CALIB, HELD = 256, 256


def outliers(rng, size):
    """Gains of channels: most near 1, a few far above."""
    gain = rng.lognormal(0, 0.4, size)
    gain[rng.permutation(size)[: size // 32]] *= 8
    return gain.astype(np.float32)


def mlp(width=512) -> tuple[Model, tuple[int, ...]]:
    g = Graph(1)
    y = g.op("Mul", "x", g.const(outliers(g.rng, width)))
    for i in range(3):
        y = g.op("MatMul", y, g.weights(width, width), name=f"fc{i}")
        y = g.op("Relu", g.op("Add", y, g.const((g.rng.normal(size=width) * 0.1).astype(np.float32))))
    return g.build(g.op("MatMul", y, g.weights(width, 10), name="head"), shape=("n", width), opset=17), (width,)


def transformer(dim=256, words=16, heads=4) -> tuple[Model, tuple[int, ...]]:
    g = Graph(2)
    split, merge = g.const(np.array([0, 0, heads, -1], np.int64)), g.const(np.array([0, 0, -1], np.int64))

    def linear(x, inputs, count, name):
        y = g.op("MatMul", x, g.weights(inputs, count), name=name)
        return g.op("Add", y, g.const((g.rng.normal(size=count) * 0.1).astype(np.float32)))

    def norm(x):
        return g.op("LayerNormalization", x, g.const(outliers(g.rng, dim)), g.const(np.zeros(dim, np.float32)), axis=-1)

    y = "x"
    for layer in range(2):
        h = norm(y)
        q, k, v = (g.op("Reshape", linear(h, dim, dim, f"{layer}.{n}"), split) for n in "qkv")
        q, v = (g.op("Transpose", t, perm=[0, 2, 1, 3]) for t in (q, v))
        scores = g.op("Mul", g.op("MatMul", q, g.op("Transpose", k, perm=[0, 2, 3, 1])), g.const(np.float32(0.125)))
        mixed = g.op("Transpose", g.op("MatMul", g.op("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
        y = g.op("Add", y, linear(g.op("Reshape", mixed, merge), dim, dim, f"{layer}.o"))
        up = linear(norm(y), dim, 4 * dim, f"{layer}.up")
        erf = g.op("Add", g.op("Erf", g.op("Mul", up, g.const(np.float32(2**-0.5)))), g.const(np.float32(1)))
        gelu = g.op("Mul", g.op("Mul", up, g.const(np.float32(0.5))), erf)
        y = g.op("Add", y, linear(gelu, 4 * dim, dim, f"{layer}.down"))
    pooled = g.op("ReduceMean", norm(y), axes=[1], keepdims=0)
    return g.build(g.op("MatMul", pooled, g.weights(dim, 10), name="head"), shape=("n", words, dim), opset=17), (
        words,
        dim,
    )


def drawn(shape, count, seed) -> Dataset:
    """Inputs with channels that go together."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(shape[-1], shape[-1])) / np.sqrt(shape[-1]) + np.eye(shape[-1])
    x = np.random.default_rng(seed).normal(size=(count, *shape)) @ mix
    return Dataset("drawn", {"x": x.astype(np.float32)})


def hqq(model: Model) -> Model:
    """Float weights as half-quadratic quantization leaves them (Badri and Shaji, 2023), with the settings that ONNX
    Runtime's quantizer has: it needs torch, so the method is written out here. Zero points are real numbers."""
    import onnx

    proto = onnx_model.to_proto(model)
    weights = {n.input[1] for n in proto.graph.node if n.op_type == "MatMul"}
    for tensor in proto.graph.initializer:
        if tensor.name not in weights:
            continue
        w = onnx.numpy_helper.to_array(tensor).T
        cut = w.reshape(len(w), -1, BLOCK)
        low, high = cut.min(2, keepdims=True), cut.max(2, keepdims=True)
        scale = 15 / np.maximum(high - low, 1e-9)
        zero, beta, best = np.rint(-low * scale), 10.0, np.inf
        for _ in range(20):
            real = (np.clip(np.rint(cut * scale + zero), 0, 15) - zero) / scale
            e = cut - real
            if np.abs(e).mean() >= best:
                break
            best = np.abs(e).mean()
            shrunk = np.sign(e) * np.maximum(np.abs(e) - (np.abs(e) + 1e-8) ** -0.3 / beta, 0)
            codes = np.clip(np.rint(cut * scale + zero), 0, 15)
            zero = (codes - (cut - shrunk) * scale).mean(2, keepdims=True)
            beta *= 1.01
        real = (np.clip(np.rint(cut * scale + zero), 0, 15) - zero) / scale
        tensor.CopyFrom(onnx.numpy_helper.from_array(real.reshape(w.shape).T.astype(np.float32), tensor.name))
    return onnx_model.from_proto(proto, "hqq")


def theirs(model: Model, calib: Dataset) -> dict[str, Model]:
    """By ONNX Runtime's round to nearest, both kinds, k-quant, GPTQ, and HQQ as it computes it."""
    from onnxruntime.quantization import matmul_nbits_quantizer as peer
    from onnxruntime.quantization.neural_compressor import util

    util.to_numpy = np.asarray  # its own asks torch what an array is

    class Reader:
        def __init__(self) -> None:
            self.rows = iter([{"x": row[None]} for row in calib.inputs["x"]])

        def __deepcopy__(self, _memo):
            return Reader()

        def __iter__(self):
            return self.rows

    configs = {
        "nearest, symmetric": peer.DefaultWeightOnlyQuantConfig(BLOCK, is_symmetric=True),
        "nearest": peer.DefaultWeightOnlyQuantConfig(BLOCK),
        "k-quant": peer.KQuantWeightOnlyQuantConfig(),
        "GPTQ": peer.GPTQWeightOnlyQuantConfig(Reader()),
        "GPTQ, mse": peer.GPTQWeightOnlyQuantConfig(Reader(), mse=True),
    }
    out = {"HQQ": hqq(model)}
    for name, config in configs.items():
        made = peer.MatMulNBitsQuantizer(onnx_model.to_proto(model), block_size=BLOCK, algo_config=config)
        made.process()
        proto = made.model if hasattr(made.model, "graph") and not callable(made.model.graph) else made.model.model
        out[name] = onnx_model.from_proto(proto, "theirs")
    return out


@pytest.mark.parametrize("build", [mlp, transformer])
def test_against_onnx_runtime(build):
    model, shape = build()
    folded = fold.apply(model, fold.Options(), Context()).model
    calib, held = drawn(shape, CALIB, 1), drawn(shape, HELD, 2)
    want = outputs(model, held)[0]
    print(f"\n{build.__name__}: {model.bytes:,} bytes")

    def told(by, made, seconds=None):
        error = sqnr(want, outputs(made, held)[0])
        changed = int((outputs(made, held)[0].argmax(1) != want.argmax(1)).sum())
        print(f"{by:44} {error:6.2f} dB {changed:4} of {HELD} changed {made.bytes:10,} bytes {seconds or 0:6.2f} s")
        return error

    best = max(told(f"ONNX Runtime, {name}", made) for name, made in theirs(model, calib).items())
    ours = {}
    for symmetric in (True, False):
        for data in (None, calib):
            start = time.perf_counter()
            made = int4.apply(folded, int4.Options(block=BLOCK, symmetric=symmetric), Context(data=data)).model
            seconds = time.perf_counter() - start
            name = f"edgelathe{', symmetric' if symmetric else ''}{', calibrated' if data else ''}"
            ours[symmetric, data is not None] = told(name, made, seconds)
    assert ours[False, True] > best
