"""What the layers that read channels see on the samples: second moments, by unit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgelathe.compress.forward import capture
from edgelathe.compress.graph import moves as g
from edgelathe.compress.graph.moves import name_of
from edgelathe.compress.pruning.elimination import Reader
from edgelathe.compress.weights import repair
from edgelathe.compress.weights.repair import Normal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from edgelathe.compress.pruning.channels import Group, Map, Slices
    from edgelathe.compress.types import Context
    from edgelathe.compress.weights.repair import Matrix

_MOMENTS = 30_000_000  # entries of second moments that are gathered in one pass
_ROWS = 24_000  # rows that the moments of one layer are taken over


def unmeasured(found: Map, group: Group) -> list[Reader]:
    """The readers of a group without data: the squared norm of the weights that make a channel is its second moment."""
    energy = np.zeros(len(group))
    for layer in found.layers:
        own = next((s for s in found.slices if s.node is layer.node and s.index == 1 and not s.reads), None)
        if layer.node not in group.layers or own is None:
            continue
        w = np.moveaxis(np.asarray(g.array(layer.node.inputs[1]), np.float64), own.axis, 0)
        norm = np.square(w.reshape(len(w), -1)).sum(axis=1)
        place = _places(found, group, layer.ids)
        np.add.at(energy, place[place >= 0], (norm / max(norm.mean(), 1e-30))[place >= 0])
    out = []
    for part in found.readers(group):
        m, unit = _view(found, group, part)
        out.append(Reader(m, np.diag(np.where(unit >= 0, energy[unit], 0.0)), unit))
    return out


def measured(
    found: Map, model: ir.Model, groups: Sequence[Group], context: Context, *, centred: bool
) -> Iterator[list[Reader]]:
    """The readers of each group with the second moments (`centred`: covariances) of what they read on the samples.

    Several groups share a pass over the samples as far as memory allows.
    """
    pack: list[Group] = []
    size = 0
    for group in groups:
        need = sum(_view(found, group, s)[0].shape[1] ** 2 for s in found.readers(group))
        if pack and size + need > _MOMENTS:
            yield from _measure(found, model, pack, context, centred=centred)
            pack, size = [], 0
        pack.append(group)
        size += need
    if pack:
        yield from _measure(found, model, pack, context, centred=centred)


def _measure(
    found: Map, model: ir.Model, pack: list[Group], context: Context, *, centred: bool
) -> Iterator[list[Reader]]:
    assert context.data is not None
    parts = [(group, s) for group in pack for s in found.readers(group)]
    views = [_view(found, group, s) for group, s in parts]
    sums = [Normal.empty(m.shape[1]) for m, _ in views]
    values = [name_of(s.node.inputs[0]) for _, s in parts]
    picks: dict[int, NDArray[np.int64]] = {}
    outputs = [name_of(s.node.outputs[0]) for _, s in parts]
    for samples, chunk in capture.chunks(model, values + outputs, context.data):
        for i, (_, s) in enumerate(parts):
            x = chunk[values[i]]
            if repair.matrix(s.node) is None:
                rows = np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])
            else:
                if i not in picks:
                    here, seed = samples.stop - samples.start, (context.seed, i)
                    picks[i] = repair.pick(s.node, chunk[outputs[i]], here, len(context.data), _ROWS, seed)
                rows = repair.rows(s.node, x, picks[i][samples])
            sums[i].add(rows)
    for group in pack:
        yield [
            _reader(s.node, m, unit, total, centred=centred)
            for (own, s), (m, unit), total in zip(parts, views, sums, strict=True)
            if own is group
        ]


def _reader(node: ir.Node, m: Matrix, unit: NDArray[np.int64], total: Normal, *, centred: bool) -> Reader:
    few = total.n < m.shape[1]
    if centred and not few and repair.matrix(node) is not None and repair.bias_of(node) is not None:
        return Reader(m, total.covariance(), unit, total.x / total.n)
    return Reader(m, total.second(), unit, few=few)


def _view(found: Map, group: Group, part: Slices) -> tuple[Matrix, NDArray[np.int64]]:
    """A reader as M [o, f] and the unit (by its place in the group) of each feature.

    Grouped and transposed convolutions are seen channel by channel: their kernel places count as outputs.
    """
    m = repair.matrix(part.node)
    if m is not None:
        unit = np.repeat(_places(found, group, part.ids), m.shape[2])
        return m.reshape(len(m), -1), unit
    w = np.asarray(g.array(part.node.inputs[1]), np.float64)
    ids = found.at[part.node.inputs[0]].ids  # type: ignore[index]  # a reader's input is no empty one
    if part.node.op_type == "ConvTranspose":
        m = np.moveaxis(w.reshape(len(w), -1), 0, 1)
    else:
        groups = len(ids) // w.shape[1]
        wide = np.zeros((len(w), w[0, 0].size, len(ids)))
        for o in range(len(w)):
            first = o // (len(w) // groups) * w.shape[1]
            wide[o, :, first : first + w.shape[1]] = w[o].reshape(w.shape[1], -1).T
        m = wide.reshape(-1, len(ids))
    return m, _places(found, group, ids)


def _places(found: Map, group: Group, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place in the group of the unit of each atom, -1 for atoms of other groups."""
    units = found.unit[ids]
    order = np.argsort(group.units)
    at = np.clip(np.searchsorted(group.units[order], units), 0, len(order) - 1)
    return np.where(group.units[order[at]] == units, order[at], -1)
