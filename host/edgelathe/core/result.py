"""What a run answers: latencies, accuracies, candidates, budget lines. The types behind `result.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from edgelathe.core.device import SessionOptions
from edgelathe.core.interval import Interval

Verdict = Literal["met", "missed", "undecided"]
Status = Literal["planned", "running", "measured", "rejected", "failed"]


@dataclass(frozen=True)
class Latency:
    """Summary of single-stream latencies, in milliseconds; `ci` holds two-sided 95% intervals by statistic.

    A percentile that the samples do not support has an interval with an infinite end. `paced` and `sustained` are
    medians with pauses between the calls, and once the device has warmed up; None: not measured.
    """

    p50: float
    p90: float
    p95: float
    p99: float
    mean: float
    min: float
    max: float
    n: int
    ci: Mapping[str, Interval] = field(default_factory=dict)
    paced: float | None = None
    sustained: float | None = None

    def to_json(self) -> dict[str, Any]:
        """`{"p50", ..., "p50_ci": [lo, hi], ...}`; an infinite end is null, what is not measured left out."""
        doc = {k: v for k, v in asdict(self).items() if k != "ci" and v is not None}
        return doc | {f"{k}_ci": [_finite(i.low), _finite(i.high)] for k, i in self.ci.items()}

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Latency:
        """The inverse of `to_json`."""
        ci = {k.removesuffix("_ci"): _interval(v) for k, v in doc.items() if k.endswith("_ci")}
        return cls(**{k: v for k, v in doc.items() if not k.endswith("_ci")}, ci=ci)


@dataclass(frozen=True)
class Accuracy:
    """A metric over `n` samples with its two-sided 95% interval, and the paired drop against the baseline.

    `value`, `low`, `high` are in the metric's own unit (fractions for shares); `drop` is positive where the
    model is worse than the baseline, whichever way the metric points; None for the baseline itself.
    """

    metric: str
    value: float
    n: int
    low: float
    high: float
    drop: float | None = None
    drop_low: float | None = None
    drop_high: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The `accuracy` of a candidate; an infinite end is null."""
        return {k: _finite(v) if isinstance(v, float) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Accuracy:
        """The inverse of `to_json`."""
        return cls(**doc)


@dataclass(frozen=True)
class Candidate:
    """A recipe applied to a model, with what the device answered for it so far. Times in ms, sizes in bytes.

    `energy` is that of `measure.energy`, with `mj_per_inference`; `grade` that of `measure.grade`: how far the latency
    is to be trusted.
    """

    id: str
    recipe: str
    format: str
    options: SessionOptions
    bytes: int | None = None
    sha256: str | None = None
    status: Status = "planned"
    why: str = ""
    latency: Latency | None = None
    accuracy: Accuracy | None = None
    throughput: float | None = None
    peak_bytes: int | None = None
    energy: Mapping[str, Any] | None = None
    load_ms: float | None = None
    pareto: bool = False
    warnings: tuple[str, ...] = ()
    grade: Mapping[str, Any] | None = None

    def with_(self, **changes: Any) -> Candidate:
        """A copy with these fields changed."""
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """The `candidate` of `edgelathe.fit/1`."""
        return {
            "id": self.id, "recipe": self.recipe, "format": self.format, "runtime": self.options.runtime,
            "options": self.options.to_json(), "bytes": self.bytes, "sha256": self.sha256, "pareto": self.pareto,
            "status": self.status, "why": self.why, "throughput": self.throughput,
            "latency_ms": self.latency and self.latency.to_json(),
            "accuracy": self.accuracy and self.accuracy.to_json(),
            "memory": {"peak_bytes": self.peak_bytes},
            "energy": self.energy and dict(self.energy), "grade": self.grade and dict(self.grade),
            "load_ms": self.load_ms, "warnings": list(self.warnings),
        }  # fmt: skip

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Candidate:
        """The inverse of `to_json`."""
        return cls(
            id=doc["id"], recipe=doc["recipe"], format=doc["format"],
            options=SessionOptions.from_json(doc["runtime"], doc["options"]),
            bytes=doc["bytes"], sha256=doc["sha256"], pareto=doc["pareto"], status=doc["status"], why=doc["why"],
            throughput=doc["throughput"],
            latency=Latency.from_json(doc["latency_ms"]) if doc["latency_ms"] else None,
            accuracy=Accuracy.from_json(doc["accuracy"]) if doc["accuracy"] else None,
            peak_bytes=doc["memory"]["peak_bytes"],
            energy=doc["energy"], grade=doc.get("grade"),
            load_ms=doc["load_ms"], warnings=tuple(doc["warnings"]),
        )  # fmt: skip


@dataclass(frozen=True)
class BudgetLine:
    """One limit of the budget with the verdict on the chosen candidate, in the metric's unit (ms, bytes, fractions)."""

    expr: str
    metric: str
    limit: float
    value: float | None
    bound: float | None
    baseline: float | None
    verdict: Verdict
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """The budget line of `edgelathe.fit/1`; an infinite bound is null."""
        return {k: _finite(v) if isinstance(v, float) else v for k, v in asdict(self).items()}


def _finite(value: float) -> float | None:
    return value if abs(value) != float("inf") else None


def _interval(pair: list[float | None]) -> Interval:
    low, high = pair
    return Interval(float("-inf") if low is None else low, float("inf") if high is None else high)
