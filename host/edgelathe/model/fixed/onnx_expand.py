"""Operators that hold scales (QLinearConv and its kin) written out as DequantizeLinear, operator, QuantizeLinear.

Both forms are the same function, and ONNX Runtime makes one of the other; the simulator knows only the second.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.core.errors import UserError
from edgelathe.model.fixed.onnx_graph import LOAD, STORE, Graph, Node
from edgelathe.model.fixed.types import Value

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Form:
    """How one such operator is laid out.

    Attributes:
        op: the plain operator.
        inputs: positions of each input's (data, scale, zero point).
        output: positions of the output's (scale, zero point).
        bias: position of an integer bias in units of the first two inputs' scales.
        real_bias: position of a float bias, added to a product.
    """

    op: str
    inputs: tuple[tuple[int, int, int], ...]
    output: tuple[int, int] | None
    bias: int | None = None
    real_bias: int | None = None


_ONE = (((0, 1, 2),), (3, 4))
_TWO = (((0, 1, 2), (3, 4, 5)), (6, 7))
FORMS: Mapping[str, Form] = {
    "QLinearConv": Form("Conv", *_TWO, bias=8),
    "QLinearMatMul": Form("MatMul", *_TWO),
    "QLinearAdd": Form("Add", *_TWO),
    "QLinearMul": Form("Mul", *_TWO),
    "QGemm": Form("Gemm", ((0, 1, 2), (3, 4, 5)), (7, 8), bias=6),
    "MatMulIntegerToFloat": Form("MatMul", ((0, 2, 4), (1, 3, 5)), None, real_bias=6),
    "QLinearGlobalAveragePool": Form("GlobalAveragePool", *_ONE),
    "QLinearAveragePool": Form("AveragePool", *_ONE),
    "QLinearSigmoid": Form("Sigmoid", *_ONE),
    "QLinearLeakyRelu": Form("LeakyRelu", *_ONE),
    "QLinearSoftmax": Form("Softmax", *_ONE),
    "QLinearConcat": Form("Concat", (), (0, 1)),
}


def expand(graph: Graph) -> Graph:
    """The graph without such operators; layers keep their names. Raises UserError for a layout with channels last."""
    nodes: list[Node] = []
    for node in graph.nodes:
        form = FORMS.get(node.op)
        nodes += [node] if form is None else _written_out(graph, node, form)
    return replace(graph, nodes=nodes)


def _written_out(graph: Graph, node: Node, form: Form) -> list[Node]:
    if node.get("channels_last", 0):
        raise UserError(node.name, "its data have channels last", "give the model as it was before it was optimized")
    version = node.version if not node.domain else int(node.get("opset", 13))
    plain = replace(node, op=form.op, domain="", version=version)
    before: list[Node] = []
    inputs: list[str] = []
    groups = form.inputs or tuple((i, i + 1, i + 2) for i in range(2, len(node.inputs), 3))
    for position, group in enumerate(groups):
        last = node.op in ("QGemm", "QLinearMatMul", "MatMulIntegerToFloat") and position == 1
        attributes = {"axis": _weight_axis(node)} if last or (node.op == "QLinearConv" and position == 1) else {}
        made, name = _load(node, [_input(node, i) for i in group], f"{position}", attributes)
        before.append(made)
        inputs.append(name)
    if form.bias is not None and _input(node, form.bias):
        made, name = _bias(graph, node, form)
        before.append(made)
        inputs.append(name)
    target = node.outputs[0]
    if form.output is None or not _input(node, form.output[0]):
        result = target
        after: list[Node] = []
    else:
        result = f"{target}/real"
        parameters = tuple(_input(node, i) for i in form.output)
        after = [replace(plain, name=f"{node.name}/store", op=STORE, inputs=(result, *parameters), outputs=(target,),
                         attributes={})]  # fmt: skip
    if form.real_bias is not None and _input(node, form.real_bias):
        sums, result = result, f"{target}/sums"
        added = replace(plain, name=f"{node.name}/bias", op="Add", inputs=(result, _input(node, form.real_bias)),
                        outputs=(sums,), attributes={})  # fmt: skip
        after = [added, *after]
    return [*before, replace(plain, inputs=tuple(inputs), outputs=(result,)), *after]


def _input(node: Node, index: int) -> str:
    return node.inputs[index] if index < len(node.inputs) else ""


def _weight_axis(node: Node) -> int:
    if node.op == "QLinearConv":
        return 0
    return 0 if node.op == "QGemm" and node.get("transB", 0) else -1


def _load(node: Node, names: list[str], suffix: str, attributes: Mapping[str, Any]) -> tuple[Node, str]:
    out = f"{node.name}/{suffix}/{names[0]}"
    made = replace(node, name=f"{node.name}/load/{suffix}", op=LOAD, domain="", inputs=tuple(names), outputs=(out,),
                   attributes=dict(attributes))  # fmt: skip
    return made, out


def _bias(graph: Graph, node: Node, form: Form) -> tuple[Node, str]:
    scales = [graph.constants.get(_input(node, form.inputs[i][1])) for i in (0, 1)]
    if scales[0] is None or scales[1] is None:
        raise UserError(node.name, "its scales are computed by the model", "quantize it with constant scales")
    name = f"{node.name}/bias/scale"
    product = np.asarray(scales[0].data, np.float32).reshape(-1)[:1] * np.asarray(scales[1].data, np.float32).reshape(
        -1
    )
    graph.constants[name] = Value(product)
    assert form.bias is not None
    return _load(node, [_input(node, form.bias), name], "bias", {"axis": 0})
