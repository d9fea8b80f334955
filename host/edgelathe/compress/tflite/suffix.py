"""All that hangs on some operators of a TFLite graph, as a file of its own.

The counterpart of `model.cut_onnx.suffix`. Weights are constants of the file: the kernels are those of the whole model.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from edgelathe.compress.tflite.file import File
    from edgelathe.model import tflite


@dataclass(frozen=True)
class Suffix:
    """Numbers of operators and tensors.

    Attributes:
        operators: ascending, those that only make constants for the others among them.
        boundary: computed tensors (inputs of the graph too) that it reads and does not make.
        outputs: those of the `wanted` tensors that it makes; none: nothing changes where these operators change.
    """

    operators: tuple[int, ...]
    boundary: tuple[int, ...]
    outputs: tuple[int, ...]


def suffix(graph: tflite.Subgraph, starts: Collection[int], wanted: Collection[int]) -> Suffix:
    """What hangs on the operators at positions `starts`, these included."""
    computed, made, needed = set(graph.inputs), set[int](), set[int]()
    reached, spare = set[int](), list[int]()
    for i, op in enumerate(graph.operators):
        if not computed.intersection(op.inputs):
            spare.append(i)
            continue
        computed.update(op.outputs)
        if i in starts or made.intersection(op.inputs):
            reached.add(i)
            made.update(op.outputs)
            needed.update(t for t in op.inputs if t >= 0)
    for i in reversed(spare):
        if needed.intersection(graph.operators[i].outputs):
            reached.add(i)
            needed.update(t for t in graph.operators[i].inputs if t >= 0)
    boundary = sorted((needed & computed) - made)
    return Suffix(tuple(sorted(reached)), tuple(boundary), tuple(t for t in wanted if t in made))


def changed(
    file: File, cut: Suffix, constants: Mapping[int, NDArray[Any]], rounded: tuple[Collection[int], int] | None = None
) -> tuple[bytes, tuple[int, ...]]:
    """A suffix with other constants, and the numbers of its inputs; the file stays as it was.

    `rounded`: operators, and the tensor in whose place they read another one, which comes as the last input.
    """
    tree, graph = file.tree, file.graph
    buffers, entries, operators = tree.buffers, graph.tensors, graph.operators
    tree.buffers, graph.operators = list(buffers), list(operators)
    graph.tensors = [copy.copy(t) if i in constants else t for i, t in enumerate(entries)]
    try:
        for tensor, values in constants.items():
            file.set_constant(tensor, values)
        inputs = cut.boundary
        if rounded is not None:
            positions, source = rounded
            extra = copy.copy(entries[source])
            extra.name, extra.buffer = b"layer:input:rounded", 0
            graph.tensors.append(extra)
            for i in positions:
                op = graph.operators[i] = copy.copy(operators[i])
                op.inputs = [len(entries) if t == source else int(t) for t in op.inputs]
            inputs = (*_read(graph.operators, cut), len(entries))
        return file.part(cut.operators, inputs, cut.outputs), inputs
    finally:
        tree.buffers, graph.tensors, graph.operators = buffers, entries, operators


def _read(operators: Any, cut: Suffix) -> tuple[int, ...]:
    """Those of the boundary that are read still."""
    read = {int(t) for i in cut.operators for t in operators[i].inputs}
    return tuple(t for t in cut.boundary if t in read)
