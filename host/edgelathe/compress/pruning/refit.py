"""Least-squares repair of the layers behind a cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgelathe.compress.forward import capture
from edgelathe.compress.graph import moves as g
from edgelathe.compress.graph.moves import name_of
from edgelathe.compress.types import Note
from edgelathe.compress.weights import repair
from edgelathe.compress.weights.repair import Normal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray

    from edgelathe.compress.types import Context
    from edgelathe.compress.weights.repair import Matrix

_TARGETS = 50_000_000  # entries of targets that are kept at once
_ROWS = 24_000  # rows of one least-squares problem
_HELD = 4  # one sample in so many chooses how strongly a fit is drawn to the old weights
FEWEST, ENOUGH = 2, 32  # samples: for one to be held out, and from where on refits won on all models that were tried
_WIDEST = 5_000  # features of the widest layer that is refitted


@dataclass(frozen=True, eq=False)
class _Job:
    """One layer to refit: its place in the graph, and the other side of the sum that its output goes into, if any."""

    index: int
    other: str | None


def refit(
    before: ir.Model, after: ir.Model, kept: Mapping[ir.Node, NDArray[np.bool_]], context: Context, skip: set[int]
) -> list[Note]:
    """Refit each linear layer of `after` that reads something changed, first to last, to what it made in `before`.

    Each fit sees the inputs as the layers before it, already refitted, make them, so errors do not add up; where a
    layer's output is summed with an earlier value, it also makes up for the error of that one (He, Zhang and Sun, 2017,
    section 3.3). Bounded memory: places of the maps are sampled, and targets kept in packs.
    """
    nodes, names, data = list(after.graph), g.Names(after.graph), context.data
    assert data is not None
    jobs = _jobs(list(before.graph), nodes, skip)
    if len(data) < FEWEST:
        what = (
            f"not refitted: {len(data)} sample, of which none can be held out; give {FEWEST} at least, better {ENOUGH}"
        )
        return [Note("model", False, what)] if jobs else []
    notes = []
    for pack in _packs(jobs, nodes, len(data)):
        picks, wanted = _targets(before, pack, context)
        for job in pack:
            node = nodes[job.index]
            m = repair.matrix(node)
            assert m is not None
            target = wanted.pop(job.index)[:, kept.get(node, np.ones(len(m), bool))]
            parts = (Normal.empty(m[0].size, len(m)), Normal.empty(m[0].size, len(m)))
            x, at, every = name_of(node.inputs[0]), 0, min(_HELD, len(data))
            for samples, chunk in capture.chunks(after, [x, *([job.other] if job.other else [])], data):
                own = picks[job.index][samples]
                rows = repair.rows(node, chunk[x], own)
                y = target[at : at + len(rows)]
                y = y - repair.made(node, chunk[job.other], own) if job.other else y
                sample = samples.start + np.arange(len(rows)) * (samples.stop - samples.start) // len(rows)
                held = sample % every == every - 1
                for part, those in zip(parts, (~held, held), strict=True):
                    part.add(rows[those], y[those])
                at += len(rows)
            notes.append(_solve(node, m, parts, names))
    return notes


def _solve(node: ir.Node, m: Matrix, parts: tuple[Normal, Normal], names: g.Names) -> Note:
    place, name = repair.bias_of(node), g.layer(node)
    own = place is not None and place[0] is node  # else what is fitted comes before the bias is added
    bias = repair.bias_value(node, len(m))
    found = repair.best_fit(parts, m.reshape(len(m), -1), bias if own else np.zeros_like(bias), bias=place is not None)
    if found is None:
        return Note(name, False, f"not refitted: on {parts[1].n} rows held out its weights as they are lose less")
    fitted, b = found
    repair.store(node, fitted.reshape(m.shape), None if place is None else b if own else b + bias, names)
    return Note(name, True, f"refitted on {parts[0].n + parts[1].n} rows")


def _jobs(before: list[ir.Node], after: list[ir.Node], skip: set[int]) -> list[_Job]:
    place = {n: i for i, n in enumerate(after)}
    changed: set[ir.Value] = set()
    out = []
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        reads = new.inputs[0] in changed if new.inputs else False
        if any(v in changed for v in new.inputs) or any(
            _differs(a, b) for a, b in zip(old.inputs, new.inputs, strict=True)
        ):
            changed.update(new.outputs)
        linear = new.op_type in ("Conv", "Gemm", "MatMul") and len(new.inputs) > 1
        m = repair.matrix(new) if linear and reads and i not in skip else None
        if m is None or m[0].size > _WIDEST:
            continue
        total = g.only_consumer(new.outputs[0])
        other = None
        if total is not None and total.op_type == "Add":
            value = next((v for v in total.inputs if v is not new.outputs[0]), None)
            maker = value.producer() if value is not None else None
            same = value is not None and g.rank(value) is not None and value.shape == new.outputs[0].shape
            if same and value in changed and maker is not None and place.get(maker, i) < i:
                other = value.name if value is not None else None
        out.append(_Job(i, other))
    return out


def _differs(a: ir.Value | None, b: ir.Value | None) -> bool:
    old, new = g.array(a), g.array(b)
    return old is not None and new is not None and old.shape != new.shape


def _packs(jobs: list[_Job], nodes: list[ir.Node], samples: int) -> Iterator[list[_Job]]:
    pack: list[_Job] = []
    size = 0
    for job in jobs:
        m = repair.matrix(nodes[job.index])
        assert m is not None
        need = max(_ROWS, samples) * len(m)
        if pack and size + need > _TARGETS:
            yield pack
            pack, size = [], 0
        pack.append(job)
        size += need
    if pack:
        yield pack


def _targets(
    before: ir.Model, pack: list[_Job], context: Context
) -> tuple[dict[int, NDArray[np.int64]], dict[int, NDArray[np.float32]]]:
    """Where each layer of the pack is sampled, [samples, places], and what it made there, [rows, outputs]."""
    assert context.data is not None
    nodes = list(before.graph)
    picks: dict[int, NDArray[np.int64]] = {}
    parts: dict[int, list[NDArray[np.float32]]] = {job.index: [] for job in pack}
    values = [v for j in pack for v in (name_of(nodes[j.index].outputs[0]), j.other) if v]
    for samples, chunk in capture.chunks(before, values, context.data):
        for job in pack:
            node = nodes[job.index]
            y = chunk[name_of(node.outputs[0])]
            if job.index not in picks:
                here, seed = samples.stop - samples.start, (context.seed, job.index)
                picks[job.index] = repair.pick(node, y, here, len(context.data), _ROWS, seed)
            y = y + chunk[job.other] if job.other else y
            parts[job.index].append(repair.made(node, y, picks[job.index][samples]))
    return picks, {k: np.concatenate(v) for k, v in parts.items()}
