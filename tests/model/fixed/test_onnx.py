"""What the simulator does with ONNX files beside agreeing with ONNX Runtime on static integer ones."""

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgelathe.compress.integer import int8_dynamic
from edgelathe.compress.types import Context
from edgelathe.core.errors import UserError
from edgelathe.core.profile import Hardware
from edgelathe.model import onnx as onnx_model
from edgelathe.model import run
from edgelathe.model.fixed import onnx
from edgelathe.model.fixed.onnx_rescale import Target
from edgelathe.model.fixed.simulate import simulate
from edgelathe.model.fixed.types import Arithmetic
from support.onnx_quantized import MODELS, quantized, tensors
from support.tiny_onnx import Graph, operators, samples

SMALL = {"w": np.array([[3, -2], [1, 5]], np.int8), "b": np.array([10, -10], np.int32)}


def gemm(scale_out, *, zero=0, kind="uint8", big=1):
    """x on a grid of 0.5, times a small matrix on 0.25, on a grid of `scale_out`."""
    g = Graph()
    codes = np.dtype(kind).type(0)
    x = g.op("QuantizeLinear", "x", g.const(np.float32(0.5)), g.const(codes))
    a = g.op("DequantizeLinear", x, g.const(np.float32(0.5)), g.const(codes))
    w = g.op("DequantizeLinear", g.const(SMALL["w"] * np.int8(big)), g.const(np.float32(0.25)), g.const(np.int8(0)))
    b = g.op("DequantizeLinear", g.const(SMALL["b"]), g.const(np.float32(0.125)), g.const(np.int32(0)))
    y = g.op("Gemm", a, w, b, name="dense")
    q = g.op("QuantizeLinear", y, g.const(np.float32(scale_out)), g.const(np.dtype(kind).type(zero)))
    return g.build(
        g.op("DequantizeLinear", q, g.const(np.float32(scale_out)), g.const(np.dtype(kind).type(zero))),
        shape=("n", 2),
        opset=21,
        ir_version=10,
    )


def answers(model, x, **more):
    heard = {}
    out = onnx.program(model, **more).run({"x": np.asarray(x, np.float32)}, lambda a: heard.__setitem__(a.layer, a))
    return heard, out


def test_a_layer_by_hand():
    # Integers of x: 2 4; sums: 2*3 + 4*1 + 10 = 20, -4 + 20 - 10 = 6; times 0.125: 2.5 and 0.75.
    heard, out = answers(gemm(0.5, zero=3), [[1, 2]])
    dense = heard["dense"]
    assert dense.op == "Gemm"
    assert dense.simulated.data.tolist() == [[8, 5]]  # 2.5 / 0.5 = 5, 0.75 / 0.5 = 1.5, to even 2
    assert dense.simulated.real.tolist() == [[2.5, 1.0]]
    assert dense.exact.tolist() == [[2.5, 0.75]]
    assert (dense.clipped, dense.overflows) == (0, 0)
    assert out.simulated[0].data.dtype == np.float32
    assert out.simulated[0].data.tolist() == [[2.5, 1.0]]


def test_what_the_grid_has_no_room_for_is_counted_unless_an_activation_cut_it():
    heard, _ = answers(gemm(0.005, zero=3), [[1, 2], [0, 0]])  # 2.5 is 500 steps; -1.25 is -250
    assert heard["dense"].clipped == 2
    heard, _ = answers(gemm(0.005, zero=0), [[1, 2], [0, 0]])  # the grid starts at 0, as behind a Relu
    assert heard["dense"].clipped == 1
    heard, _ = answers(gemm(0.5), [[-1, 500]])
    assert heard["x"].clipped == 1


@pytest.mark.parametrize(("overflow", "wanted"), [("wrap", -1), ("saturate", 1)])
def test_sums_that_do_not_fit_the_accumulator(overflow, wanted):
    model = gemm(2000.0, kind="int16", big=20)
    x = np.full((1, 2), 5000, np.float32)
    heard, _ = answers(model, x, target=Target(Arithmetic(wide=64)))
    assert heard["dense"].overflows == 0
    narrow = Target(Arithmetic(wide=20, overflow=overflow))
    heard, _ = answers(model, x, target=narrow)
    assert heard["dense"].overflows == 2
    assert np.sign(heard["dense"].simulated.data[0, 0]) == wanted


def test_layers_without_integer_kernels_are_named():
    model = quantized(MODELS["islands"]())
    program = onnx.program(model)
    found = simulate(program, dict(samples(model, 4).inputs))
    assert set(program.floats.values()) == {"Sub", "Tanh", "Div", "Abs", "Neg", "Exp"}
    names = {n.name for n in onnx_model.to_proto(MODELS["islands"]()).graph.node}
    assert {layer.name for layer in found.layers if layer.op not in ("QuantizeLinear",)} <= names
    assert all(layer.sqnr_db is None or layer.sqnr_db > 15 for layer in found.layers)


def test_a_reference_gives_the_float_answers():
    model = MODELS["convolutions"]()
    data = dict(samples(model, 4).inputs)
    found = simulate(onnx.program(quantized(model), reference=model), data)
    np.testing.assert_allclose(found.exact, run.outputs(model, data)[0], rtol=1e-4, atol=1e-5)
    assert found.layers[-1].sqnr_db > 20


def test_samples_may_be_cut_in_any_chunks():
    model = quantized(MODELS["pools"]())
    data = dict(samples(model, 6).inputs)
    whole = onnx.program(model).run(data).simulated[0].data
    program = onnx.program(model)
    parts = [program.run({"x": data["x"][i : i + 2]}).simulated[0].data for i in (0, 2, 4)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


@pytest.mark.parametrize("name", ["convolutions", "transformer", "sequence"])
def test_activations_quantized_on_the_fly(name):
    model = MODELS[name]()
    options = int8_dynamic.resolve(int8_dynamic.Options(), Hardware(None, frozenset()))
    made = int8_dynamic.apply(model, options, Context()).model
    data = dict(samples(model, 1).inputs)
    ours = onnx.program(made).run(data)
    (name_,) = (o.name for o in made.signature.outputs)
    np.testing.assert_allclose(ours.simulated[0].data, tensors(made, data, [name_])[name_], rtol=1e-4, atol=1e-5)
    if "MatMulInteger" in operators(made):  # without rounding on the fly only the weights are off
        without, wanted = ours.exact[0], run.outputs(model, data)[0]
        assert 0 < np.abs(without - wanted).max() < np.abs(ours.simulated[0].data - wanted).max()


@pytest.mark.parametrize(("bits", "zeros"), [(4, True), (4, False), (8, True), (2, False)])
def test_blockwise_weights(bits, zeros):
    rng, k, n, block = np.random.default_rng(0), 40, 12, 16
    blocks = -(-k // block)
    held = {
        "w": rng.integers(0, 256, (n, blocks, block * bits // 8)).astype(np.uint8),
        "s": rng.uniform(0.01, 0.1, n * blocks).astype(np.float32),
        "z": rng.integers(0, 256, n * -(-blocks * bits // 8)).astype(np.uint8),
    }
    names = ["w", "s", "z"][: 3 if zeros else 2]
    node = helper.make_node(
        "MatMulNBits", ["x", *names], ["y"], domain="com.microsoft", K=k, N=n, block_size=block, bits=bits
    )
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, k])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, n])],
        [numpy_helper.from_array(held[name], name) for name in names],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = onnx_model.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=8), "blocks")
    x = {"x": rng.normal(size=(3, k)).astype(np.float32)}
    (theirs,) = ort.InferenceSession(model.data, providers=["CPUExecutionProvider"]).run(None, x)
    np.testing.assert_allclose(onnx.program(model).run(x).simulated[0].data, theirs, rtol=1e-4, atol=1e-4)


def test_recurrent_layers_and_branches_run_as_the_standard_says():
    g = Graph()
    out = g.op("LSTM", "x", g.weights(1, 32, 4), g.weights(1, 32, 8), hidden_size=8, outputs=3)[0]
    then, other = (
        helper.make_graph([helper.make_node(op, [out], [op.lower()])], op,
                          [], [helper.make_tensor_value_info(op.lower(), TensorProto.FLOAT, None)])
        for op in ("Neg", "Abs")
    )  # fmt: skip
    g.nodes.append(helper.make_node("If", [g.const(np.array(True))], ["y"], then_branch=then, else_branch=other))
    model = g.build("y", shape=(5, 2, 4))
    x = {"x": np.random.default_rng(0).normal(size=(5, 2, 4)).astype(np.float32)}
    (theirs,) = ort.InferenceSession(model.data, providers=["CPUExecutionProvider"]).run(None, x)
    np.testing.assert_allclose(onnx.program(model).run(x).simulated[0].data, theirs, rtol=1e-5, atol=1e-6)


def test_unknown_operators_are_refused_by_name():
    node = helper.make_node("NhwcMaxPool", ["x"], ["y"], name="odd", domain="com.microsoft", kernel_shape=[2, 2])
    ends = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, 8, 8]) for n in "xy")
    graph = helper.make_graph([node], "g", [next(ends)], [next(ends)])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = onnx_model.from_proto(helper.make_model(graph, opset_imports=opsets), "odd")
    with pytest.raises(UserError, match=r"odd: .*com.microsoft.NhwcMaxPool"):
        onnx.program(model).run({"x": np.zeros((1, 3, 8, 8), np.float32)})


def test_a_branch_is_taken_by_the_sum_of_each_sample_alone():
    g = Graph()
    y = g.op("MatMul", "x", g.weights(8, 4), name="fc")
    total = g.op("ReduceSum", y, keepdims=0, name="s")
    ends = helper.make_tensor_value_info("b", TensorProto.FLOAT, ["n", 4])
    one, other = (helper.make_graph([helper.make_node(k, [y], ["b"])], k, [], [ends]) for k in ("Relu", "Neg"))
    up = g.op("Greater", total, g.const(np.float32(0)))
    model = g.build(g.op("If", up, then_branch=one, else_branch=other), shape=("n", 8))
    data = dict(samples(model, 12).inputs)
    program = onnx.program(model)
    assert program.batch == 1
    found = simulate(program, data)
    np.testing.assert_allclose(found.real, run.outputs(model, data)[0], rtol=1e-4, atol=1e-5)
    assert {la.name: la.mse for la in found.layers}["s"] == 0.0


def test_samples_go_alone_where_they_would_not_stay_apart():
    assert onnx.program(quantized(MODELS["pools"]())).batch is None
    options = int8_dynamic.resolve(int8_dynamic.Options(), Hardware(None, frozenset()))
    made = int8_dynamic.apply(MODELS["transformer"](), options, Context()).model
    assert onnx.program(made).batch == 1
    g = Graph()
    flat = g.op("Reshape", g.conv("x", 3, 8), g.const(np.array([1, 512])))
    model = quantized(g.build(g.op("MatMul", flat, g.weights(512, 3))), weights="QUInt8")  # exact on every machine
    data = dict(samples(model, 3).inputs)
    found = simulate(onnx.program(model), data)
    np.testing.assert_allclose(found.real, run.outputs(model, data)[0], rtol=1e-4, atol=1e-4)


def test_data_of_another_shape_are_refused_with_the_layer():
    model = MODELS["sequence"]()
    with pytest.raises(UserError, match="Conv 'Conv_0' cannot be computed"):
        onnx.program(model).run({"x": np.zeros((1, 4, 17), np.float32)})


def test_nan_is_stored_as_the_runtime_stores_it():
    heard, _ = answers(gemm(0.5, zero=3), [[np.nan, np.inf]])
    assert heard["x"].simulated.data.tolist() == [[0, 255]]


def test_shared_weights_and_two_inputs():
    g, shape = Graph(), ("n", 3, 8, 8)
    w = g.weights(8, 3, 3, 3)
    a, b = (g.op("Relu", g.op("Conv", x, w, pads=[1] * 4)) for x in ("x", "z"))
    total = g.op("Add", a, b)
    more = [helper.make_tensor_value_info("z", TensorProto.FLOAT, shape)]
    model = quantized(g.build([g.conv(total, 8, 4), g.op("GlobalAveragePool", total)], inputs=more))
    feed, names = dict(samples(model, 4).inputs), [o.name for o in model.signature.outputs]
    # Exact products of shared weights make ONNX Runtime fail, so pairs are added as this machine does, or not at all.
    theirs = tensors(model, feed, names, optimize=False, config={})
    ours = onnx.program(model).run(feed, exact=False).simulated
    for wanted, value in zip(theirs.values(), ours, strict=True):
        assert value.data.shape == wanted.shape
        np.testing.assert_allclose(value.data, wanted, atol=0.05)


@pytest.mark.parametrize("kind", ["INT4", "UINT4"])
def test_four_bit_weights_in_blocks(kind):
    rng, k, n, block = np.random.default_rng(0), 32, 6, 16
    dtype, shift = TensorProto.DataType.Value(kind), 8 if kind == "UINT4" else 0
    codes, zeros = (rng.integers(-8, 8, s) + shift for s in ((k, n), (k // block, n)))
    held = [
        helper.make_tensor("w", dtype, codes.shape, codes.ravel().tolist()),
        numpy_helper.from_array(rng.uniform(0.01, 0.1, zeros.shape).astype(np.float32), "s"),
        helper.make_tensor("z", dtype, zeros.shape, zeros.ravel().tolist()),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=0, block_size=block),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", d]) for name, d in (("x", k), ("y", n))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    opsets = [helper.make_opsetid("", 21)]
    model = onnx_model.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=10), "blocks")
    x = {"x": rng.normal(size=(3, k)).astype(np.float32)}
    theirs = tensors(model, x, ["y"], optimize=False, config={})["y"]
    np.testing.assert_allclose(onnx.program(model).run(x).simulated[0].data, theirs, rtol=1e-5, atol=1e-5)
