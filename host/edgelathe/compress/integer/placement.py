"""Which patterns of a graph stay in float although an integer kernel is there: the choice that only a device can make.

What an integer kernel wins differs by CPU, runtime version and shape: a first layer of three channels, the gates of
SiLU or residual sums may be quicker in float, and are always more exact there. A choice is a set of pattern names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgelathe.compress.graph.moves import array, standard_nodes
from edgelathe.core.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx_ir as ir

NONE, MEASURED = "none", "measured"
_LAYERS = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))


def _first(graph: ir.Graph) -> list[ir.Node]:
    """Layers with weights that no other one lies before."""
    behind: set[ir.Value] = set()
    found = []
    for node in graph:
        after = any(v in behind for v in node.inputs)
        if _is_layer(node) and not after:
            found.append(node)
        if after or _is_layer(node):
            behind.update(node.outputs)
    return found


def _last(graph: ir.Graph) -> list[ir.Node]:
    """Layers with weights that no other one lies behind."""
    leads: set[ir.Node] = set()
    found = []
    for node in reversed(graph):
        before = any(u.node in leads or _is_layer(u.node) for o in node.outputs for u in o.uses())
        if before:
            leads.add(node)
        elif _is_layer(node):
            found.append(node)
    return found


def _adds(graph: ir.Graph) -> list[ir.Node]:
    """Sums of two activations, as at the end of a residual block."""
    return [n for n in standard_nodes(graph) if n.op_type == "Add" and _computed(n) == 2]


def _gates(graph: ir.Graph) -> list[ir.Node]:
    """Sigmoid and the product that it goes into: SiLU, and the gates of squeeze and excite."""
    found = []
    for node in standard_nodes(graph):
        if node.op_type == "Sigmoid":
            found.append(node)
            found += [u.node for u in node.outputs[0].uses() if u.node.op_type == "Mul" and _computed(u.node) == 2]
    return list(dict.fromkeys(found))


def _operators(*names: str) -> Callable[[ir.Graph], list[ir.Node]]:
    return lambda graph: [n for n in standard_nodes(graph) if n.op_type in names]


PATTERNS: Mapping[str, Callable[[ir.Graph], list[ir.Node]]] = {
    "first": _first,
    "last": _last,
    "add": _adds,
    "gate": _gates,
    "pool": _operators("AveragePool", "GlobalAveragePool", "MaxPool"),
    "concat": _operators("Concat"),
}


def parse(text: str, where: str) -> tuple[str, ...]:
    """The patterns that `first/add` names, in the order of the table; `none` names none. Raises UserError."""
    if text == NONE:
        return ()
    if text == MEASURED:
        what = "only a device can tell what is measured on it"
        raise UserError(where, what, "use it in `fit`, or `compress --device`")
    named = text.split("/")
    for name in named:
        if name not in PATTERNS:
            known = f"give {NONE}, {MEASURED}, or some of {'/'.join(PATTERNS)}"
            raise UserError(where, f"no pattern '{name}'", nearest(name, PATTERNS, known))
    return tuple(p for p in PATTERNS if p in named)


def text(patterns: tuple[str, ...]) -> str:
    """The inverse of `parse`."""
    return "/".join(patterns) or NONE


def kept(graph: ir.Graph, patterns: tuple[str, ...]) -> dict[ir.Node, str]:
    """The nodes that the patterns keep in float, with the reason in words."""
    out: dict[ir.Node, str] = {}
    for pattern in patterns:
        for node in PATTERNS[pattern](graph):
            out.setdefault(node, f"stays float by in_float={pattern}")
    return out


def _is_layer(node: ir.Node) -> bool:
    return node.op_type in _LAYERS and len(node.inputs) > 1 and array(node.inputs[1]) is not None


def _computed(node: ir.Node) -> int:
    """How many of its inputs are computed."""
    return sum(v is not None and array(v) is None for v in node.inputs)
