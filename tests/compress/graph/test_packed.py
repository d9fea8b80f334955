import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from edgelathe.compress.graph import packed
from edgelathe.compress.graph.moves import Names
from edgelathe.model import onnx as onnx_model
from edgelathe.model import run
from support.tiny_onnx import Graph, optimized, samples

RNG = np.random.default_rng(3)


def stored(build):
    """A model whose output is x + what `build(packer)` puts into its graph; and the bytes that this took."""
    g = Graph()
    model = g.build(g.op("Add", "x", g.const(np.float32(0), "c")), shape=(1,), opset=11, ir_version=6)
    work = onnx_model.to_ir(model)
    add = next(iter(work.graph))
    names = Names(work.graph)
    packer = packed.Packer(work.graph, names)
    value = build(packer)
    cast = ir.node("Cast", [value], {"to": ir.DataType.FLOAT}, name=names())
    cast.outputs[0].name = names()
    work.graph.insert_before(add, cast)
    add.replace_input_with(1, cast.outputs[0])
    work.graph.outputs[0].shape = None
    return onnx_model.from_ir(work, "packed")


def answer(model):
    return run.session(model)({"x": np.zeros(1, np.float32)})[0]


def answer_without_optimizations(model):
    options = ort.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL, 4
    session = ort.InferenceSession(model.data, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.zeros(1, np.float32)})[0]


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("shape", [(16, 3, 4), (7, 11), (1,), (4096,)])
def test_integers_come_back(bits, signed, shape):
    low = -(1 << (bits - 1)) if signed else 0
    values = RNG.integers(low, low + (1 << bits), shape)
    values.flat[0] = low + (0 if signed else (1 << bits) - 1)
    for dtype in (np.int8, np.int32) if signed else (np.uint8, np.int64):
        model = stored(lambda p, d=dtype: p.integers(values, bits, d))
        np.testing.assert_array_equal(answer(model), values)
        np.testing.assert_array_equal(answer_without_optimizations(model), values)


@pytest.mark.parametrize("bits", range(1, 9))
def test_tables_of_any_length_are_looked_up(bits):
    table = RNG.normal(size=max(2, (1 << bits) - 1)).astype(np.float32)
    indices = RNG.integers(0, len(table), (5, 6, 3))
    np.testing.assert_array_equal(answer(stored(lambda p: p.lookup(indices, bits, table))), table[indices])


@pytest.mark.parametrize("bits", range(1, 9))
def test_no_bit_is_wasted(bits):
    values = RNG.integers(0, 1 << bits, 80_000)
    for build in (
        lambda p: p.integers(values, bits, np.uint8),
        lambda p: p.integers(values - (1 << (bits - 1)), bits, np.int8),
    ):
        model = stored(build)
        assert packed.packed_bytes(values.size, bits) == values.size * bits // 8
        assert model.bytes < values.size * bits / 8 + 3000


def test_common_parts_are_stored_once():
    values = RNG.integers(-8, 8, (10, 16))
    sizes = [stored(lambda p, n=n: [p.integers(values, 4, np.int8) for _ in range(n)][-1]).bytes for n in (1, 2, 3)]
    assert sizes[2] - sizes[1] == sizes[1] - sizes[0] < 80 + 130


@pytest.mark.parametrize("bits", [2, 3, 4, 5])
def test_nothing_is_unpacked_in_a_run_and_integer_kernels_still_fuse(bits):
    g = Graph()
    scale, zero = g.const(np.float32(0.05)), g.const(np.uint8(128))
    x = g.op("DequantizeLinear", g.op("QuantizeLinear", "x", scale, zero), scale, zero)
    w = g.op(
        "DequantizeLinear",
        g.const(np.zeros((8, 3, 3, 3), np.int8), "w"),
        g.const(np.float32(0.01)),
        g.const(np.int8(0)),
    )
    y = g.op("Conv", x, w, pads=[1] * 4)
    y = g.op("DequantizeLinear", g.op("QuantizeLinear", y, scale, zero), scale, zero)
    model = g.build(y)
    values = RNG.integers(-(1 << (bits - 1)), 1 << (bits - 1), (8, 3, 3, 3)).astype(np.int8)
    plain, work = onnx_model.to_ir(model), onnx_model.to_ir(model)
    plain.graph.initializers["w"].const_value = ir.tensor(values, name="w")
    value = packed.Packer(work.graph, Names(work.graph)).integers(values, bits, np.int8)
    work.graph.initializers["w"].replace_all_uses_with(value)
    del work.graph.initializers["w"]
    small, want = onnx_model.from_ir(work, "small"), onnx_model.from_ir(plain, "plain")
    assert optimized(small) == optimized(want)
    assert "QLinearConv" in optimized(small)
    data = samples(model)
    np.testing.assert_array_equal(run.outputs(small, data.inputs)[0], run.outputs(want, data.inputs)[0])


@pytest.mark.parametrize(("values", "bits"), [([0, 16], 4), ([-9, 0], 4), ([0], 9), ([-1, 8], 4)])
def test_what_does_not_fit_is_refused(values, bits):
    with pytest.raises(ValueError, match="bits"):
        stored(lambda p: p.integers(np.array(values), bits, np.int8))


def test_an_index_beyond_the_table_is_refused():
    with pytest.raises(ValueError, match="table of 3"):
        stored(lambda p: p.lookup(np.array([3]), 2, np.zeros(3, np.float32)))


@pytest.mark.parametrize("bits", range(1, 8))
@pytest.mark.parametrize("shape", [(16, 3, 3, 3), (10, 7), (8, 64)])
@pytest.mark.parametrize("low", [True, False])
def test_bits_are_read_back_from_the_graph(bits, shape, low):
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 13}, name="g")
    values = np.random.default_rng(0).integers(-1 if low else 0, 1, shape)
    value = packed.Packer(graph, Names(graph)).integers(values, bits, np.int8)
    assert packed.bits_of(value, values.size) == bits
    assert packed.bits_of(None, values.size) is None


@pytest.mark.parametrize("axis", [0, 1, None])
def test_integers_of_a_table_come_back_moved(axis):
    values = (-51, -30, -12, -2, 2, 12, 30, 51)
    offset = np.array([7, 0, -12], np.int8) if axis is not None else np.array([7], np.int8)
    along = offset.reshape([-1 if i == axis else 1 for i in range(3)])
    integers = (RNG.choice(values, (3, 3, 5)) + along).astype(np.int8)
    for by in (offset, np.zeros_like(offset)):
        have = (integers - along + by.reshape(along.shape)).astype(np.int8)
        model = stored(lambda p, h=have, b=by: p.moved(h, 3, values, b, axis))
        np.testing.assert_array_equal(answer(model), have)
    with pytest.raises(ValueError, match="none of the values"):
        stored(lambda p: p.moved(integers + np.int8(1), 3, values, offset, axis))
