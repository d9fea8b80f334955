"""An ONNX model whose nodes and tensors carry their number in their names, so that kernels tell what they came from.

Runtimes fuse nodes, and name what they make after a node or a tensor of the original, with an ending of their own:
`conv1_nchwc`, `fc_token_3`, `fc/MatMulAddFusion`. A number between signs survives that, and is never part of another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from edgelathe.core.provider_options import of_runtime
from edgelathe.model import onnx as onnx_model
from edgelathe.model.nodes_onnx import subgraphs

if TYPE_CHECKING:
    import onnx

    from edgelathe.core.device import SessionOptions
    from edgelathe.model.types import Model

#: Keeps the weights out of what ONNX Runtime writes.
_SMALL = {
    "session.optimized_model_external_initializers_file_name": "weights",
    "session.optimized_model_external_initializers_min_size_in_bytes": "0",
}
_MARK = re.compile(r"~(\d+)[.~]")


@dataclass(frozen=True)
class Marked:
    """`model` computes what the original does; `outputs[k]`: what node k's first output is called in the original.

    `kept`: nodes by those of their outputs that are the model's and keep their names.
    """

    model: Model
    outputs: tuple[str, ...]
    kept: Mapping[str, int]

    def numbers(self, name: str) -> tuple[int, ...]:
        """The nodes that a name of a node or tensor mentions; none: the runtime made it up."""
        found = marks(name)
        if not found:
            found = tuple(k for o, k in self.kept.items() if name == o or name.startswith(o + "_"))[-1:]
        return found


def mark(model: Model) -> Marked:
    """Node k of an ONNX model gets the name `~k~`, its output j `~k.j~`; inputs and outputs of the model keep theirs.

    Nodes in subgraphs get that of the node that holds them, with a number of their own. Local functions are inlined.
    """
    proto = onnx_model.to_proto(model)
    if proto.functions:
        import onnx.inliner

        proto = onnx.inliner.inline_local_functions(proto)
    graph = proto.graph
    kept = {v.name for v in (*graph.input, *graph.output)} | {t.name for t in graph.initializer} | {""}
    outputs = tuple(next((o for o in node.output if o), "") for node in graph.node)
    names = {o: f"~{k}.{j}~" for k, node in enumerate(graph.node) for j, o in enumerate(node.output) if o not in kept}
    for k, node in enumerate(graph.node):
        _rename(node, names)
        node.name = f"~{k}~"
        for i, inner in enumerate(_inner(node)):
            _rename(inner, names)
            inner.name = f"~{k}~{i}"
    del graph.value_info[:], graph.quantization_annotation[:]
    own = {v.name for v in graph.output}
    ends = {o: k for k, node in enumerate(graph.node) for o in node.output if o in own}
    kept_ends = dict(sorted(ends.items(), key=lambda item: len(item[0])))  # the longest that fits is the last
    return Marked(onnx_model.from_proto(proto, model.name), outputs, kept_ends)


def marks(name: str) -> tuple[int, ...]:
    """The numbers of the nodes that a name mentions, in its order; none: the runtime made it up."""
    return tuple(dict.fromkeys(int(m) for m in _MARK.findall(name)))


class Made(NamedTuple):
    """A node that a runtime made: marks of the tensors that it puts out and of those that it reads (None: unknown)."""

    outputs: tuple[int, ...]
    inputs: tuple[int, ...] | None


def made_for(marked: Marked, options: SessionOptions) -> dict[str, Made]:
    """The nodes that ONNX Runtime makes of a marked model on this host, by name.

    Nodes that fusions named anew are told by what they put out, and what they cover by what they read. Empty where the
    host has no such provider.
    """
    import tempfile
    from pathlib import Path

    import onnx
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        so = ort.SessionOptions()
        so.optimized_model_filepath, so.log_severity_level = str(path), 4
        try:
            for key, value in {**of_runtime(options.config), **_SMALL}.items():
                so.add_session_config_entry(key, str(value))
            ort.InferenceSession(marked.model.data, so, providers=[options.provider])
            optimized = onnx.load(str(path), load_external_data=False)
        except Exception:  # a provider that is not here, or one that compiles its nodes: the names must do
            return {}
    given = {v.name for v in optimized.graph.input} | {t.name for t in optimized.graph.initializer} | {""}
    nodes = [n for n in optimized.graph.node if n.name]
    return {n.name: Made(tuple(k for o in n.output for k in marked.numbers(o)), _read(n, given, marked)) for n in nodes}


def _read(node: onnx.NodeProto, given: set[str], marked: Marked) -> tuple[int, ...] | None:
    made = [marked.numbers(i) for i in node.input if i not in given]
    return tuple(k for numbers in made for k in numbers) if all(made) else None


def _rename(node: onnx.NodeProto, names: dict[str, str]) -> None:
    for values in (node.input, node.output):
        for i, value in enumerate(values):
            values[i] = names.get(value, value)


def _inner(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    for graph in subgraphs(node):
        for inner in graph.node:
            yield inner
            yield from _inner(inner)
