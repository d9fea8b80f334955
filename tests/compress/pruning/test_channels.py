"""Property tests: units whose weights were zeroed carry nothing, so cutting them must not change the outputs."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from edgelathe.compress.graph import moves as g
from edgelathe.compress.pruning import channels, prune
from edgelathe.model import onnx as onnx_model
from edgelathe.model import run


class Net:
    """A graph in the making, with random weights."""

    def __init__(self, seed: int) -> None:
        self.rng, self.nodes, self.weights, self.count = np.random.default_rng(seed), [], [], 0

    def const(self, data) -> str:
        self.count += 1
        name = f"w{self.count}"
        self.weights.append(numpy_helper.from_array(np.asarray(data), name))
        return name

    def w(self, *shape) -> str:
        return self.const(self.rng.normal(size=shape).astype(np.float32) / np.sqrt(np.prod(shape[1:]) or 1))

    def op(self, kind: str, *inputs: str, **attributes) -> str:
        self.count += 1
        name = f"{kind}{self.count}"
        outputs = [f"{name}_{i}" for i in range(attributes.pop("outputs", 1))]
        self.nodes.append(helper.make_node(kind, inputs, outputs, name=name, **attributes))
        return outputs[0] if len(outputs) == 1 else outputs

    def conv(self, x: str, cin: int, cout: int, k: int = 3, group: int = 1, bias: bool = True) -> str:
        inputs = [x, self.w(cout, cin // group, k, k), *([self.w(cout)] if bias else [])]
        return self.op("Conv", *inputs, kernel_shape=[k, k], pads=[k // 2] * 4, group=group)

    def model(self, output: str, shape=("n", 3, 8, 8)):
        self.nodes.append(helper.make_node("Identity", [output], ["y"], name="end"))
        x = helper.make_tensor_value_info("x", 1, shape)
        y = helper.make_tensor_value_info("y", 1, None)
        graph = helper.make_graph(self.nodes, "g", [x], [y], self.weights)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return onnx_model.from_proto(onnx.shape_inference.infer_shapes(proto), "net")


def plain(n: Net, a: int, b: int):
    h = n.op("Relu", n.conv("x", 3, a))
    h = n.op("BatchNormalization", h, n.w(a), n.w(a), n.w(a), n.const(np.ones(a, np.float32)))
    h = n.op("PRelu", n.conv(h, a, b, bias=False), n.w(b, 1, 1))
    return n.conv(n.op("MaxPool", h, kernel_shape=[2, 2], strides=[2, 2]), b, 2)


def residual(n: Net, a: int, b: int):
    h = n.op("Relu", n.conv("x", 3, a))
    inner = n.conv(n.op("HardSwish", n.conv(h, a, b)), b, a)
    h = n.op("Add", h, inner)
    return n.conv(n.op("Add", n.conv(h, a, a, 1), h), a, 2)


def depthwise(n: Net, a: int, b: int):
    h = n.op("Clip", n.conv("x", 3, a, 1), n.const(np.float32(0)), n.const(np.float32(6)))
    h = n.op("Relu", n.conv(h, a, 2 * a, 3, group=a))
    return n.conv(n.conv(h, 2 * a, b, 1), b, 2)


def grouped(n: Net, a: int, b: int):
    h = n.op("Relu", n.conv("x", 3, 2 * a))
    return n.conv(n.op("Relu", n.conv(h, 2 * a, 2 * b, 3, group=2)), 2 * b, 2)


def joined(n: Net, a: int, b: int):
    left, right = n.conv("x", 3, a), n.op("Sigmoid", n.conv("x", 3, b))
    both = n.op("Concat", left, right, "x", axis=1)
    return n.conv(n.op("Add", both, n.w(a + b + 3, 1, 1)), a + b + 3, 2)


def flat(n: Net, a: int, b: int):
    h = n.op("AveragePool", n.conv("x", 3, a), kernel_shape=[4, 4], strides=[4, 4])
    h = n.op("Reshape", h, n.const(np.array([-1, 4 * a])))
    h = n.op("Relu", n.op("Gemm", h, n.w(4 * a, b), n.w(b)))
    return n.op("MatMul", h, n.w(b, 3))


def last(n: Net, a: int, b: int):
    """Channels last, as converters from TensorFlow leave it."""
    h = n.op("Transpose", n.conv("x", 3, a), perm=[0, 2, 3, 1])
    h = n.op("Mul", n.op("Relu", n.op("Add", h, n.w(a))), n.w(1, 1, 1, a))
    h = n.op("Reshape", h, n.const(np.array([0, -1])))
    return n.op("Gemm", h, n.w(b, 64 * a), transB=1)


def gated(n: Net, a: int, b: int):
    """Squeeze and excite."""
    h = n.conv("x", 3, a)
    s = n.op("Relu", n.conv(n.op("GlobalAveragePool", h), a, b, 1))
    return n.conv(n.op("Mul", h, n.op("HardSigmoid", n.conv(s, b, a, 1))), a, 2)


def parted(n: Net, a: int, b: int):
    h = n.op("Pad", n.conv("x", 3, a + b), n.const(np.array([0, 0, 1, 1, 0, 0, 1, 1])))
    left, right = n.op("Split", h, n.const(np.array([a, b])), axis=1, outputs=2)
    left = n.op("Resize", left, "", n.const(np.array([1, 1, 2, 2], np.float32)), mode="nearest")
    return n.op("Add", n.conv(n.op("ReduceMean", left, axes=[2, 3]), a, 2, 1), n.conv(right, b, 2))


def upsampled(n: Net, a: int, b: int):
    h = n.op("Relu", n.conv("x", 3, a))
    h = n.op("ConvTranspose", h, n.w(a, b, 2, 2), n.w(b), kernel_shape=[2, 2], strides=[2, 2])
    return n.conv(n.op("LeakyRelu", n.op("InstanceNormalization", h, n.w(b), n.w(b))), b, 2)


def tokens(n: Net, a: int, b: int):
    h = n.op("Reshape", n.conv("x", 3, a), n.const(np.array([0, a, 64])))
    h = n.op("Transpose", h, perm=[0, 2, 1])
    h = n.op("Tanh", n.op("Add", n.op("MatMul", h, n.w(a, b)), n.w(b)))
    return n.op("MatMul", n.op("Softmax", h, axis=1), n.w(b, 3))


NETS = [plain, residual, depthwise, grouped, joined, flat, last, gated, parted, upsampled, tokens]


def outputs(model, x):
    return run.session(model)({"x": x})[0]


def zero(found, units) -> None:
    """Let nothing read the units, without cutting them."""
    for s in found.slices:
        if s.reads:
            w = g.array(s.node.inputs[s.index]).copy()
            lines = np.moveaxis(w, s.axis, 0)
            lines[np.isin(found.unit[s.ids], units)] = 0
            s.node.inputs[s.index].const_value = ir.tensor(w, name=s.node.inputs[s.index].name)


@pytest.mark.parametrize("net", NETS, ids=lambda f: f.__name__)
@settings(max_examples=6, deadline=None)
@given(a=st.integers(2, 6), b=st.integers(2, 6), data=st.data())
def test_cutting_what_carries_nothing_changes_nothing(net, a, b, data):
    n = Net(data.draw(st.integers(0, 999)))
    model = n.model(net(n, a, b))
    graph = prune.prepared(model)
    found = channels.analyse(graph)
    free = [grp for grp in found.groups if not grp.why and len(grp) > 1 and found.readers(grp)]
    assert free, "nothing of this net can be cut"
    units = np.concatenate(
        [
            grp.units[data.draw(st.permutations(range(len(grp))))[: data.draw(st.integers(0, len(grp) - 1))]]
            for grp in free
        ]
    ).astype(int)
    zero(found, units)
    x = np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)
    want = outputs(onnx_model.from_ir(graph, "zeroed"), x)
    channels.cut(graph.graph, found, units)
    small = onnx_model.from_ir(graph, "cut")
    onnx.checker.check_model(onnx_model.to_proto(small), full_check=True)
    np.testing.assert_allclose(outputs(small, x), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("net", NETS, ids=lambda f: f.__name__)
def test_every_layer_of_these_nets_can_shrink(net):
    n = Net(0)
    found = channels.analyse(prune.prepared(n.model(net(n, 4, 5))))
    held = [g.layer(node) for grp in found.groups if grp.why for node in grp.layers]
    assert len(held) == len(set(held)) == (2 if net is parted else 1), "only what makes the output may be held"


REFUSED = {
    "Softmax": lambda n, h: n.op("Softmax", h, axis=1),
    "LayerNormalization": lambda n, h: n.op("LayerNormalization", h, n.w(4, 8, 8), axis=1),
    "LRN": lambda n, h: n.op("LRN", h, size=3),
    "DepthToSpace": lambda n, h: n.op("DepthToSpace", h, blocksize=2),
    "ReduceMean": lambda n, h: n.op("ReduceMean", h, axes=[1]),
    "Slice": lambda n, h: n.op("Slice", h, *(n.const(np.array([v])) for v in (0, 2, 1))),
    "Pad": lambda n, h: n.op("Pad", h, n.const(np.array([0, 1, 0, 0, 0, 0, 0, 0]))),
    "Reshape": lambda n, h: n.op("Reshape", h, n.const(np.array([0, 2, 2, 8, 8]))),
    "Add": lambda n, h: n.op("Add", h, "x4"),
    "MatMul": lambda n, h: n.op("MatMul", h, h),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_understood_stays_whole_with_a_reason(kind):
    n = Net(0)
    h = n.conv("x", 3, 4)
    if kind == "Add":
        n.nodes.insert(0, helper.make_node("Concat", ["x", "x"], ["x6"], axis=1))
        n.nodes.insert(1, helper.make_node("Slice", ["x6", *(n.const(np.array([v])) for v in (0, 4, 1))], ["x4"]))
    model = n.model(REFUSED[kind](n, h))
    (group,) = channels.analyse(prune.prepared(model)).groups
    assert kind in group.why
    assert prune.apply(model, prune.Options(multiple=1), prune.Context()).model is model


def test_a_branch_that_reads_a_value_holds_it():
    n = Net(0)
    h = n.conv("x", 3, 4)
    out = helper.make_tensor_value_info("b", 1, None)
    branch = helper.make_graph([helper.make_node("Relu", [h], ["b"])], "then", [], [out])
    other = helper.make_graph([helper.make_node("Neg", [h], ["b"])], "else", [], [out])
    n.nodes.append(helper.make_node("If", [n.const(np.array(True))], ["i"], then_branch=branch, else_branch=other))
    (group,) = channels.analyse(prune.prepared(n.model("i"))).groups
    assert "branch" in group.why


def test_shared_weights_are_cut_once_and_stay_shared():
    n = Net(0)
    w, b = n.w(6, 3, 1, 1), n.w(6)
    left, right = (n.op("Conv", v, w, b, kernel_shape=[1, 1]) for v in ("x", n.op("Neg", "x")))
    model = n.model(n.conv(n.op("Add", left, right), 6, 2))
    graph = prune.prepared(model)
    found = channels.analyse(graph)
    group = next(grp for grp in found.groups if not grp.why)
    channels.cut(graph.graph, found, group.units[:2])
    shapes = sorted(v.shape.numpy() for v in graph.graph.initializers.values())
    assert shapes == [(2,), (2, 4, 3, 3), (4,), (4, 3, 1, 1)]


def test_a_long_residual_chain_is_one_group():
    n = Net(0)
    h = n.conv("x", 3, 64, 1)
    for _ in range(250):
        h = n.op("Add", h, n.conv(n.op("Relu", n.conv(h, 64, 64, 1)), 64, 64, 1))
    found = channels.analyse(prune.prepared(n.model(n.conv(h, 64, 2, 1))))
    assert max(len(grp.layers) for grp in found.groups) == 251
