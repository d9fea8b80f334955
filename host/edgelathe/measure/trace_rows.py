"""A trace as values: times of rows in rounds, brought into line with a run without a profiler."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgelathe.measure import conditions
from edgelathe.measure.grade import grade
from edgelathe.stats.ratio import centre_bounds, effective_pairs, walsh_averages

if TYPE_CHECKING:
    from edgelathe.core.device import SessionOptions
    from edgelathe.device.session import Timed
    from edgelathe.model.graph import Layer

Rounds = NDArray[np.float64]
Kind = Literal["operator", "runtime", "outside"]

OUTSIDE, HELD_UP = "outside of operators", "held up by other processes"


class Estimate(NamedTuple):
    """A time in ms with its two-sided 95% interval (infinite where there are too few rounds)."""

    ms: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """What ran between two clock readings of the profiler, or between two cuts.

    Attributes:
        layers: positions in the model's layers that it covers; none: the runtime's own.
        op: of the layer that does the most work there; of a row of the runtime's own, what that is.
        kernel: what the runtime calls the operation that ran ("": it does not tell).
        provider, dtype: what ran it, and the type that it computes in ("": not told).
        kind: `operator` of the model, added by the `runtime`, or time `outside` of all of them.
        rounds: ms of a call in each round, as measured.
        runs: of kernels in a call.
        cost: what the profiler's own part of it is in proportion to.
    """

    layers: tuple[int, ...]
    op: str
    kernel: str
    provider: str
    dtype: str
    kind: Kind
    rounds: Rounds
    runs: float = 1.0
    cost: float = 0.0

    @property
    def measured(self) -> Estimate:
        """Of a call, as measured."""
        return centre(self.rounds)


@dataclass(frozen=True)
class Trace:
    """One model's rows in the order in which they ran, and its time without a profiler (`total`).

    `profiled`: of a call with the profiler (None: there was none). `unit_ms`: of a row, so much times its `cost` counts
    as the profiler's own. `scale`: what the rest is multiplied by. Both make the rows add up to `total`. `blocks`: of
    calls without the profiler, for the conditions that they were made under.
    """

    name: str
    format: str
    layers: tuple[Layer, ...]
    options: SessionOptions
    method: Literal["profiler", "prefixes"]
    total: Estimate
    profiled: Estimate | None
    rows: tuple[Row, ...]
    unit_ms: float = 0.0
    scale: float = 1.0
    blocks: tuple[Timed, ...] = ()
    warnings: tuple[str, ...] = ()

    def taken(self, row: Row) -> float:
        """What of a row's ms, as measured, counts as the profiler's own."""
        return self.unit_ms * row.cost

    def fitted(self, row: Row) -> Rounds:
        """A row's ms in each round, without the profiler's part; differences of cuts may lie below nothing."""
        return (row.rounds - self.taken(row)) * self.scale

    def estimate(self, row: Row) -> Estimate:
        """A row's ms in a call without the profiler."""
        e = row.measured
        return Estimate(*(max(0.0, v - self.taken(row)) * self.scale for v in e))

    def to_json(self, cores: int = 1, *, emulated: bool = False) -> dict[str, Any]:
        """One of `models` of `edgelathe.trace/1`; `cores`: CPUs of the device, `emulated`: whether it is."""
        seen = [b.conditions for b in self.blocks], [b.more for b in self.blocks]
        marks = conditions.marked(*seen, cores)
        summary = conditions.summary(*seen, cores)
        calls = sum(len(b.ns) for b in self.blocks)
        ratio = None if self.profiled is None else self.profiled.ms / self.total.ms
        return {
            "model": self.name, "format": self.format, "runtime": self.options.runtime,
            "options": self.options.to_json(), "method": self.method,
            "total_ms": self.total.ms, "low": finite(self.total.low), "high": finite(self.total.high),
            "profiled_ms": None if self.profiled is None else self.profiled.ms, "overhead": ratio,
            "operators_ms": sum(r.measured.ms for r in self.rows if r.kind != "outside"),
            "rows": [self._row(r) for r in self.rows], "conditions": summary,
            "grade": grade(marks, summary, n=calls, emulated=emulated).to_json(), "warnings": list(self.warnings),
        }  # fmt: skip

    def _row(self, row: Row) -> dict[str, Any]:
        e = self.estimate(row)
        return {
            "layer": main_layer(self.layers, row.layers).name if row.layers else None,
            "layers": [self.layers[i].name for i in row.layers], "op": row.op, "kernel": row.kernel or None,
            "provider": row.provider or None, "dtype": row.dtype or None, "kind": row.kind,
            "ms": e.ms, "low": finite(e.low), "high": finite(e.high), "measured_ms": row.measured.ms,
            "taken_ms": self.taken(row), "share": e.ms / self.total.ms, "calls": row.runs,
        }  # fmt: skip


def main_layer(layers: Sequence[Layer], covered: Sequence[int]) -> Layer:
    """The layer that does the most work of these; among equals the first that does not only change the type."""
    return max((layers[i] for i in covered), key=lambda x: (x.macs or 0, "quantize" not in x.op.lower()))


def centre(rounds: Rounds) -> Estimate:
    """The middle of a time over rounds: Hodges and Lehmann's estimate with the interval of signed ranks.

    Hollander and Wolfe, Nonparametric Statistical Methods, 3.2 and 3.3. A disturbed round moves it little.
    """
    averages = walsh_averages(rounds)
    low, high = centre_bounds(averages, len(rounds), effective_pairs(rounds), 0.025)
    return Estimate(float(np.median(averages)), low, high)


def middle(ns: NDArray[np.generic]) -> float:
    """Interquartile mean in ms: finer than the whole microseconds of a profiler, deaf to calls that were disturbed."""
    ordered = np.sort(ns.astype(np.float64))
    quarter = len(ordered) // 4
    return float(ordered[quarter : len(ordered) - quarter].mean()) / 1e6


def reconciled(rows: Sequence[Row], total: Estimate, beside_ms: float) -> tuple[float, list[Row]]:
    """How many ms of each row, per unit of its cost, were the profiler's own, and rows for what no kernel explains.

    Where the kernels together took longer than a whole call without the profiler, its part is taken off each, none
    below nothing, so that they add up to that call. Where they took less, nothing is taken off. Of the rest, what a
    profiled call spent beside its kernels (`beside_ms`) was spent outside of them; what is left befell whichever kernel
    ran when another process took the CPU: most calls had some of it, but each kernel by itself hardly any.
    """
    times = np.array([r.measured.ms for r in rows])
    cost = np.array([r.cost for r in rows])
    rest = total.ms - float(times.sum())
    if rest >= 0:
        parts = {OUTSIDE: min(rest, max(0.0, beside_ms)), HELD_UP: max(0.0, rest - max(0.0, beside_ms))}
        count = len(rows[0].rounds) if rows else 1
        return 0.0, [Row((), n, "", "", "", "outside", np.full(count, ms), 0.0) for n, ms in parts.items() if ms > 0]
    low, high = 0.0, float((times / cost).max())
    for _ in range(60):
        at = (low + high) / 2
        low, high = (at, high) if np.maximum(times - at * cost, 0.0).sum() > total.ms else (low, at)
    return high, []


def finite(value: float) -> float | None:
    """None for an end of an interval that the rounds do not support."""
    return value if math.isfinite(value) else None
