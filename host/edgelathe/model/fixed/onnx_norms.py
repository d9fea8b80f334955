"""BatchNormalization taken into the convolution before it, so that a float model is simulated as it is deployed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.model.fixed.types import Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.model.fixed.onnx_graph import Graph, Node


def absorb(graph: Graph) -> Graph:
    """The graph without each BatchNormalization that alone reads a Conv with constant weights; layers keep names."""
    readers = graph.readers()
    gone: set[int] = set()
    made: dict[int, Node] = {}
    for node in graph.nodes:
        follower = next(iter(readers.get(node.outputs[0], [])), None) if node.outputs else None
        if (
            node.op == "Conv"
            and follower is not None
            and len(readers[node.outputs[0]]) == 1
            and node.outputs[0] not in graph.outputs
            and _plain(graph, follower)
            and all(n in graph.constants for n in node.inputs[1:] if n)
        ):
            gone.add(id(follower))
            made[id(node)] = _together(graph, node, follower)
    return replace(graph, nodes=[made.get(id(n), n) for n in graph.nodes if id(n) not in gone])


def _plain(graph: Graph, node: Node) -> bool:
    constant = all(n in graph.constants and graph.constants[n].grid is None for n in node.inputs[1:])
    one = len([o for o in node.outputs if o]) == 1
    return node.op == "BatchNormalization" and constant and one and not node.get("training_mode", 0)


def _together(graph: Graph, conv: Node, norm: Node) -> Node:
    """One Conv: w * factor, (b - mean) * factor + shift, in float64."""
    scale, shift, mean, variance = (_real(graph, n) for n in norm.inputs[1:5])
    factor = scale / np.sqrt(variance + norm.get("epsilon", 1e-5))
    w = _real(graph, conv.inputs[1])
    bias: Any = _real(graph, conv.inputs[2]) if len(conv.inputs) > 2 and conv.inputs[2] else 0.0
    names = (f"{conv.name}/folded/weights", f"{conv.name}/folded/bias")
    scaled = w * factor.reshape(-1, *[1] * (w.ndim - 1))
    graph.constants[names[0]] = Value(scaled.astype(np.float32))
    graph.constants[names[1]] = Value(((bias - mean) * factor + shift).astype(np.float32))
    return replace(conv, inputs=(conv.inputs[0], *names), outputs=norm.outputs[:1])


def _real(graph: Graph, name: str) -> NDArray[np.float64]:
    return graph.constants[name].real.astype(np.float64)
