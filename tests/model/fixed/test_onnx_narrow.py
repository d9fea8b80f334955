"""Sums of pairs in saturating 16 bits, against the instruction's definition and, where it is there, the kernel."""

from pathlib import Path

import numpy as np
import pytest

from edgelathe.compress.integer import int8
from edgelathe.compress.types import Context
from edgelathe.core.profile import Hardware
from edgelathe.model.fixed import onnx, onnx_narrow
from edgelathe.model.fixed.onnx_rescale import Target
from edgelathe.model.fixed.onnx_saturate import saturating
from support.onnx_quantized import quantized, stored, tensors
from support.tiny_onnx import Graph, samples

FLAGS = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
HAS_NARROW = "avx2" in FLAGS and "vnni" not in FLAGS
VNNI, PLAIN = Hardware("x86_64", frozenset({"vnni"})), Hardware("x86_64", frozenset({"avx2"}))


def vpmaddubsw(a, b):
    """One lane: two products of uint8 and int8, added and saturated."""
    return max(-32768, min(32767, int(a[0]) * int(b[0]) + int(a[1]) * int(b[1])))


def test_lost_is_what_the_instruction_loses():
    rng = np.random.default_rng(0)
    for k in (1, 2, 7, 12):
        columns = rng.choice([0, 3, 200, 255], (2, k, 5)).astype(np.uint8)
        w = rng.choice([-128, -100, 5, 127], (4, k)).astype(np.int8)
        change, found = onnx_narrow.lost(columns, w, 255)
        exact = np.einsum("ok,nkp->nop", w.astype(int), columns.astype(int))
        padded = np.zeros((2, k + k % 2, 5), int), np.zeros((4, k + k % 2), int)
        padded[0][:, :k], padded[1][:, :k] = columns, w
        hits = 0
        for n, o, p in np.ndindex(change.shape):
            pairs = [(padded[0][n, i : i + 2, p], padded[1][o, i : i + 2]) for i in range(0, k, 2)]
            assert exact[n, o, p] + change[n, o, p] == sum(vpmaddubsw(a, b) for a, b in pairs)
            hits += sum(vpmaddubsw(a, b) != int(a @ b) for a, b in pairs)
        assert (found.pairs, found.of, found.answers) == (hits, change.size * -(-k // 2), change.size)


@pytest.mark.parametrize(("weights", "reach"), [([64, 64], 255 * 128 / 32767), ([65, 64], 255 * 129 / 32767)])
def test_reach_says_when_two_products_can_pass_sixteen_bits(weights, reach):
    w = np.array([[*weights, 0, 0], [1, 1, 1, 1]], np.int8)
    assert onnx_narrow.reach(w).tolist() == pytest.approx([reach, 255 * 2 / 32767])
    _, found = onnx_narrow.lost(np.full((1, 4, 1), 255, np.uint8), w, 255)
    assert (found.pairs > 0) == (reach > 1)


def loud(hardware, **options):
    """A network whose weights and inputs are all of one sign: each layer can saturate."""
    g = Graph()
    w = np.abs(g.rng.normal(1, 0.05, (16, 3, 3, 3))).astype(np.float32)
    a = g.op("Relu", g.op("Conv", "x", g.const(w), pads=[1] * 4), name="r")
    b = g.op("Relu", g.op("Conv", a, g.const(np.ones((16, 1, 3, 3), np.float32)), group=16, pads=[1] * 4, name="deep"))
    c = g.op("Relu", g.op("Conv", b, g.const(np.abs(g.rng.normal(1, 0.1, (24, 16, 1, 1))).astype(np.float32))))
    d = g.op("Conv", c, g.const(g.rng.normal(0, 1, (8, 6, 3, 3)).astype(np.float32)), group=4, name="grouped")
    y = g.op("Flatten", g.op("GlobalAveragePool", d))
    model = g.build(g.op("Gemm", y, g.weights(8, 5), g.const(np.ones(5, np.float32)), name="head"))
    context = Context(data=_bright(model, 8))
    return int8.apply(model, int8.resolve(int8.Options(equalize="never", **options), hardware), context).model


def _bright(model, n, seed=3):
    data = samples(model, n, seed=seed)
    return type(data)("bright", {k: np.abs(v) + 2 for k, v in data.inputs.items()})


@pytest.mark.skipif(not HAS_NARROW, reason="this CPU has VNNI, or no AVX2: ONNX Runtime cannot be made to saturate")
def test_the_kernel_of_this_machine_loses_the_same():
    model = loud(VNNI)
    feed, names = dict(_bright(model, 4, seed=4).inputs), stored(model)
    theirs = tensors(model, feed, names, config={})
    heard = {}
    program = onnx.program(model, target=Target(narrow=True))
    program.run(feed, exact=False, hear=lambda name, value: heard.__setitem__(name, value.data))
    for name in names:
        np.testing.assert_array_equal(heard[name], theirs[name], err_msg=name)
    assert sum(s.pairs for s in program.saturation.values()) > 1000
    exact = onnx.program(model).run(feed, exact=False).simulated[0].data
    assert np.abs(exact - program.run(feed, exact=False).simulated[0].data).max() > 0


def matrices():
    """A batch of matrices, the product of two activations, and one matrix."""
    g = Graph()
    a = g.op("MatMul", "x", g.const(np.abs(g.rng.normal(1, 0.1, (2, 24, 16))).astype(np.float32)))
    b = g.op("MatMul", a, g.op("Transpose", a, perm=[0, 1, 3, 2]))
    c = g.op("MatMul", b, g.const(np.abs(g.rng.normal(1, 0.1, (5, 8))).astype(np.float32)))
    return g.build(g.op("Relu", c), shape=("n", 2, 5, 24))


def vectors():
    """Matrices times one row, of odd length."""
    g = Graph()
    a = g.op("Gemm", "x", g.const(np.abs(g.rng.normal(1, 0.1, (37, 16))).astype(np.float32)), g.weights(16))
    return g.build(g.op("Relu", a), shape=("n", 37))


@pytest.mark.skipif(not HAS_NARROW, reason="this CPU has VNNI, or no AVX2: ONNX Runtime cannot be made to saturate")
@pytest.mark.parametrize("weights", ["QInt8", "QUInt8"])
@pytest.mark.parametrize(("make", "n"), [(matrices, 3), (vectors, 1), (vectors, 4)])
def test_products_of_matrices_lose_the_same(make, n, weights):
    model = quantized(make(), weights=weights, per_channel=False)
    feed, names = dict(_bright(model, n, seed=5).inputs), stored(model)
    theirs, heard = tensors(model, feed, names, config={}), {}
    program = onnx.program(model, target=Target(narrow=True))
    program.run(feed, exact=False, hear=lambda name, value: heard.__setitem__(name, value.data))
    for name in names:
        np.testing.assert_array_equal(heard[name], theirs[name], err_msg=name)
    assert bool(program.saturation) == (weights == "QInt8")


def test_saturating_layers_are_named_with_their_shares():
    model = loud(VNNI)
    feed = dict(_bright(model, 4).inputs)
    found = {layer.layer: layer for layer in saturating(model, feed)}
    assert "deep" not in found, "depthwise products are added exactly"
    assert {"grouped", "head"} <= set(found)
    first = next(iter(found.values()))
    assert first.op == "Conv"
    assert first.reach > 1.5
    assert first.channels == 1
    assert first.share > 0.1
    assert first.seen.answers == 4 * 16 * 8 * 8, "the samples, and nothing else, are counted"
    bounds = saturating(model)
    assert [(b.layer, b.reach, b.share) for b in bounds] == [(v.layer, v.reach, None) for v in found.values()]


def test_seven_bit_weights_cannot_saturate():
    found = saturating(loud(PLAIN), dict(_bright(loud(PLAIN), 2).inputs))
    assert len(found) == 4
    assert max(layer.reach for layer in found) <= 1
    assert {layer.share for layer in found} == {0}


def test_uint8_weights_and_float_models_have_no_such_layers():
    g = Graph()
    assert saturating(g.build(g.conv("x", 3, 4))) == ()
