import numpy as np
import onnx
import pytest
from onnx import helper

from edgelathe.compress.graph import fold, opset
from edgelathe.compress.types import Context
from edgelathe.model import onnx as onnx_model
from support.tiny_onnx import Graph, node_names, operators, outputs, samples, sqnr


def folded(model, overrides=None):
    return fold.apply(model, fold.Options(), Context(overrides=overrides or {}))


def same(model, other):
    data = samples(model)
    return all(sqnr(a, b) > 100 for a, b in zip(outputs(model, data), outputs(other, data), strict=True))


def affine_tail(g):
    y = g.op("Mul", g.op("Conv", "x", g.weights(4, 3, 3, 3)), g.const(np.full((1, 4, 1, 1), 2, np.float32)))
    return g.op("Sub", g.op("Div", y, g.const(np.float32(3))), g.const(np.ones((4, 1, 1), np.float32)))


def matmul_with_bias(g):
    y = g.op("Flatten", g.op("GlobalAveragePool", "x"))
    return g.op("Add", g.const(np.ones(5, np.float32)), g.op("MatMul", y, g.weights(3, 5)))


def gemm_bn(g):
    y = g.op("Flatten", g.op("GlobalAveragePool", "x"))
    return g.bn(
        g.op("Gemm", y, g.weights(5, 3), g.const(np.ones((1, 5), np.float32)), transB=1, alpha=0.5, beta=3.0), 5
    )


def padded(g):
    y = g.op("Pad", "x", g.const(np.array([0, 0, 1, 0, 0, 0, 2, 1])))
    return g.op("Conv", y, g.weights(4, 3, 3, 3))


def transposed(g):
    return g.bn(g.op("ConvTranspose", g.conv("x", 3, 4), g.weights(4, 3, 2, 2), group=2, strides=[2, 2]), 6)


FOLDS = {
    "bn": (lambda g: g.bn(g.conv("x", 3, 4), 4), ["Conv"]),
    "bn-grouped": (lambda g: g.bn(g.conv("x", 3, 6, group=3), 6), ["Conv"]),
    "bn-transposed": (transposed, ["Conv", "ConvTranspose"]),
    "affine": (affine_tail, ["Conv"]),
    "matmul-add": (matmul_with_bias, ["GlobalAveragePool", "Flatten", "Gemm"]),
    "gemm-bn": (gemm_bn, ["GlobalAveragePool", "Flatten", "Gemm"]),
    "pad": (padded, ["Conv"]),
    "nothing-doers": (lambda g: g.op("Dropout", g.op("Identity", g.conv("x", 3, 4))), ["Conv"]),
}


@pytest.mark.parametrize("opset", [11, 13, 17, 21])
@pytest.mark.parametrize("case", FOLDS)
def test_folds_to_the_same_function(case, opset):
    g = Graph()
    build, wanted = FOLDS[case]
    model = g.build(build(g), opset=opset, ir_version=6 if opset < 13 else 8)
    result = folded(model).model
    assert operators(result) == wanted
    assert same(model, result)
    assert result.bytes <= model.bytes
    assert result.signature == model.signature


def test_layers_that_stay_keep_their_names():
    g = Graph()
    y = g.op("Conv", "x", g.weights(4, 3, 3, 3), name="features/0/conv")
    model = g.build(g.op("Relu", g.bn(y, 4), name="features/0/relu"))
    result = folded(model)
    assert node_names(result.model) == {"features/0/conv", "features/0/relu"}
    assert [(n.layer, n.what) for n in result.notes] == [("BatchNormalization_1", "folded into features/0/conv")]


def test_what_cannot_be_folded_stays():
    g = Graph()
    a = g.conv("x", 3, 4)
    b = g.bn(a, 4)  # `a` is read twice: the convolution must not change
    model = g.build([g.op("Add", a, b)])
    assert operators(folded(model).model) == ["Conv", "BatchNormalization", "Add"]
    g = Graph()
    model = g.build(
        g.op(
            "Conv",
            g.op("Pad", "x", g.const(np.array([0, 0, 1, 1, 0, 0, 1, 1])), g.const(np.float32(1))),
            g.weights(4, 3, 3, 3),
        )
    )
    assert operators(folded(model).model) == ["Pad", "Conv"]  # padded with ones


def test_infinite_terms_stay_outside_of_the_weights():
    g = Graph()
    mask = g.const(np.array([0, 0, 0, -np.inf], np.float32))  # the last answer is never given
    model = g.build(g.op("Softmax", g.op("Add", g.op("MatMul", "x", g.weights(3, 4)), mask)), shape=("n", 3))
    result = folded(model).model
    assert operators(result) == ["MatMul", "Add", "Softmax"]
    assert same(model, result)


def test_an_output_in_the_middle_is_not_changed():
    g = Graph()
    a = g.conv("x", 3, 4)
    model = g.build([a, g.bn(a, 4)])
    result = folded(model).model
    assert same(model, result)


def test_constant_subgraphs_are_computed_unless_the_file_would_grow():
    g = Graph()
    w = g.op("Transpose", g.weights(3, 4, 3, 3), perm=[1, 0, 2, 3])
    model = g.build(g.op("Conv", "x", w))
    assert operators(folded(model).model) == ["Conv"]
    assert same(model, folded(model).model)
    g = Graph()
    grown = g.op("Expand", g.const(np.ones((1, 3, 1, 1), np.float32)), g.const(np.array([1, 3, 8, 8])))
    model = g.build(g.op("Add", "x", grown))
    assert operators(folded(model).model) == ["Expand", "Add"]


def test_static_shapes_are_constants():
    g = Graph()
    shape = g.op(
        "Concat",
        g.const(np.array([-1])),
        g.op("Slice", g.op("Shape", "x"), *(g.const(np.array([v])) for v in (1, 2))),
        axis=0,
    )
    model = g.build(g.op("Reshape", g.op("GlobalAveragePool", "x"), shape), shape=(1, 3, 8, 8))
    result = folded(model).model
    assert operators(result) == ["GlobalAveragePool", "Reshape"]
    assert same(model, result)


def test_skip_leaves_a_layer_alone_and_equal_constants_are_one():
    g = Graph()
    model = g.build(g.bn(g.conv("x", 3, 4), 4))
    assert operators(folded(model, {"BatchNorm*": {"skip": True}}).model) == ["Conv", "BatchNormalization"]
    g = Graph()
    twice = [g.const(np.full((4, 3, 1, 1), 0.5, np.float32)) for _ in range(2)]
    model = g.build(g.op("Add", *(g.op("Conv", "x", w) for w in twice)))
    assert folded(model).model.bytes < model.bytes


def test_real_models_keep_their_answers(data_dir):
    from edgelathe.model import io

    model = io.load(data_dir / "cifar10_mobilenetv2" / "model.onnx")
    result = folded(model)
    assert "BatchNormalization" not in operators(result.model)
    assert same(model, result.model)
    assert result.model.sha256 == folded(model).model.sha256


def test_an_old_export_that_lists_its_weights_among_the_inputs_can_still_be_raised():
    g = Graph()
    proto = onnx_model.to_proto(g.build(g.op("Relu", g.bn(g.conv("x", 3, 4), 4)), opset=11, ir_version=3))
    weights = [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in proto.graph.initializer]
    proto.graph.input.extend(weights)
    model = onnx_model.from_proto(proto, "old")
    result = folded(model).model
    onnx.checker.check_model(onnx_model.to_proto(result))
    raised, _ = opset.at_least(result)
    assert same(model, raised)
