"""Which layers compute in integers, and which values are stored so: the plan that `qdq` then writes.

A layer with weights is integer; what lies between two such layers follows where ONNX Runtime has an integer kernel for
it. What comes after the last layer with weights stays float: nothing is gained there, and answers are lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.compress.graph.moves import array, number, scalar, standard_nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    import onnx_ir as ir

# Operators by what their integer form does. ONNX Runtime fuses each between DequantizeLinear and QuantizeLinear.
WEIGHTS = frozenset(("Conv", "Gemm", "MatMul"))
PRODUCTS = frozenset(("Gemm", "MatMul"))  # whose integer kernels can give float
MATH = frozenset(("Add", "Mul", "MatMul", "AveragePool", "GlobalAveragePool", "Concat", "Sigmoid", "LeakyRelu"))
POINTWISE = frozenset(("Add", "Mul", "Sigmoid", "LeakyRelu"))
_INTEGER_ENDS = frozenset(("Conv", "AveragePool", "GlobalAveragePool", "Concat"))  # small, or without a form to float
MOVES = frozenset(
    (
        "MaxPool",
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Resize",
        "Split",
        "Slice",
        "Gather",
        "Pad",
        "DepthToSpace",
    )
)  # the stored numbers only move: output and input have one grid
CLAMPS = frozenset(("Relu", "Clip"))  # done by the clipping of a grid that starts, or ends, where they do


@dataclass
class Plan:
    """What becomes integer.

    Attributes:
        weights: nodes with constant weights that become integer, in order.
        others: nodes without weights that compute in integers.
        clamps: nodes that vanish into the grid of their output.
        grid: for each value stored in integers, the value whose statistics give its scale.
        why: reasons of nodes with weights that stay float.
    """

    weights: list[ir.Node] = field(default_factory=list)
    others: list[ir.Node] = field(default_factory=list)
    clamps: list[ir.Node] = field(default_factory=list)
    grid: dict[ir.Value, ir.Value] = field(default_factory=dict)
    why: dict[ir.Node, str] = field(default_factory=dict)


def plan(graph: ir.Graph, refusal: Callable[[ir.Node], str]) -> Plan:
    """Decide for every node; `refusal` gives the reason why a node may not become integer, "" where it may."""
    nodes, out = list(standard_nodes(graph)), Plan()
    kinds: dict[ir.Node, str] = {}
    for node in nodes:
        kind, why = _kind(node)
        if kind and (reason := refusal(node)):
            kind, why = "", reason if kind == "weights" else ""
        if why:
            out.why[node] = why
        if kind:
            kinds[node] = kind
    leads, wanted = _backwards(nodes, kinds)
    for node in nodes:
        _forwards(node, kinds.get(node, ""), leads, wanted, out)
    _trim(nodes, out)
    return out


def _kind(node: ir.Node) -> tuple[str, str]:
    """One of weights, math, moves, clamp and "" (float), with the reason for a layer with weights that stays float."""
    op = node.op_type
    if op in WEIGHTS and not (op == "MatMul" and array(node.inputs[1]) is None):
        why = _why_not(node)
        return "" if why else "weights", why
    for kind, (operators, fits) in _KINDS.items():
        if op in operators:
            return kind if fits(node) else "", ""
    return "", "ONNX Runtime has no integer kernel for it" if op == "ConvTranspose" else ""


def _why_not(node: ir.Node) -> str:
    """Why a layer with weights cannot be integer; "" where it can."""
    w, bias = array(node.inputs[1]), node.inputs[2] if len(node.inputs) > 2 else None
    b = array(bias)
    if w is None or (bias is not None and b is None):
        return "its weights are computed by the model"
    if w.dtype != np.float32:
        return f"its weights are {w.dtype}"
    if not np.isfinite(w).all() or (b is not None and not np.isfinite(b).all()):
        return "its weights are not finite"
    odd = (node.op_type == "MatMul" and w.ndim != 2) or number(node, "transA", 0) or (b is not None and b.ndim != 1)
    return "ONNX Runtime has no integer kernel for this form" if odd else ""


def _math_fits(node: ir.Node) -> bool:
    if node.op_type == "AveragePool":
        return "dilations" not in node.attributes
    constants = [array(v) for v in node.inputs]
    return all(a is None or (a.dtype == np.float32 and np.isfinite(a).all()) for a in constants) and any(
        a is None for a in constants
    )


def _clamp_fits(node: ir.Node) -> bool:
    if node.op_type == "Relu":
        return True
    bounds = [scalar(v) for v in node.inputs[1:] if v is not None]
    low, high = (scalar(node.inputs[i]) if len(node.inputs) > i else None for i in (1, 2))
    return None not in bounds and (low is None or low <= 0) and (high is None or high >= 0)


def _moves_fit(node: ir.Node) -> bool:
    if any(array(v) is None for v in node.inputs[1:] if v is not None and node.op_type not in ("Reshape", "Resize")):
        return False
    if node.op_type == "Pad":
        value = node.inputs[2] if len(node.inputs) > 2 else None
        return number(node, "mode", "constant") != "constant" or value is None or scalar(value) == 0
    if node.op_type == "MaxPool":
        return len(node.outputs) == 1
    return node.op_type != "Resize" or number(node, "mode", "nearest") == "nearest"


_KINDS: dict[str, tuple[frozenset[str], Callable[[ir.Node], bool]]] = {
    "math": (MATH, _math_fits),
    "clamp": (CLAMPS, _clamp_fits),
    "moves": (MOVES, _moves_fit),
}


def _data(node: ir.Node, kind: str) -> list[ir.Value]:
    """The inputs that carry activations."""
    inputs = node.inputs if kind == "math" else node.inputs[:1]
    return [v for v in inputs if v is not None and array(v) is None]


def _backwards(nodes: list[ir.Node], kinds: dict[ir.Node, str]) -> tuple[set[ir.Node], set[ir.Value]]:
    """Nodes with a layer with weights downstream, and values that are only read by such layers or moved to them."""
    leads: set[ir.Node] = set()
    wanted: set[ir.Value] = set()
    for node in reversed(nodes):
        readers = [u.node for o in node.outputs for u in o.uses()]
        if any(kinds.get(r) == "weights" or r in leads for r in readers):
            leads.add(node)
        kind = kinds.get(node, "")
        moved = kind == "moves" and all(o in wanted for o in node.outputs)
        if kind != "weights" and not moved:
            continue
        source = node.inputs[0]
        if source is not None and all(_integer_reader(u.node, kinds, wanted) for u in source.uses()):
            wanted.add(source)
    return leads, {v for v in wanted if not v.is_graph_output()}


def _integer_reader(node: ir.Node, kinds: dict[ir.Node, str], wanted: set[ir.Value]) -> bool:
    kind = kinds.get(node, "")
    return kind == "weights" or (kind == "moves" and all(o in wanted for o in node.outputs))


def _forwards(node: ir.Node, kind: str, leads: set[ir.Node], wanted: set[ir.Value], out: Plan) -> None:
    """Settle one node; those before it are settled."""
    data, stored = _data(node, kind), out.grid
    if kind == "weights":
        for value in data:
            stored.setdefault(value, value)
        out.weights.append(node)
        # A product without a grid behind it gives float directly; a convolution has no such kernel.
        if node.op_type == "Conv" or node in leads:
            _store(node, out)
    elif kind == "math" and node in leads and any(v in stored for v in data) and not _mostly_float(node, data, stored):
        for value in data:
            stored.setdefault(value, value)
        out.others.append(node)
        _store(node, out)
    elif kind == "moves" and data and ((data[0] in stored and node in leads) or all(o in wanted for o in node.outputs)):
        root = stored.setdefault(data[0], data[0])
        out.others.append(node)
        for o in node.outputs:
            stored[o] = root
    elif kind == "clamp" and data and data[0] in stored and (node in leads or _only_reader(data[0])):
        out.clamps.append(node)
        if _only_reader(data[0]):
            del stored[data[0]]
        _store(node, out)


def _mostly_float(node: ir.Node, data: list[ir.Value], stored: Container[ir.Value]) -> bool:
    """Whether a sum or product joins stored values with as many in float, which would be stored for it alone."""
    if node.op_type not in POINTWISE:
        return False
    real, whole = ([_size(v) for v in data if (v in stored) == there] for there in (False, True))
    known = [n for n in (*real, *whole) if n is not None]
    return bool(real) and len(known) == len(data) and max(known[: len(real)]) >= max(known[len(real) :])


def _size(value: ir.Value) -> int | None:
    """Values of one sample; None where an axis but the first is not known."""
    lengths = [n for n in list(value.shape or ())[1:] if isinstance(n, int)]
    return math.prod(lengths) if value.shape is not None and len(lengths) == len(value.shape) - 1 else None


def _trim(nodes: list[ir.Node], out: Plan) -> None:
    """Let float begin where nothing integer follows: products give it unrounded, the rest costs no more in it."""
    integer = {*out.weights, *out.others, *out.clamps}
    for node in reversed(nodes):
        if node not in integer or any(u.node in integer for o in node.outputs for u in o.uses()):
            continue
        if node.op_type in PRODUCTS:
            out.grid.pop(node.outputs[0], None)
        elif _ends_in_float(node, integer):
            integer.discard(node)
            for value in (*node.outputs, *node.inputs):
                if value is not None and not _needed(value, integer):
                    out.grid.pop(value, None)
    out.others = [n for n in out.others if n in integer]
    out.clamps = [n for n in out.clamps if n in integer]


def _ends_in_float(node: ir.Node, integer: set[ir.Node]) -> bool:
    """Whether a node that only float nodes read is float itself."""
    if node.op_type in _INTEGER_ENDS:  # unless what it reads has to be made float for others anyway
        return node.op_type != "Conv" and all(
            any(u.node not in integer for u in v.uses()) for v in node.inputs if v is not None and array(v) is None
        )
    return node.op_type in POINTWISE or (node.op_type in MOVES | CLAMPS and _origin(node) not in _INTEGER_ENDS)


def _needed(value: ir.Value, integer: set[ir.Node]) -> bool:
    """Whether an integer node makes or reads the value."""
    return value.producer() in integer or any(u.node in integer for u in value.uses())


def _origin(node: ir.Node) -> str:
    """The operator that made what these moves and clamps pass on."""
    at: ir.Node | None = node
    while at is not None and at.op_type in MOVES | CLAMPS:
        at = at.inputs[0].producer() if at.inputs[0] is not None else None
    return at.op_type if at is not None else ""


def product_size(node: ir.Node) -> tuple[int, int] | None:
    """Inputs and outputs of a Gemm or MatMul, K and N; None where they are not known, and for other nodes."""
    if node.op_type not in PRODUCTS or node.inputs[1] is None:
        return None
    w = array(node.inputs[1])
    shape = list(w.shape) if w is not None else list(node.inputs[1].shape or ())
    if len(shape) < 2 or not all(isinstance(n, int) for n in shape[-2:]):
        return None
    k, n = shape[-2:]
    return (int(n), int(k)) if number(node, "transB", 0) else (int(k), int(n))  # type: ignore[arg-type]  # ints, as seen


def _store(node: ir.Node, out: Plan) -> None:
    for o in node.outputs:
        out.grid[o] = o


def _only_reader(value: ir.Value) -> bool:
    """Whether a clamp on this value is all that reads it, and it comes out of a layer: then the layer does it."""
    producer = value.producer()
    return (
        len(value.uses()) == 1
        and not value.is_graph_output()
        and producer is not None
        and producer.op_type not in MOVES
    )
