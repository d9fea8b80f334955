"""TFLite models cut off after an operator, so that the time of each part can be told by the difference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgelathe.model import graph_tflite, io, tflite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgelathe.model.types import Model

#: What an element that an operator writes costs beside a multiply-accumulate, roughly: it places cuts, nothing else.
_ELEMENT = 4


def prefix(model: Model, operators: int) -> Model:
    """The model's first so many operators. What the rest would read of them, and outputs made by then, are its outputs.

    Constants that are not needed any more are left out of the file. All operators: the model itself.
    """
    graph = tflite.parse(model.data).main
    if operators >= len(graph.operators):
        return model
    kept, rest = graph.operators[:operators], graph.operators[operators:]
    made = {t for op in kept for t in op.outputs} & _live(graph)
    wanted = {t for op in rest for t in op.inputs} | set(graph.outputs)
    needed = {t for op in kept for t in op.inputs if t >= 0}
    return io.from_bytes(_cut(model.data, operators, sorted(made & wanted), needed), "tflite", model.name)


def borders(model: Model, most: int, preferred: Sequence[str] = ()) -> tuple[int, ...]:
    """After how many operators to cut, ascending, the last being all: after each where these are at most `most`.

    Else so that the parts have about the same work by their shapes; or, with `preferred`, after the operators whose
    first output has one of these names: another model's borders. Operators that only unpack constants are no border.
    """
    graph = tflite.parse(model.data).main
    live, count = _live(graph), len(graph.operators)
    ends = [i + 1 for i, op in enumerate(graph.operators) if live.intersection(op.outputs)]
    same = [n for n in ends if graph.tensors[graph.operators[n - 1].outputs[0]].name in set(preferred)]
    if same:
        return tuple(sorted({*same, count}))
    if len(ends) <= most:
        return tuple(sorted({*ends[:-1], count}))
    work = {n: _work(graph, graph.operators[n - 1]) for n in ends}
    total, done = sum(work.values()), 0
    cuts: list[int] = []
    for n, w in work.items():
        done += w
        if done * most >= total * (len(cuts) + 1):
            cuts.append(n)
    return tuple(sorted({*cuts[: most - 1], count}))


def _work(graph: tflite.Subgraph, op: tflite.Operator) -> int:
    return (graph_tflite.macs(graph, op) or 0) + _ELEMENT * sum(graph.tensors[t].elements for t in op.outputs)


def _live(graph: tflite.Subgraph) -> set[int]:
    """Tensors that depend on an input."""
    live = set(graph.inputs)
    for op in graph.operators:
        if live.intersection(op.inputs):
            live.update(op.outputs)
    return live


def _cut(data: bytes, operators: int, outputs: Sequence[int], needed: set[int]) -> bytes:
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    main, others = model.subgraphs[0], model.subgraphs[1:]
    main.operators, main.outputs = main.operators[:operators], list(outputs)
    # The reader numbers the buffers anew: theirs count, not the file's.
    kept = {0} | {main.tensors[t].buffer for t in needed} | {t.buffer for graph in others for t in graph.tensors}
    for number, buffer in enumerate(model.buffers):
        if number not in kept:
            buffer.data, buffer.offset, buffer.size = None, 0, 0
    model.signatureDefs, model.metadata, model.metadataBuffer = [], [], []
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))
