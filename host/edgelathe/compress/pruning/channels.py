"""Which channels of an ONNX graph can only be cut together, and the cut itself.

Every output channel of a layer with weights is an atom. One walk through the graph follows the atoms along the
channel axis of each value; the rules of `channel_rules` say per operator where they go, which of them are tied
(residual sums, depthwise and grouped convolutions), which constants have a slice for them, and where they must stay.
Tied atoms make one unit; units with the same layers make one group.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgelathe.compress.graph import moves as g
from edgelathe.core.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx_ir as ir

Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Channels:
    """The atoms along one axis of a value: `ids` [length of the axis]; an atom may stand at several places."""

    axis: int
    ids: Ids


@dataclass(frozen=True, eq=False)
class Slices:
    """Constant input `index` of a node has a slice per atom along `axis`. `reads`: the node takes these atoms in."""

    node: ir.Node
    index: int
    axis: int
    ids: Ids
    reads: bool = False


@dataclass(frozen=True, eq=False)
class Count:
    """A number that counts atoms: element `position` of constant input `index`, or (index None) attribute `group`."""

    node: ir.Node
    index: int | None
    position: int
    ids: Ids


@dataclass(frozen=True, eq=False)
class Layer:
    """A node whose weights make `ids`, one atom per output channel."""

    node: ir.Node
    ids: Ids


@dataclass(frozen=True, eq=False)
class Group:
    """Units that the same layers make. `why` tells why none may go, empty where all may.

    Attributes:
        layers: the nodes that make the channels, in the graph's order.
        units: [n] unit numbers; a unit goes as a whole or stays.
        copies: channels of the widest layer that one unit stands for (more than 1 in grouped convolutions).
    """

    layers: tuple[ir.Node, ...]
    units: Ids
    copies: int
    why: str = ""

    def __len__(self) -> int:
        return len(self.units)


@dataclass
class Walk:
    """What the rules write down while the graph is walked."""

    opset: int
    at: dict[ir.Value, Channels] = field(default_factory=dict)
    slices: list[Slices] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    ties: list[tuple[Ids, Ids]] = field(default_factory=list)
    stays: list[tuple[Ids, str]] = field(default_factory=list)
    atoms: int = 0

    def of(self, value: ir.Value | None) -> Channels | None:
        """The channels of a value; None where there are none to follow."""
        return None if value is None else self.at.get(value)

    def new(self, count: int) -> Ids:
        """Fresh atoms."""
        self.atoms += count
        return np.arange(self.atoms - count, self.atoms)

    def layer(self, node: ir.Node, count: int) -> Ids:
        """Fresh atoms for the output channels of a node with weights."""
        ids = self.new(count)
        self.layers.append(Layer(node, ids))
        return ids

    def tie(self, a: Ids, b: Ids) -> None:
        """These atoms go together, place by place."""
        self.ties.append((a, b))

    def stay(self, values: Iterable[ir.Value | None], why: str) -> None:
        """The atoms of these values can never be cut."""
        for value in values:
            if value is not None and value in self.at:
                self.stays.append((self.at[value].ids, why))


def refuse(node: ir.Node, walk: Walk, why: str) -> None:
    """All channels that go into the node stay whole."""
    walk.stay(node.inputs, f"{node.op_type} '{g.layer(node)}' {why}")


def lengths(value: ir.Value | None) -> list[int | None] | None:
    """Lengths of the axes, None for an open one; None where even the rank is unknown."""
    if value is None or value.shape is None:
        return None
    return [d if isinstance(d, int) else None for d in value.shape]


@dataclass(frozen=True, eq=False)
class Map:
    """The finished analysis: `unit` [atoms] is the unit of each atom."""

    groups: tuple[Group, ...]
    slices: tuple[Slices, ...]
    counts: tuple[Count, ...]
    layers: tuple[Layer, ...]
    unit: Ids
    at: dict[ir.Value, Channels]

    def readers(self, group: Group) -> list[Slices]:
        """The weights that take channels of the group in."""
        return [s for s in self.slices if s.reads and np.isin(self.unit[s.ids], group.units).any()]


def analyse(model: ir.Model) -> Map:
    """Follow the channels through the main graph. Shapes must have been inferred, constants be initializers."""
    from edgelathe.compress.pruning.channel_rules import RULES

    walk = Walk(model.opset_imports.get("", 1))
    for node in model.graph:
        rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None:
            walk.stay(node.inputs, f"{node.op_type} '{g.layer(node)}' has no rule for channels")
        else:
            rule(node, walk)
    for value in model.graph.outputs:
        walk.stay([value], f"they are the model's output '{value.name}'")
    for value in tuple(walk.at):
        if any(use.node.graph is not model.graph for use in value.uses()):
            walk.stay([value], f"a branch of the model reads '{value.name}'")
    return _finish(walk)


def cut(graph: ir.Graph, found: Map, units: Ids) -> None:
    """Remove the units from the graph that `found` describes: constants lose slices, counted shapes shrink.

    A constant that several nodes share stays shared where all of them lose the same slices.
    """
    gone, names = np.isin(found.unit, units), g.Names(graph)
    made: dict[tuple[int, bytes], ir.Value] = {}
    by_input: defaultdict[tuple[ir.Node, int], list[Slices]] = defaultdict(list)
    for s in found.slices:
        by_input[s.node, s.index].append(s)
    for (node, index), parts in by_input.items():
        keeps = [(s.axis, ~gone[s.ids]) for s in parts]
        if all(keep.all() for _, keep in keeps):
            continue
        old = node.inputs[index]
        data = g.array(old)
        if data is None:
            raise HostError(g.layer(node), f"input {index} is no constant any more", "report it")
        for axis, keep in keeps:
            data = np.compress(keep, data, axis=axis)
        key = (id(old), repr([(a, k.tobytes()) for a, k in keeps]).encode())
        if key in made:
            node.replace_input_with(index, made[key])
        else:
            made[key] = g.set_constant(node, index, data, names)
    for count in found.counts:
        _recount(count, gone, names)
    for name, value in tuple(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def _recount(count: Count, gone: NDArray[np.bool_], names: g.Names) -> None:
    import onnx_ir as ir

    kept = int((~gone[count.ids]).sum())
    if kept == len(count.ids):
        return
    if count.index is None:
        count.node.attributes["group"] = ir.AttrInt64("group", kept)
        return
    data = g.array(count.node.inputs[count.index])
    assert data is not None
    data = data.copy()
    data[count.position] = kept
    g.set_constant(count.node, count.index, data, names)


def _finish(walk: Walk) -> Map:
    unit = _components(walk.atoms, walk.ties)
    why: dict[int, str] = {}
    for ids, reason in walk.stays:
        for u in np.unique(unit[ids]):
            why.setdefault(int(u), reason)
    makers: defaultdict[int, list[int]] = defaultdict(list)
    for i, layer in enumerate(walk.layers):
        for u in unit[layer.ids]:
            makers[int(u)].append(i)
    groups: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for u in sorted(makers):
        groups[tuple(makers[u])].append(u)
    out = []
    for indices, units in groups.items():
        nodes = tuple(walk.layers[i].node for i in sorted(set(indices)))
        copies = max(indices.count(i) for i in set(indices))
        free, held = [u for u in units if u not in why], [u for u in units if u in why]
        if free:
            out.append(Group(nodes, np.array(free), copies))
        if held:
            out.append(Group(nodes, np.array(held), copies, why[held[0]]))
    return Map(tuple(out), tuple(walk.slices), tuple(walk.counts), tuple(walk.layers), unit, walk.at)


def _components(count: int, ties: list[tuple[Ids, Ids]]) -> Ids:
    """The smallest atom that each atom is tied to, over any number of ties."""
    unit = np.arange(count)
    if not ties:
        return unit
    a, b = (np.concatenate([t[i] for t in ties]) for i in (0, 1))
    while True:
        low = np.minimum(unit[a], unit[b])
        before = unit.copy()
        for ends in (a, b):
            np.minimum.at(unit, unit[ends], low)
            np.minimum.at(unit, ends, low)
        while not np.array_equal(unit, unit[unit]):
            unit = unit[unit]
        if np.array_equal(unit, before):
            return unit
