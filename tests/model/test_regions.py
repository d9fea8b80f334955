"""Which layers a kernel covers: each layer once, whatever the kernel is named after."""

from __future__ import annotations

import pytest

from edgelathe.model.graph import Layer
from edgelathe.model.regions import Kernel, family, regions


def layers(*rows):
    """Layers from `output = op(inputs)`."""
    out = []
    for row in rows:
        name, _, rest = row.partition(" = ")
        op, _, inputs = rest.rstrip(")").partition("(")
        out.append(Layer(name, op, tuple(inputs.split(",")), (name,), 0, 0, 0, "float32", None))
    return out


RESIDUAL = layers("c1 = Conv(x)", "r1 = Relu(c1)", "c2 = Conv(r1)", "s = Add(c2,r1)", "r2 = Relu(s)", "p = MaxPool(r2)")


@pytest.mark.parametrize("names", [(0, 2), (1, 2), (1, 4), (0, 3)], ids=["first", "mixed", "last", "middle"])
def test_a_kernel_covers_the_same_whichever_of_its_layers_it_is_named_after(names):
    kernels = [Kernel("FusedConv", (names[0],)), Kernel("Conv", (names[1],)), Kernel("MaxPool", (5,))]
    assert regions(RESIDUAL, kernels) == [(0, 1), (2, 3, 4), (5,)]


def test_what_the_runtime_adds_covers_nothing():
    kernels = [Kernel("Conv", (0,)), Kernel("ReorderOutput", ()), Kernel("Conv", (2,)), Kernel("MaxPool", (5,))]
    assert regions(RESIDUAL, kernels) == [(0, 1), (), (2, 3, 4), (5,)]


def test_rounding_goes_with_the_layer_that_makes_the_numbers_and_unrounding_with_the_one_that_reads_them():
    graph = layers(
        "q = QuantizeLinear(x)", "d = DequantizeLinear(q)", "c = Conv(d)", "r = Relu(c)", "q2 = QuantizeLinear(r)",
        "d2 = DequantizeLinear(q2)", "g = Gemm(d2)",
    )  # fmt: skip
    kernels = [Kernel("QuantizeLinear", (0,)), Kernel("QLinearConv", (2,)), Kernel("QGemm", (6,))]
    assert regions(graph, kernels) == [(0,), (1, 2, 3, 4), (5, 6)]


def test_a_fusion_covers_all_between_what_it_reads_and_what_it_puts_out():
    graph = layers("a = MatMul(x)", "e = Erf(a)", "f = Add(e)", "m = Mul(a,f)", "b = MatMul(m)")
    kernels = [Kernel("MatMul", (0,)), Kernel("Gelu", (3,), reads=(0,)), Kernel("MatMul", (4,))]
    assert regions(graph, kernels) == [(0,), (1, 2, 3), (4,)]


def test_kernels_of_a_subgraph_share_the_layer_that_holds_it():
    graph = layers("c = Conv(x)", "y = If(c)")
    assert regions(graph, [Kernel("Conv", (0,)), Kernel("If", (1,)), Kernel("MatMul", (1,))]) == [(0,), (1,), (1,)]


def test_layers_before_the_first_kernel_go_to_it():
    graph = layers("p = Pad(x)", "c = Conv(p)")
    assert regions(graph, [Kernel("Conv", (1,))]) == [(0, 1)]


def test_compiled_parts_have_the_largest_parts_that_no_other_kernel_names():
    kernels = [Kernel("TRT_0", (), whole=True), Kernel("Add", (3,)), Kernel("TRT_1", (), whole=True)]
    assert regions(RESIDUAL, kernels) == [(0, 1, 2), (3,), (4, 5)]
    assert regions(RESIDUAL, [Kernel("TRT_0", (), whole=True)]) == [tuple(range(6))]
    diamond = layers("a = Conv(x)", "b = Conv(y)", "c = Add(a,b)", "d = Relu(c)")
    assert regions(diamond, [Kernel("TRT_0", (), whole=True), Kernel("Relu", (3,))]) == [(0, 1, 2), (3,)]


def test_families():
    assert {family(op) for op in ("Conv", "FusedConv", "QLinearConv", "NhwcFusedConv", "ConvInteger")} == {"Conv"}
    assert {family(op) for op in ("MatMul", "Gemm", "QGemm", "DynamicQuantizeMatMul", "MatMulNBits")} == {"MatMul"}
    assert family("QLinearAdd") == "Add"
    assert family("QuantizeLinear") == "QuantizeLinear"
