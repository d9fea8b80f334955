"""ONNX graphs cut in two: what some values hang on, and what hangs on some nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgelathe.model.nodes_onnx import reads

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import onnx
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Suffix:
    """All that hangs on some nodes.

    Attributes:
        nodes: positions in the graph, ascending; the nodes themselves come first.
        boundary: names of the computed values (inputs of the graph too) that it reads and does not make, in the order
            of their first use. Behind a branch there are several.
        outputs: names of the graph's outputs that it makes; none: nothing changes where these nodes change.
    """

    nodes: tuple[int, ...]
    boundary: tuple[str, ...]
    outputs: tuple[str, ...]


def suffix(graph: onnx.GraphProto, starts: Collection[int]) -> Suffix:
    """What hangs on the nodes at positions `starts`, these included."""
    computed = {i.name for i in graph.input} - {t.name for t in graph.initializer}
    computed |= {o for node in graph.node for o in node.output if o}
    made: set[str] = set()
    reached, boundary = [], dict[str, None]()
    for at, node in enumerate(graph.node):
        read = list(reads(node))
        if at not in starts and made.isdisjoint(read):
            continue
        reached.append(at)
        boundary.update(dict.fromkeys(name for name in read if name in computed and name not in made))
        made.update(o for o in node.output if o)
    return Suffix(tuple(reached), tuple(boundary), tuple(o.name for o in graph.output if o.name in made))


def upto(proto: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The model cut down to the nodes that `names` hang on, with these as its outputs."""
    import onnx

    wanted, kept = set(names), list[int]()
    for at in range(len(proto.graph.node) - 1, -1, -1):
        node = proto.graph.node[at]
        if not wanted.isdisjoint(node.output):
            kept.append(at)
            wanted.update(reads(node))
    known = {o.name: o for o in proto.graph.output}
    outputs = [known.get(n) or onnx.helper.make_empty_tensor_value_info(n) for n in names]
    return _part(proto, reversed(kept), [i for i in proto.graph.input if i.name in wanted], outputs)


def behind(
    proto: onnx.ModelProto, cut: Suffix, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]
) -> onnx.ModelProto:
    """The suffix as a model of its own.

    Args:
        proto: the whole model.
        cut: of its graph.
        inputs: arrays whose dtype and shape each input has. Constants of the graph may be among them: they are then
            no constants any more, and one session serves many values of them.
        outputs: names of values that the suffix makes.
    """
    import onnx

    given = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in inputs.items()
    ]
    return _part(proto, cut.nodes, given, [onnx.helper.make_empty_tensor_value_info(n) for n in outputs])


def _part(
    proto: onnx.ModelProto,
    positions: Iterable[int],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    import onnx

    nodes = [proto.graph.node[at] for at in positions]
    used = {name for node in nodes for name in reads(node)} - {i.name for i in inputs}
    weights = [t for t in proto.graph.initializer if t.name in used]
    graph = onnx.helper.make_graph(nodes, "part", inputs, outputs, weights)
    part = onnx.helper.make_model(graph, opset_imports=list(proto.opset_import), ir_version=proto.ir_version)
    part.functions.extend(proto.functions)
    return part
