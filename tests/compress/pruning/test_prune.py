from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgelathe.compress.graph import fold
from edgelathe.compress.pruning import elimination, prune
from edgelathe.compress.types import Context
from edgelathe.compress.weights import repair
from edgelathe.core.dataset import Dataset
from edgelathe.core.errors import UserError
from edgelathe.core.profile import Hardware
from edgelathe.model import io, run
from edgelathe.model import onnx as onnx_model
from support.tiny_onnx import Graph, outputs, samples, sqnr

KEY = "input"


@pytest.fixture(scope="module")
def images(data_dir):
    with np.load(data_dir / "cifar10_resnet8" / "calib.npz") as z:
        return z["x"].astype(np.float32), z["y"]


@pytest.fixture(scope="module")
def resnet(data_dir):
    return io.load(data_dir / "cifar10_resnet8" / "model.onnx")


@pytest.fixture(scope="module")
def context(images):
    return Context(data=Dataset("calib.npz", {KEY: images[0][:128]}, images[1][:128]))


@pytest.fixture(scope="module")
def halved(resnet, context):
    return prune.apply(resnet, prune.Options(channels=0.2, multiple=8), context)


def chain(seed=0, width=16, rank=6):
    """Convolutions whose middle channels are mixtures of `rank` independent ones: the others can be refitted away."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    first = np.einsum("or,rikl->oikl", draw(width, rank), draw(rank, 3, 3, 3)).astype(np.float32)
    weights = {"w1": first, "b1": draw(width), "w2": draw(8, width, 3, 3) / 10, "w3": draw(8, 5), "b3": draw(5)}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], name="first", pads=[1] * 4),
        helper.make_node("Conv", ["a", "w2"], ["c"], name="second", pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["d"], name="relu"),
        helper.make_node("GlobalAveragePool", ["d"], ["e"], name="pool"),
        helper.make_node("Flatten", ["e"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], name="last"),
    ]
    x, y = (helper.make_tensor_value_info(n, 1, s) for n, s in (("x", ["n", 3, 8, 8]), ("y", ["n", 5])))
    init = [numpy_helper.from_array(v, k) for k, v in weights.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], init)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data = Dataset("d", {"x": rng.normal(size=(40, 3, 8, 8)).astype(np.float32)})
    return onnx_model.from_proto(proto, "chain"), Context(data=data)


def widths_of(model):
    weights = {t.name: t for t in onnx_model.to_proto(model).graph.initializer}
    nodes = onnx_model.to_proto(model).graph.node
    return {n.name: weights[n.input[1]].dims[0] for n in nodes if n.op_type == "Conv"}


def top1(model, images, part):
    return (run.outputs(model, {KEY: images[0][part]})[0].argmax(1) == images[1][part]).mean()


def test_the_layer_behind_is_refitted():
    model, context = chain()
    x = context.data.inputs["x"]
    want = run.outputs(model, {"x": x})[0]

    def error(on):
        options = prune.Options(channels=0.5, multiple=1, repair=on, allocate="uniform")
        only_first = {"second": {"channels": 0.0}}
        small = prune.apply(model, options, replace(context, overrides=only_first)).model
        assert widths_of(small) == {"first": 8, "second": 8}
        return np.square(run.outputs(small, {"x": x})[0] - want).mean() / want.var()

    assert error(True) < 1e-5
    assert error(False) > 1e-2


def mlp():
    g = Graph()
    y = g.op("Relu", g.op("Gemm", g.op("Flatten", "x"), g.weights(192, 64), g.weights(64)))
    y = g.op("Relu", g.op("Gemm", y, g.weights(64, 64), g.weights(64)))
    return g.build(g.op("Gemm", y, g.weights(64, 10), g.weights(10)))


@pytest.mark.parametrize("count", [1, 2, 8, 40])
def test_few_rows_for_many_columns_never_lose_by_a_refit(count):
    model = mlp()
    unseen = samples(model, 64, seed=9)
    want = outputs(model, unseen)[0]

    def made(repair):
        options = prune.Options(channels=0.25, repair=repair, allocate="uniform")
        return prune.apply(model, options, Context(data=samples(model, count)))

    refitted, plain = made(True), made(False)
    assert sqnr(want, outputs(refitted.model, unseen)[0]) > sqnr(want, outputs(plain.model, unseen)[0]) - 0.5
    said = [n.what for n in refitted.notes if not n.done and "not refitted" in n.what]
    assert bool(said) == (count < 40)
    if count == 1:
        assert said == ["not refitted: 1 sample, of which none can be held out; give 2 at least, better 32"]


def windows():
    """Four maps a sample through convolutions, and their eight tokens through a product, folded into the batch."""
    g = Graph()
    y = g.op("Reshape", "x", g.const(np.array([-1, 3, 8, 8])))
    y = g.op("Relu", g.conv(y, 3, 16))
    y = g.op("GlobalAveragePool", g.op("Relu", g.conv(y, 16, 8)))
    y = g.op("Gemm", g.op("Reshape", y, g.const(np.array([-1, 8]))), g.weights(8, 24), g.weights(24))
    y = g.op("Gemm", g.op("Relu", y), g.weights(24, 16), g.weights(16))
    y = g.op("Transpose", g.op("Reshape", y, g.const(np.array([-1, 4, 16]))), perm=[0, 2, 1])
    y = g.op("Relu", g.op("Conv", y, g.weights(8, 16, 3), g.weights(8)))
    return g.build(g.op("Conv", y, g.weights(6, 8, 2), g.weights(6)), shape=("n", 4, 3, 8, 8))


def test_layers_that_see_several_maps_or_tokens_of_a_sample():
    model = windows()
    data, unseen = samples(model, 70), samples(model, 16, seed=9)
    want = outputs(model, unseen)[0]
    refitted, plain = (
        prune.apply(model, prune.Options(channels=0.5, repair=repair, allocate="uniform"), Context(data=data))
        for repair in (True, False)
    )
    assert widths_of(refitted.model) == widths_of(plain.model)
    assert sqnr(want, outputs(refitted.model, unseen)[0]) > sqnr(want, outputs(plain.model, unseen)[0]) + 1


def test_accuracy_without_training(resnet, images, halved):
    part = slice(500, 900)
    plain = prune.apply(resnet, prune.Options(channels=0.2, multiple=8, repair=False), Context()).model
    repaired = top1(halved.model, images, part)
    assert repaired > 0.6  # measured 0.75; 0.93 before
    assert repaired > top1(plain, images, part) + 0.2
    assert halved.model.bytes < 0.85 * resnet.bytes


def test_the_result_is_a_valid_smaller_model_with_the_same_signature(resnet, halved):
    onnx.checker.check_model(onnx_model.to_proto(halved.model), full_check=True)
    assert halved.model.signature == resnet.signature
    assert all(w % 8 == 0 for w in widths_of(halved.model).values())
    assert {n.name for n in onnx_model.to_proto(halved.model).graph.node} == {
        n.name for n in onnx_model.to_proto(resnet).graph.node
    }


def test_equal_input_gives_equal_bytes(resnet, context, halved):
    again = prune.apply(resnet, prune.Options(channels=0.2, multiple=8), context)
    assert again.model.sha256 == halved.model.sha256
    assert again.notes == halved.notes


def test_notes_say_what_became_of_each_layer(halved):
    text = {n.layer: n.what for n in halved.notes if "->" in n.what}
    assert any("64 -> " in t for t in text.values())
    assert any("output" in n.what or "Softmax" in n.what for n in halved.notes if not n.done)
    assert any("refitted" in n.what for n in halved.notes)


@pytest.mark.parametrize("multiple", [1, 2, 4])
def test_widths_honour_the_multiple(multiple):
    model, context = chain()
    for context_ in (context, Context()):
        small = prune.apply(model, prune.Options(channels=0.4, multiple=multiple), context_).model
        assert all(w % multiple == 0 for w in widths_of(small).values())
        assert sum(widths_of(small).values()) < 24


@pytest.mark.parametrize(
    ("units", "multiple", "copies", "allowed"),
    [
        (64, 16, 1, (64, 48, 32, 16)),
        (16, 8, 1, (16, 8)),
        (8, 8, 1, (8, 4)),  # one multiple only: halved, so that a small model has a choice
        (10, 4, 1, (10, 8, 4)),
        (8, 4, 2, (8, 6, 4, 2)),  # two channels go with each unit
        (2, 32, 1, (2, 1)),
        (1, 8, 1, (1,)),
    ],
)
def test_allowed_widths(units, multiple, copies, allowed):
    assert prune.widths(units, multiple, copies) == allowed


def test_a_skipped_layer_keeps_its_channels():
    model, context = chain()
    a = prune.apply(model, prune.Options(multiple=1), replace(context, overrides={"first": {"skip": True}}))
    assert widths_of(a.model)["first"] == 16
    assert ("first", False) in {(n.layer, n.done) for n in a.notes}


def test_nothing_to_remove_returns_the_model_itself():
    model, context = chain()
    assert prune.apply(model, prune.Options(channels=0.0, multiple=1), context).model is model


def test_the_multiple_comes_from_the_hardware():
    assert prune.SPEC.resolve(prune.Options(), Hardware(None, frozenset(), 16)).multiple == 16
    assert prune.SPEC.resolve(prune.Options(multiple=4), Hardware(None, frozenset(), 16)).multiple == 4


def test_batch_norm_left_in_the_graph_is_cut_too(data_dir, images):
    model = io.load(data_dir / "cifar10_mobilenetv2" / "model.onnx")
    x = np.ascontiguousarray((images[0][:64] / 127.5 - 1).transpose(0, 3, 1, 2))
    small = prune.apply(model, prune.Options(channels=0.3, multiple=8), Context()).model
    onnx.checker.check_model(onnx_model.to_proto(small), full_check=True)
    assert small.bytes < 0.75 * model.bytes
    assert np.isfinite(run.outputs(small, {KEY: x})[0]).all()


@pytest.mark.slow
def test_mobilenet_loses_little_at_half_the_work(data_dir, images):
    model = io.load(data_dir / "cifar10_mobilenetv2" / "model.onnx")
    model = fold.apply(model, fold.Options(), Context()).model
    x = np.ascontiguousarray((images[0] / 127.5 - 1).transpose(0, 3, 1, 2))
    data = Dataset("calib.npz", {KEY: x[:256]}, images[1][:256])
    small = prune.apply(model, prune.Options(channels=0.3, multiple=8), Context(data=data)).model
    own = (x, images[1])
    assert top1(small, own, slice(400, 1000)) > top1(model, own, slice(400, 1000)) - 0.04


def test_elimination_finds_what_costs_nothing():
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(500, 5))
    x = np.hstack([basis, basis @ rng.normal(size=(5, 3))])  # 3 of 8 features depend on the others
    m = rng.normal(size=(4, 8))
    reader = elimination.Reader(m, x.T @ x / len(x), np.arange(8))
    order = elimination.with_refit([reader], 8, 1)
    assert order.error[3] < 1e-3 < order.error[4]
    assert sorted(order.units) == list(range(8))


def test_elimination_gives_the_least_squares_error():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 6)) @ rng.normal(size=(6, 6))
    m = rng.normal(size=(3, 6))
    h = x.T @ x / len(x)
    order = elimination.with_refit([elimination.Reader(m, h, np.repeat(np.arange(3), 2))], 3, 1)
    left = np.flatnonzero(np.repeat(np.arange(3), 2) != order.units[0])
    fitted, *_ = np.linalg.lstsq(x[:, left], x @ m.T, rcond=None)
    want = np.square(x[:, left] @ fitted - x @ m.T).sum() / np.square(x @ m.T).sum()
    assert order.error[1] == pytest.approx(want, rel=0.02)


@pytest.mark.parametrize(
    ("kernel", "attributes"),
    [
        ((3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ((3, 2), {"pads": [0, 1, 2, 0], "dilations": [2, 1]}),
        ((3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ((4, 4), {"auto_pad": "SAME_LOWER", "strides": [3, 3]}),
        ((1, 1), {"auto_pad": "VALID"}),
    ],
)
def test_rows_times_weights_are_the_convolution(kernel, attributes):
    rng = np.random.default_rng(2)
    w, x = (rng.normal(size=s).astype(np.float32) for s in ((5, 3, *kernel), (2, 3, 9, 8)))
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="c", **attributes)
    ends = [helper.make_tensor_value_info("x", 1, x.shape), helper.make_tensor_value_info("y", 1, None)]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [numpy_helper.from_array(w, "w")])
    model = onnx_model.from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "c"
    )
    y = run.session(model)({"x": x})[0]
    (conv,) = onnx_model.to_ir(model).graph
    picks = repair.pick(conv, y, len(x), len(x), 12, (0,))
    m = repair.matrix(conv).reshape(5, -1)
    np.testing.assert_allclose(repair.rows(conv, x, picks) @ m.T, repair.made(conv, y, picks), rtol=1e-4, atol=1e-4)


def test_refuses_a_quantized_model():
    g = Graph()
    scale, zero = g.const(np.float32(0.05)), g.const(np.uint8(128))
    x = g.op("DequantizeLinear", g.op("QuantizeLinear", "x", scale, zero), scale, zero)
    with pytest.raises(UserError, match="quantized already"):
        prune.apply(g.build(g.conv(x, 3, 8)), prune.Options(channels=0.5), Context())
