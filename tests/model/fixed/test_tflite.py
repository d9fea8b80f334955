"""TFLite operators in fixed point against the interpreter's reference kernels: every bit."""

from __future__ import annotations

import numpy as np
import pytest

from edgelathe.core.errors import UserError
from edgelathe.model.fixed import tflite
from edgelathe.model.fixed.types import Arithmetic
from support.fixed_tflite import SAME, VALID, agree, drawn, scales
from support.tiny_tflite import Net, T, answers

BIAS_TYPES = {"int32": 2, "int64": 4}  # TensorType of the schema
ACTIVATIONS = {"none": 0, "relu": 1, "relu n1 to 1": 2, "relu6": 3}


def conv(dtype="int8", *, activation=0, padding=SAME, strides=(1, 1), dilations=(1, 1), channels=5, out=6, groups=1,
         size=(3, 3), bias="int32", weights="int8", zero=None, out_scale=0.9):  # fmt: skip
    zero = {"int8": -7, "uint8": 120, "int16": 0}[dtype] if zero is None else zero
    x = T("x", (1, 9, 8, channels), dtype, 0.04, zero)
    low, high = {"int8": (-127, 128), "int4": (-8, 8), "uint8": (0, 256)}[weights]
    values = np.random.default_rng(1).integers(low, high, (out, *size, channels // groups))
    per_channel = dtype != "uint8"
    w_scale = scales(out) if per_channel else 0.011
    w = T("w", (), weights, w_scale, 0 if per_channel else 131, values)
    b_scale = np.float32(0.04) * np.asarray(w_scale, np.float32)
    b = T("b", (), bias, b_scale, 0, np.random.default_rng(2).integers(-3000, 3000, out)) if bias else None
    probe = [SAME, VALID].index(padding)
    h, w_ = (
        -(-n // s) if probe == 0 else (n - (k - 1) * d - 1) // s + 1
        for n, s, k, d in zip((9, 8), strides, size, dilations, strict=True)
    )
    y = T("y", (1, h, w_, out), dtype, out_scale if dtype != "int16" else 0.01, zero and zero + 3)
    net = Net()
    net.op("CONV_2D", [x, w, *([b] if b else [])], [y], table="Conv2DOptions", padding=padding, strideH=strides[0],
           strideW=strides[1], dilationHFactor=dilations[0], dilationWFactor=dilations[1],
           fusedActivationFunction=activation, quantizedBiasType=BIAS_TYPES.get(bias, 0))  # fmt: skip
    return net.build([x], [y])


@pytest.mark.parametrize(
    "options",
    [
        *({"activation": a, "out_scale": 0.05} for a in ACTIVATIONS.values()),
        {"padding": VALID}, {"strides": (2, 2)}, {"strides": (2, 1), "padding": VALID}, {"dilations": (2, 2)},
        {"size": (1, 1)}, {"size": (1, 1), "strides": (2, 2)}, {"size": (2, 5)}, {"channels": 6, "groups": 2},
        {"channels": 3, "groups": 3, "out": 6}, {"weights": "int4"}, {"out_scale": 3e-4},
        {"out_scale": 40.0}, {"dtype": "uint8", "weights": "uint8"}, {"dtype": "int16", "bias": "int64"},
        {"dtype": "int16", "bias": "int32"},
        {"dtype": "int16", "bias": "int64", "strides": (2, 2), "activation": 1},
    ],
    ids=str,
)  # fmt: skip
def test_conv(options):
    dtype = options.get("dtype", "int8")
    agree(conv(**options), {"x": drawn(3, 9, 8, options.get("channels", 5), dtype=dtype)})


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
@pytest.mark.parametrize(
    ("each", "strides", "padding", "activation"), [(1, 1, SAME, 0), (2, 1, SAME, 3), (1, 2, SAME, 1), (3, 2, VALID, 0)]
)
def test_depthwise_conv(dtype, each, strides, padding, activation):
    zero = {"int8": 12, "uint8": 100, "int16": 0}[dtype]
    x = T("x", (1, 7, 6, 4), dtype, 0.03, zero)
    per_channel = dtype != "uint8"
    w_scale = scales(4 * each) if per_channel else 0.01
    values = np.random.default_rng(0).integers(*((-127, 128) if per_channel else (0, 256)), (1, 3, 3, 4 * each))
    w = T("w", (), "int8" if per_channel else "uint8", w_scale, 0 if per_channel else 128, values, axis=3)
    bias = np.random.default_rng(1).integers(-900, 900, 4 * each)
    b = T(
        "b", (), "int64" if dtype == "int16" else "int32", np.float32(0.03) * np.asarray(w_scale, np.float32), 0, bias
    )
    h, w_ = (
        (-(-7 // strides), -(-6 // strides)) if padding == SAME else ((7 - 3) // strides + 1, (6 - 3) // strides + 1)
    )
    y = T("y", (1, h, w_, 4 * each), dtype, 0.05 if dtype != "int16" else 0.001, zero and zero - 4)
    net = Net()
    net.op("DEPTHWISE_CONV_2D", [x, w, b], [y], table="DepthwiseConv2DOptions", padding=padding, strideH=strides,
           strideW=strides, depthMultiplier=each, fusedActivationFunction=activation)  # fmt: skip
    agree(net.build([x], [y]), {"x": drawn(3, 7, 6, 4, dtype=dtype)})


@pytest.mark.parametrize(
    ("dtype", "weights", "per_channel", "bias", "activation"),
    [
        ("int8", "int8", False, "int32", 0), ("int8", "int8", True, "int32", 1), ("int8", "int8", False, None, 3),
        ("int8", "int4", True, "int32", 0), ("uint8", "uint8", False, "int32", 0), ("int16", "int8", False, "int64", 0),
        ("int16", "int8", True, "int64", 1), ("int16", "int8", False, "int32", 0),
    ],
)  # fmt: skip
def test_fully_connected(dtype, weights, per_channel, bias, activation):
    zero = {"int8": -3, "uint8": 130, "int16": 0}[dtype]
    x = T("x", (1, 40), dtype, 0.02, zero)
    low, high = {"int8": (-128, 128), "int4": (-8, 8), "uint8": (0, 256)}[weights]
    w_scale = scales(7) if per_channel else np.float32(0.007)
    values = np.random.default_rng(4).integers(low, high, (7, 40))
    w = T("w", (), weights, w_scale, 0 if weights != "uint8" else 125, values)
    b = T("b", (), bias, np.float32(0.02) * w_scale, 0, drawn(7, dtype="int8").astype(int) * 20) if bias else None
    y = T("y", (1, 7), dtype, 0.15 if dtype != "int16" else 0.002, zero and zero + 9)
    net = Net()
    net.op("FULLY_CONNECTED", [x, w, b], [y], table="FullyConnectedOptions", fusedActivationFunction=activation,
           quantizedBiasType=BIAS_TYPES.get(bias, 0))  # fmt: skip
    agree(net.build([x], [y]), {"x": drawn(50, 40, dtype=dtype)})


def test_fully_connected_on_rows_keeps_its_rank():
    x, w = T("x", (1, 5, 8), "int8", 0.02, 1), T("w", (), "int8", 0.01, 0, drawn(3, 8, seed=3))
    y = T("y", (1, 5, 3), "int8", 0.1, 2)
    net = Net()
    net.op("FULLY_CONNECTED", [x, w, None], [y], table="FullyConnectedOptions", keepNumDims=True)
    agree(net.build([x], [y]), {"x": drawn(4, 5, 8)})


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
@pytest.mark.parametrize("kind", ["ADD", "SUB", "MUL"])
@pytest.mark.parametrize("activation", [0, 1, 3])
@pytest.mark.parametrize("shape", [(1, 4, 5, 3), (1, 1, 1, 3)])
def test_sums_and_products(dtype, kind, activation, shape):
    zeros = {"int8": (-7, 20, -30), "uint8": (120, 3, 90), "int16": (0, 0, 0)}[dtype]
    small = 1 if dtype != "int16" else 1 / 256
    a, b = T("a", (1, 4, 5, 3), dtype, 0.05 * small, zeros[0]), T("b", shape, dtype, 0.013 * small, zeros[1])
    y = T("y", (1, 4, 5, 3), dtype, 0.04 * small * (1 if kind != "MUL" else 0.7), zeros[2])
    table = {"ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions"}[kind]
    net = Net()
    more = {} if kind == "MUL" else {"potScaleInt16": False}
    net.op(kind, [a, b], [y], table=table, fusedActivationFunction=activation, **more)
    inputs = {"a": drawn(3, 4, 5, 3, dtype=dtype), "b": drawn(3, *shape[1:], dtype=dtype, seed=1)}
    agree(net.build([a, b], [y]), inputs)


@pytest.mark.parametrize("kind", ["ADD", "SUB"])
@pytest.mark.parametrize("powers", [(-15, -12, -12), (-12, -15, -12), (-12, -12, -12)])
def test_sums_of_16_bits_with_scales_of_powers_of_two(kind, powers):
    a, b, y = (T(n, (1, 200), "int16", 2.0**p, 0) for n, p in zip("aby", powers, strict=True))
    net = Net()
    net.op(kind, [a, b], [y], table={"ADD": "AddOptions", "SUB": "SubOptions"}[kind], potScaleInt16=True)
    agree(net.build([a, b], [y]), {"a": drawn(2, 200, dtype="int16"), "b": drawn(2, 200, dtype="int16", seed=1)})


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
@pytest.mark.parametrize("kind", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
@pytest.mark.parametrize(("size", "strides", "padding"), [(3, 2, SAME), (2, 2, VALID), (3, 1, SAME)])
@pytest.mark.parametrize("activation", [0, 1])
def test_pooling(dtype, kind, size, strides, padding, activation):
    zero = {"int8": -20, "uint8": 99, "int16": 0}[dtype]
    side = -(-7 // strides) if padding == SAME else (7 - size) // strides + 1
    x, y = T("x", (1, 7, 7, 3), dtype, 0.1, zero), T("y", (1, side, side, 3), dtype, 0.1, zero)
    net = Net()
    net.op(kind, [x], [y], table="Pool2DOptions", padding=padding, strideH=strides, strideW=strides,
           filterHeight=size, filterWidth=size, fusedActivationFunction=activation)  # fmt: skip
    agree(net.build([x], [y]), {"x": drawn(4, 7, 7, 3, dtype=dtype)})


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
@pytest.mark.parametrize("axes", [[1, 2], [1], [3], [1, 2, 3]])
@pytest.mark.parametrize("keep", [True, False])
def test_mean(dtype, axes, keep):
    zero = {"int8": 15, "uint8": 99, "int16": 0}[dtype]
    shape = [1, 7, 6, 5]
    left = [1 if i in axes else n for i, n in enumerate(shape) if keep or i not in axes]
    x, y = T("x", tuple(shape), dtype, 0.1, zero), T("y", tuple(left), dtype, 0.03, zero and zero - 11)
    net = Net()
    net.op("MEAN", [x, T("axes", (), "int32", values=axes)], [y], table="ReducerOptions", keepDims=keep)
    agree(net.build([x], [y]), {"x": drawn(4, 7, 6, 5, dtype=dtype)})


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
@pytest.mark.parametrize("scale", [0.001, 0.06, 0.2, 1.5])
@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_softmax(dtype, scale, beta):
    out = {"int8": (1 / 256, -128), "uint8": (1 / 256, 0), "int16": (1 / 32768, 0)}[dtype]
    x = T("x", (1, 11), dtype, scale if dtype != "int16" else scale / 100, 5 if dtype != "int16" else 0)
    y = T("y", (1, 11), dtype, *out)
    net = Net()
    net.op("SOFTMAX", [x], [y], table="SoftmaxOptions", beta=beta)
    some = drawn(300, 11, dtype=dtype)
    close = np.clip(drawn(300, 11, dtype=dtype, seed=1) // 40, np.iinfo(dtype).min, 127).astype(dtype)
    agree(net.build([x], [y]), {"x": np.concatenate([some, close, np.zeros((1, 11), dtype)])})


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
@pytest.mark.parametrize("kind", ["RELU", "RELU6", "RELU_N1_TO_1"])
def test_relu_of_its_own(dtype, kind):
    if (dtype, kind) == ("int16", "RELU_N1_TO_1"):
        pytest.skip("TFLite has no such kernel")
    zero = {"int8": -7, "uint8": 90, "int16": 0}[dtype]
    x, y = T("x", (1, 200), dtype, 0.07, zero), T("y", (1, 200), dtype, 0.05, zero and zero + 10)
    net = Net()
    net.op(kind, [x], [y])
    agree(net.build([x], [y]), {"x": drawn(5, 200, dtype=dtype)})


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
@pytest.mark.parametrize("alpha", [0.1, 0.3, 1.2])
def test_leaky_relu(dtype, alpha):
    zero = {"int8": -7, "uint8": 90, "int16": 0}[dtype]
    x, y = T("x", (1, 200), dtype, 0.07, zero), T("y", (1, 200), dtype, 0.05, zero and zero + 10)
    net = Net()
    net.op("LEAKY_RELU", [x], [y], table="LeakyReluOptions", alpha=alpha)
    agree(net.build([x], [y]), {"x": drawn(5, 200, dtype=dtype)})


@pytest.mark.parametrize("kind", ["LOGISTIC", "TANH"])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
@pytest.mark.parametrize("scale", [0.0003, 0.02, 0.11, 2.0**-12, 2.0**-11])
def test_sigmoids(kind, dtype, scale):
    if dtype == "int16" and scale > 0.01:
        scale /= 100
    out = {"LOGISTIC": {"int8": (1 / 256, -128), "uint8": (1 / 256, 0), "int16": (1 / 32768, 0)},
           "TANH": {"int8": (1 / 128, 0), "uint8": (1 / 128, 128), "int16": (1 / 32768, 0)}}[kind][dtype]  # fmt: skip
    x, y = T("x", (1, 256), dtype, scale, 0 if dtype == "int16" else 9), T("y", (1, 256), dtype, *out)
    net = Net()
    net.op(kind, [x], [y])
    every = np.arange(np.iinfo(dtype).min, np.iinfo(dtype).max + 1).astype(dtype).reshape(-1, 256)
    agree(net.build([x], [y]), {"x": every})


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("scale", [0.003, 0.02, 0.1, 0.9])
@pytest.mark.parametrize("zero", [-100, 0, 60])
def test_hard_swish(dtype, scale, zero):
    zero = zero if dtype == "int8" else zero + 128
    x, y = T("x", (1, 256), dtype, scale, zero), T("y", (1, 256), dtype, scale * 0.8, zero)
    net = Net()
    net.op("HARD_SWISH", [x], [y])
    every = np.arange(np.iinfo(dtype).min, np.iinfo(dtype).max + 1).astype(dtype).reshape(1, 256)
    agree(net.build([x], [y]), {"x": every})


@pytest.mark.parametrize("approximate", [True, False])
def test_gelu(approximate):
    x, y = T("x", (1, 256), "int8", 0.031, -3), T("y", (1, 256), "int8", 0.017, -110)
    net = Net()
    net.op("GELU", [x], [y], table="GeluOptions", approximate=approximate)
    agree(net.build([x], [y]), {"x": np.arange(-128, 128).astype(np.int8).reshape(1, 256)})


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)])
def test_batch_matmul(dtype, turned):
    zeros = (5, -9, 3) if dtype == "int8" else (0, 0, 0)
    left, right = ((7, 40), (40, 9))
    left, right = (s[::-1] if t else s for s, t in zip((left, right), turned, strict=True))
    a, b = T("a", (1, 3, *left), dtype, 0.02, zeros[0]), T("b", (1, 3, *right), dtype, 0.011, zeros[1])
    y = T("y", (1, 3, 7, 9), dtype, 0.5 if dtype == "int8" else 70.0, zeros[2])
    net = Net()
    net.op("BATCH_MATMUL", [a, b], [y], table="BatchMatMulOptions", adjX=turned[0], adjY=turned[1])
    agree(net.build([a, b], [y]), {"a": drawn(4, 3, *left, dtype=dtype), "b": drawn(4, 3, *right, dtype=dtype, seed=1)})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("int8", 0.05, -3), ("int8", 0.031, 8)), (("uint8", 0.05, 128), ("int8", 0.05, 0)),
        (("int8", 0.05, 0), ("uint8", 0.05, 128)), (("int8", 0.05, -3), ("int16", 0.0007, 0)),
        (("int16", 0.001, 0), ("int8", 0.21, -9)), (("int16", 0.001, 0), ("int16", 0.0013, 0)),
        (("uint8", 0.0078431, 127), ("int8", 0.0078431, -1)),
    ],
)  # fmt: skip
def test_change_of_grid(before, after):
    x, y = T("x", (1, 256), *before), T("y", (1, 256), *after)
    net = Net()
    net.op("QUANTIZE", [x], [y])
    agree(net.build([x], [y]), {"x": drawn(20, 256, dtype=before[0])})


@pytest.mark.parametrize("to", [("int8", 0.037, -3), ("uint8", 0.037, 100), ("int16", 0.0003, 0)])
def test_quantize_and_dequantize(to):
    x, q, y = T("x", (1, 1000), "float32"), T("q", (1, 1000), *to), T("y", (1, 1000), "float32")
    net = Net()
    net.op("QUANTIZE", [x], [q])
    net.op("DEQUANTIZE", [q], [y])
    halves = ((np.arange(1000) - 500) * np.float32(to[1]) / 2).astype(np.float32)
    wild = np.random.default_rng(0).normal(size=1000).astype(np.float32) * 20
    agree(net.build([x], [q, y]), {"x": np.stack([halves, wild])})


def test_values_are_only_moved():
    a, b = T("a", (1, 4, 4, 2), "int8", 0.1, 5), T("b", (1, 4, 4, 3), "int8", 0.1, 5)
    net = Net()
    grid = ("int8", 0.1, 5)
    joined = T("joined", (1, 4, 4, 5), *grid)
    padded = T("padded", (1, 7, 5, 5), *grid)
    turned = T("turned", (1, 5, 7, 5), *grid)
    flat = T("flat", (1, 175), *grid)
    cut = T("cut", (1, 60), *grid)
    net.op("CONCATENATION", [a, b], [joined], table="ConcatenationOptions", axis=3)
    net.op("PAD", [joined, T("widths", (), "int32", values=[[0, 0], [1, 2], [0, 1], [0, 0]])], [padded])
    net.op("TRANSPOSE", [padded, T("order", (), "int32", values=[0, 2, 1, 3])], [turned], table="TransposeOptions")
    net.op("RESHAPE", [turned, T("shape", (), "int32", values=[1, 175])], [flat], table="ReshapeOptions")
    begin, end, stride = (T(n, (), "int32", values=v) for n, v in (("b0", [0, 5]), ("e0", [1, 125]), ("s0", [1, 2])))
    net.op("STRIDED_SLICE", [flat, begin, end, stride], [cut], table="StridedSliceOptions")
    model = net.build([a, b], [cut, padded])
    agree(model, {"a": drawn(1, 4, 4, 2), "b": drawn(1, 4, 4, 3, seed=1)})


@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"])
@pytest.mark.parametrize("asymmetric", [True, False])
def test_hybrid_operators(kind, asymmetric):
    values = np.random.default_rng(7).normal(size=(4, 6, 6, 4)).astype(np.float32) * 3
    values[1] = np.abs(values[1])
    net = Net()
    if kind == "FULLY_CONNECTED":
        values = values.reshape(12, 48)
        values[5] = 0
        x, y = T("x", (1, 48), "float32"), T("y", (1, 9), "float32")
        w, b = T("w", (), "int8", 0.01, 0, drawn(9, 48, seed=1)), T("b", (), "float32", values=np.linspace(-1, 1, 9))
        options = {"table": "FullyConnectedOptions", "asymmetricQuantizeInputs": asymmetric}
    else:
        deep = kind == "DEPTHWISE_CONV_2D"
        shape, count = ((1, 3, 3, 4), 4) if deep else ((5, 3, 3, 4), 5)
        x, y = T("x", (1, 6, 6, 4), "float32"), T("y", (1, 6, 6, count), "float32")
        w = T("w", (), "int8", scales(count), 0, drawn(*shape, seed=1), axis=3 if deep else 0)
        b = T("b", (), "float32", values=np.linspace(-1, 1, count))
        options = {"table": f"{'Depthwise' if deep else ''}Conv2DOptions", "strideH": 1, "strideW": 1}
        options |= {"depthMultiplier": 1} if deep else {}
    net.op(kind, [x, w, b], [y], **options)
    model = net.build([x], [y])
    got = tflite.program(model, Arithmetic()).run({"x": values}, lambda _: None).simulated[0].data
    np.testing.assert_allclose(got, answers(model, {"x": values})[0], rtol=3e-7, atol=3e-7)


def test_an_operator_without_kernel_is_named():
    x, y = T("x", (1, 8), "int8", 0.1, 0), T("y", (1, 8), "int8", 0.1, 0)
    net = Net()
    net.op("ELU", [x], [y])
    with pytest.raises(UserError, match=r"tiny: y: ELU has no fixed-point kernel") as e:
        tflite.program(net.build([x], [y]), Arithmetic())
    assert e.value.code == 2


@pytest.mark.parametrize(
    ("op", "why"),
    [("UNIDIRECTIONAL_SEQUENCE_LSTM", "it keeps a state from step to step"), ("WHILE", "it runs a subgraph")],
)
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_recurrent_layers_are_refused_with_what_can_be_done(op, why, dtype):
    x, y = (T(n, (1, 4, 8), dtype, 0.1 if dtype == "int8" else None, 0) for n in ("x", "y"))
    net = Net()
    net.op(op, [x, T("w", (), dtype, 0.1 if dtype == "int8" else None, 0, np.ones((8, 8), dtype))], [y])
    with pytest.raises(UserError, match=rf"tiny: y: {op} is not simulated: {why}.*; export it unrolled"):
        tflite.program(net.build([x], [y]), Arithmetic())


def test_weights_whose_scales_lie_elsewhere_are_refused():
    """Blockwise weights keep their scales in another tensor: taken as plain numbers they would answer nonsense."""
    x, y = T("x", (1, 8), "float32"), T("y", (1, 2), "float32")
    net = Net()
    weights = T("w", (), "int4", None, 0, np.ones((2, 8), np.int8))
    net.op("FULLY_CONNECTED", [x, weights, None], [y], table="FullyConnectedOptions")
    with pytest.raises(UserError, match="tiny: y: FULLY_CONNECTED has int4 weights whose scales"):
        tflite.program(net.build([x], [y]), Arithmetic())


def test_an_activation_that_is_not_simulated_is_refused():
    x, y = T("x", (1, 8), "int8", 0.1, 0), T("y", (1, 8), "int8", 0.1, 0)
    net = Net()
    net.op("ADD", [x, x], [y], table="AddOptions", fusedActivationFunction=4)
    with pytest.raises(UserError, match="activation number 4"):
        tflite.program(net.build([x], [y]), Arithmetic())


def test_a_move_that_changes_the_scale_is_refused():
    x, y = T("x", (1, 8), "int8", 0.1, 0), T("y", (1, 2, 4), "int8", 0.2, 0)
    net = Net()
    net.op("RESHAPE", [x], [y])
    with pytest.raises(UserError, match="changes the scale of what it moves"):
        tflite.program(net.build([x], [y]), Arithmetic())


def test_a_shape_that_is_computed():
    """How converters write a flattening of an open batch: its length is read off the input."""
    x = T("x", (1, 2, 6), "int8", 0.1, 3)
    dims, count, shape = T("dims", (3,), "int32"), T("count", (), "int32"), T("shape", (2,), "int32")
    y = T("y", (1, 12), "int8", 0.1, 3)
    net = Net()
    net.op("SHAPE", [x], [dims], table="ShapeOptions", outType=2)
    ends = [T(n, (), "int32", values=[v]) for n, v in (("begin", 0), ("end", 1), ("by", 1))]
    net.op("STRIDED_SLICE", [dims, *ends], [count], table="StridedSliceOptions", shrinkAxisMask=1)
    width = T("width", (), "int32", values=np.array(12))
    net.op("PACK", [count, width], [shape], table="PackOptions", valuesCount=2, axis=0)
    net.op("RESHAPE", [x, shape], [y], table="ReshapeOptions")
    model = net.build([x], [y])
    assert tflite.program(model, Arithmetic()).batch is None
    agree(model, {"x": drawn(5, 2, 6)})
