"""Two traces side by side, by the layers of the first model: what got faster, what slower, what stayed behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.measure.trace_rows import Row, Trace, centre, finite, main_layer
from edgelathe.model.regions import Kernel, family, regions
from edgelathe.stats import ratio

if TYPE_CHECKING:
    from edgelathe.model.graph import Layer

#: Operators that only change the type or place of numbers: added ones are the price of a type or of a provider.
CONVERSIONS = frozenset(
    ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast", "Transpose", "ReorderInput",
     "ReorderOutput", "MemcpyToHost", "MemcpyFromHost", "QUANTIZE", "DEQUANTIZE", "CAST", "TRANSPOSE")
)  # fmt: skip
#: Times below this, in ms, are within what a profiler cuts off: no ratio is told.
_LEAST = 1e-3
#: Of what is taken off as the profiler's own, the share that may as well be the kernels' time.
_DOUBT = 0.25


@dataclass(frozen=True)
class _Side:
    """A trace's rows and, of each, the layers of the first model that it covers."""

    trace: Trace
    covered: tuple[tuple[int, ...], ...]


def compare(a: Trace, b: Trace, margin: float = 0.02) -> list[dict[str, Any]]:
    """Before and after: a row per smallest set of layers of `a` that rows of both models cover exactly.

    Layers are matched by their names, then by the names of what they put out. Rows that belong to no layer of `a` are
    joined by what they are. The order is that of `a`'s layers. `low` and `high` of a ratio are 1 plus the 95% interval
    of the difference in rounds, over the time in `a`, and a quarter of what was taken off as the profiler's own beyond.
    """
    sides = (_Side(a, tuple(r.layers for r in a.rows)), _Side(b, _onto(a.layers, b)))
    groups = _joined([c for side in sides for c in side.covered if c])
    out = []
    for layers in groups:
        rows = [_of(side, layers) for side in sides]
        out.append(_line(a, b, layers, rows[0], rows[1], margin))
    own: dict[str, tuple[list[Row], list[Row]]] = {}
    for number, side in enumerate(sides):
        for row, covered in zip(side.trace.rows, side.covered, strict=True):
            if not covered:
                own.setdefault(row.kernel or row.op, ([], []))[number].append(row)
    out += [_line(a, b, (), before, after, margin) for before, after in own.values()]
    return out


def _onto(layers: Sequence[Layer], b: Trace) -> tuple[tuple[int, ...], ...]:
    """For each row of `b`, the positions of the first model's layers that it covers.

    Layers that `b` has no more (folded, fused) go where a runtime's fusions would have taken them.
    """
    names, outputs = _unique([x.name for x in layers]), {o: i for i, x in enumerate(layers) for o in x.outputs}
    ends = [_ends(layers), _ends(b.layers)]
    for i, j in zip(*ends, strict=False) if len(ends[0]) == len(ends[1]) else ():
        if family(layers[i].op) == family(b.layers[j].op):
            outputs.setdefault(b.layers[j].outputs[0], i)
    mine: list[int | None] = [
        names.get(x.name, next((outputs[o] for o in x.outputs if o in outputs), None)) for x in b.layers
    ]
    made = {o: i for i, x in enumerate(b.layers) for o in x.outputs}
    for i, x in enumerate(b.layers):  # a conversion in front of an output has taken over the name of what it converts
        at = mine[i]
        if at is not None and x.op in CONVERSIONS and layers[at].op not in CONVERSIONS:
            mine[i], source = None, made.get(x.inputs[0]) if x.inputs else None
            if source is not None and mine[source] is None:
                mine[source] = at
    kernels = []
    for row in b.rows:
        named = tuple(dict.fromkeys(at for at in (mine[i] for i in row.layers) if at is not None))
        kernels.append(Kernel(row.op, named))
    return tuple(regions(layers, kernels))


def _joined(sets: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Sets that share a member become one; by their least member."""
    parent: dict[int, int] = {}

    def root(i: int) -> int:
        while parent.setdefault(i, i) != i:
            i = parent[i]
        return i

    for one in sets:
        for other in one:
            parent[root(other)] = root(one[0])
    groups: dict[int, list[int]] = {}
    for i in sorted(parent):
        groups.setdefault(root(i), []).append(i)
    return [tuple(g) for g in groups.values()]


def _of(side: _Side, layers: tuple[int, ...]) -> list[Row]:
    wanted = set(layers)
    return [row for row, covered in zip(side.trace.rows, side.covered, strict=True) if wanted.intersection(covered)]


def _line(
    a: Trace, b: Trace, layers: tuple[int, ...], before: list[Row], after: list[Row], margin: float
) -> dict[str, Any]:
    times = [sum(t.estimate(r).ms for r in rows) for t, rows in ((a, before), (b, after))]
    line: dict[str, Any] = {
        "layers": [a.layers[i].name for i in layers],
        "layer": main_layer(a.layers, layers).name if layers else None,
        "op": main_layer(a.layers, layers).op if layers else (before or after)[0].kernel or (before or after)[0].op,
        "kind": "operator" if layers else _kind((before or after)[0]),
        "a": _half(before, times[0]), "b": _half(after, times[1]),
        "difference_ms": times[1] - times[0], "ratio": None, "low": None, "high": None, "verdict": "undecided",
        "notes": _notes(b, after, bool(layers)),
    }  # fmt: skip
    if min(times) < _LEAST or not before or not after or line["kind"] == "outside":
        return line
    blocks = [np.sum([t.fitted(r) for r in rows], axis=0) for t, rows in ((a, before), (b, after))]
    count = min(map(len, blocks))
    gained = centre(blocks[1][:count] - blocks[0][:count])
    doubt = _DOUBT * sum(t.taken(r) for t, rows in ((a, before), (b, after)) for r in rows)
    low, high = (max(0.0, 1 + v / times[0]) for v in (gained.low - doubt, gained.high + doubt))
    verdict = ratio.verdict(low, high, margin)
    return {**line, "ratio": times[1] / times[0], "low": low, "high": finite(high), "verdict": verdict}


def _kind(row: Row) -> str:
    """Of a row that no layer of the first model explains: the second model's own operators are `added`."""
    return "added" if row.kind == "operator" else row.kind


def _half(rows: Sequence[Row], ms: float) -> dict[str, Any] | None:
    if not rows:
        return None

    def several(values: Sequence[str]) -> list[str]:
        return list(dict.fromkeys(v for v in values if v))

    return {
        "ms": ms,
        "kernels": several([r.kernel for r in rows]),
        "dtypes": several([r.dtype for r in rows]),
        "providers": several([r.provider for r in rows]),
    }


def _notes(b: Trace, rows: Sequence[Row], of_model: bool) -> list[str]:
    """What is to be said of the second model's rows: float among integers, another provider, conversions."""
    whole = any(_integer(r) and (r.kernel or r.op) not in CONVERSIONS for r in b.rows)
    notes = []
    for r in rows:
        kernel = r.kernel or r.op
        if (
            r.kind == "operator"
            and of_model
            and whole
            and r.dtype in ("float32", "float64")
            and kernel not in CONVERSIONS
        ):
            notes.append(f"{kernel} stays in {r.dtype}")
        if r.provider and r.provider != b.options.provider and not kernel.startswith("Memcpy"):
            notes.append(f"{kernel} fell back to {r.provider}")
        if not of_model and r.kind != "outside":
            notes.append(f"{kernel} added")
    return list(dict.fromkeys(notes))


def _integer(row: Row) -> bool:
    return row.dtype.startswith(("int", "uint"))


def _ends(layers: Sequence[Layer]) -> list[int]:
    """Layers whose outputs no other reads: what the model answers, in their order."""
    read = {t for x in layers for t in x.inputs}
    return [i for i, x in enumerate(layers) if read.isdisjoint(x.outputs)]


def _unique(names: Sequence[str]) -> dict[str, int]:
    return {n: i for i, n in enumerate(names) if names.count(n) == 1}
