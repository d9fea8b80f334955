"""The layers of a folded graph whose weights may be rounded, and their weights at a bit width, real again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.calibrate.scales import store_weights, weight_scales
from edgelathe.compress.graph.canonical import plain_gemm
from edgelathe.compress.graph.moves import Names, array, layer, number, set_constant
from edgelathe.compress.integer import qplan
from edgelathe.compress.integer.rescale import scaled_inputs
from edgelathe.compress.types import Note
from edgelathe.compress.weights import qweights
from edgelathe.compress.weights.levels import Levels

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

_OTHERS = frozenset(("ConvTranspose", "LSTM", "GRU", "RNN"))


@dataclass(frozen=True, eq=False)
class Weighted:
    """One layer; nodes that share their weights are one.

    Attributes:
        name: the original node's.
        op: its operator.
        node: the first node that has these weights.
        positions: of all its nodes in the graph.
        weight, bias: names of its constants; bias None where the node has none.
        source: name of the value that the first node reads.
        elements: how many weights.
        channels: how many outputs, each with a scale.
    """

    name: str
    op: str
    node: ir.Node
    positions: tuple[int, ...]
    weight: str
    bias: str | None
    source: str
    elements: int
    channels: int

    def bytes(self, bits: int | None) -> int:
        """What the weights take, packed, with a float32 scale per output channel; None: as float32."""
        return 4 * self.elements if bits is None else -(-self.elements * bits // 8) + 4 * self.channels


def layers(model: ir.Model) -> tuple[list[Weighted], list[Note]]:
    """The layers that have float32 weights of their own, and why others have none; biases become their own too."""
    graph, names = model.graph, Names(model.graph)
    by_weight: dict[str, list[tuple[int, ir.Node]]] = {}
    left = []
    for at, node in enumerate(graph):
        if node.op_type in _OTHERS:
            left.append(Note(layer(node), False, f"{node.op_type} has no integer form here"))
        if node.op_type not in qplan.WEIGHTS or node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type == "Gemm":
            plain_gemm(node, names)
        why = _why_not(node)
        if why is None:
            by_weight.setdefault(str(node.inputs[1].name), []).append((at, node))  # type: ignore[union-attr]  # is there
        elif why:
            left.append(Note(layer(node), False, why))
    return [_layer(weight, nodes, names) for weight, nodes in by_weight.items()], left


def rounded(
    of: Weighted,
    bits: int,
    mean: NDArray[np.float64] | None,
    *,
    per_channel: bool = True,
    by: NDArray[np.float64] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Weights, and bias where there is one, by name: weights on the grid of `int8`, but in `bits`, and real again.

    Args:
        of: the layer.
        bits: of a weight, 2 to 16.
        mean: float64 [input channels], the mean of what the layer reads, to correct the bias by; None: no correction.
        per_channel: one scale per output channel, or one.
        by: [input channels], factors that the weights are multiplied by to be rounded; None: none.

    The bias stays float32: `int8` holds it in 32 bits, in units that hang on the activations and are fine enough.
    """
    w, out_axis = array(of.node.inputs[1]), qweights.channel_axis(of.node)
    assert w is not None
    axis, largest = out_axis if per_channel else None, Levels.of(bits, reduce=False).high
    given = w if by is None else scaled_inputs(of.node, w, by).astype(np.float32)
    scale = weight_scales(given, axis, largest)
    shape = [-1 if i == out_axis else 1 for i in range(w.ndim)]
    made = store_weights(given, scale, axis, largest) * (scale.reshape(shape) if per_channel else scale)
    made = made if by is None else scaled_inputs(of.node, made, 1 / by)
    out = {of.weight: made.astype(np.float32)}
    if of.bias:
        bias = array(of.node.inputs[2])
        assert bias is not None
        shift = qweights.mean_shift(of.node, made.astype(np.float64) - w, mean) if mean is not None else 0.0
        out[of.bias] = (bias - shift).astype(np.float32)
    return out


def _why_not(node: ir.Node) -> str | None:
    """Why a node has no weights that can be rounded; "" where it is not meant to have any, None where it can."""
    if len(node.inputs) < 2 or (node.op_type == "MatMul" and array(node.inputs[1]) is None):
        return ""
    w, bias = array(node.inputs[1]), array(node.inputs[2]) if len(node.inputs) > 2 else None
    if w is None or (len(node.inputs) > 2 and node.inputs[2] is not None and bias is None):
        return "its weights are computed by the model"
    if w.dtype != np.float32:
        return f"its weights are {w.dtype}"
    if not np.isfinite(w).all() or (bias is not None and not np.isfinite(bias).all()):
        return "its weights are not finite"
    if array(node.inputs[0]) is not None or (node.op_type != "Conv" and w.ndim != 2) or number(node, "transA", 0):
        return "its form has no integer kernel"
    return None


def _layer(weight: str, nodes: list[tuple[int, ir.Node]], names: Names) -> Weighted:
    node = nodes[0][1]
    w = array(node.inputs[1])
    assert w is not None
    bias = array(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is not None:
        value = node.inputs[2]
        if len(nodes) > 1 or bias.ndim != 1:
            bias = None  # each node has a bias of its own: left as it is
        elif value is not None and len(value.uses()) > 1:
            set_constant(node, 2, bias, names)
    return Weighted(
        layer(node), node.op_type, node, tuple(at for at, _ in nodes), weight,
        None if bias is None else str(node.inputs[2].name),  # type: ignore[union-attr]  # is there
        str(node.inputs[0].name),  # type: ignore[union-attr]  # is there
        int(w.size), int(w.shape[qweights.channel_axis(node)]),
    )  # fmt: skip
