"""Nodes of an ONNX protobuf: the graphs within them, what they read, and their order."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Its branches and bodies, those within them left out."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads from the graph that it stands in, for its branches and bodies too."""
    yield from (i for i in node.input if i)
    for graph in subgraphs(node):
        local = {i.name for i in graph.input} | {t.name for t in graph.initializer}
        for inner in graph.node:
            yield from (name for name in reads(inner) if name not in local)
            local.update(inner.output)
        yield from (o.name for o in graph.output if o.name not in local)


def sort(graph: onnx.GraphProto) -> bool:
    """Put each node behind those whose values it reads, in place, in subgraphs too (ONNX, IR.md, Graphs).

    Of the nodes that may come next the one that stood first does, so that a graph in order stays as it is. Returns
    whether something moved. Raises ValueError where nodes wait for one another.
    """
    moved = sum(sort(inner) for node in graph.node for inner in subgraphs(node)) > 0
    maker = {name: at for at, node in enumerate(graph.node) for name in node.output}
    readers: list[list[int]] = [[] for _ in graph.node]
    missing = []
    for at, node in enumerate(graph.node):
        needed = {maker[name] for name in reads(node) if name in maker}
        missing.append(len(needed))
        for other in needed:
            readers[other].append(at)
    ready, order = [at for at, count in enumerate(missing) if not count], list[int]()
    while ready:
        order.append(heapq.heappop(ready))
        for at in readers[order[-1]]:
            missing[at] -= 1
            if not missing[at]:
                heapq.heappush(ready, at)
    if len(order) < len(missing):
        raise ValueError("nodes wait for one another")
    if order == sorted(order):
        return moved
    nodes = [type(graph.node[at])() for at in order]
    for node, at in zip(nodes, order, strict=True):
        node.CopyFrom(graph.node[at])
    del graph.node[:]
    graph.node.extend(nodes)
    return True
