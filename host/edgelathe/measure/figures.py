"""One result of `edgelathe.bench/1`, from what was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgelathe.core.device import Probe
from edgelathe.core.interval import Interval
from edgelathe.device.errors import ModelFailure
from edgelathe.measure import claims as claimed
from edgelathe.measure import conditions, sustain
from edgelathe.measure.grade import grade
from edgelathe.measure.interleave import Series, thinned
from edgelathe.measure.plan import Job
from edgelathe.measure.subject import Measured
from edgelathe.stats import drift, latency, outliers, processes, ratio, throughput
from edgelathe.stats.latency import STATISTICS
from edgelathe.stats.quantile import samples_needed


def result(m: Measured, job: Job, probe: Probe, remarks: Sequence[str], more: Mapping[str, Any]) -> dict[str, Any]:
    """All that is known of one model; `latency_ms` is null where nothing was measured. `more`: further fields."""
    if m.error or not m.whole.calls:
        return failed(m, probe, remarks)
    series, found, facts = m.whole, times(m), m.facts
    assert facts  # there are calls, so it was opened
    needed = 0 if job.scenario.name == "offline" else samples_needed(max(0.5, job.percentile))
    trust = trusted(series, probe, needed, drifts=not job.scenario.sustain_ms)
    few = [f"p{job.percentile * 100:g}: {series.calls} calls are too few, a bound needs {needed}"]
    rate, ends = throughput.throughput(claimed.samples(m))
    if len(m.groups) > 1:
        ends = _inverse(found["mean_ci"], facts.samples)
    still = sustain.remarks(series) if job.scenario.sustain_ms else ()
    return {
        **_head(m, probe), "scenario": {**job.scenario.to_json(), "samples": facts.samples},
        "latency_ms": found, "throughput": rate, "throughput_ci": [ends.low, ends.high],
        "load_ms": facts.load_ms, "build_ms": facts.build_ms, "warm_calls": series.warm_calls,
        "blocks": len(series.blocks), "looks": m.looks, "tries": m.tries,
        **trust,
        **({"processes": processes.spread([g.blocks for g in m.groups]).to_json()} if len(m.groups) > 1 else {}),
        "outliers": outliers.outliers(series.blocks).to_json(),
        **({"sustained": sustain.to_json(series)} if job.scenario.sustain_ms else {}),
        **_split(series), **_paced(m), **more,
        "warnings": [*remarks, *m.subject.remarks, *facts.warnings, *series.warnings, *m.warnings, *_luck(m), *still,
                     *(few if series.calls < needed else ())],
    }  # fmt: skip


def trusted(series: Series, probe: Probe, needed: int, *, drifts: bool = True) -> dict[str, Any]:
    """`drift`, `conditions` and `grade` of a series. `needed`: calls that the percentile asked for wants; `drifts`:
    a drift is a blemish, and not the answer itself."""
    trend = drift.drift(series.blocks)
    condition = conditions.summary(series.conditions, series.more, probe.cores)
    marked = conditions.marked(series.conditions, series.more, probe.cores)
    found = grade(
        marked, condition, change=trend.relative if drifts else None, significant=trend.significant, n=series.calls,
        needed=needed, settled=series.settled, emulated=probe.emulated,
    )  # fmt: skip
    return {"drift": trend.to_json(), "conditions": condition, "grade": found.to_json()}


def failed(m: Measured, probe: Probe, remarks: Sequence[str]) -> dict[str, Any]:
    """The result of a model that could not be measured."""
    e = m.error or ModelFailure(probe.name, "stopped before it was measured", "run it again", "interrupted")
    return {
        **_head(m, probe), "latency_ms": None, "error": {"kind": e.kind, "what": e.what, "mend": e.mend},
        "warnings": [*remarks, *m.warnings],
    }  # fmt: skip


def times(m: Measured) -> dict[str, Any]:
    """`latency_ms`: values, two-sided 95% intervals (`_ci`) and one-sided upper 95% bounds (`_bound`)."""
    groups, every = [thinned(g.blocks) for g in m.groups], [b for g in m.groups for b in g.blocks if len(b)]
    found = processes.summarize(groups) if len(groups) > 1 else latency.summarize(groups[0])
    bounds = {f"{s}_bound": _finite(claimed.time(m, s).upper) for s in STATISTICS}
    ends = {"min": min(int(b.min()) for b in every) / 1e6, "max": max(int(b.max()) for b in every) / 1e6}
    return {**found.to_json(), **ends, "n": sum(map(len, every)), **bounds}


def comparison(a: Measured, b: Measured, job: Job) -> dict[str, Any]:
    """One of `comparisons`."""
    found = claimed.compare(a, b, "p50", job.margin)
    return {"a": a.subject.name, "b": b.subject.name, **found.to_json(), "pairs": found.pairs, "margin": job.margin}


def _head(m: Measured, probe: Probe) -> dict[str, Any]:
    model, how, facts = m.subject.model, m.subject.options, m.facts
    ran = replace(how, provider=facts.provider) if facts else how
    return {
        "model": m.subject.name, "format": model.format, "bytes": model.bytes, "sha256": model.sha256,
        "runtime": how.runtime, "version": facts.version if facts else None, "options": ran.to_json(),
        "inputs": {k: list(a.shape[1:]) for k, a in m.subject.inputs.items()}, "emulated": probe.emulated,
    }  # fmt: skip


def _paced(m: Measured) -> dict[str, Any]:
    """Paced calls beside calls back to back, in the same rounds."""
    if m.beside is None:
        return {}
    against = ratio.compare(m.beside.blocks, m.whole.blocks)
    late = sum(int(more.get("late") or 0) for more in m.whole.more)
    return {
        "paced": {
            "p50_ms": latency.claim(m.whole.blocks, "p50").value, "late": late,
            "back_to_back_ms": latency.summarize(m.beside.blocks).to_json(), **against.to_json(),
        }
    }  # fmt: skip


def _split(series: Series) -> dict[str, Any]:
    """Copies and compute of a call on a GPU, medians over the blocks, in ms."""
    parts = [more["split"] for more in series.more if more.get("split")]
    if not parts:
        return {}
    names = {"copy_in_ns": "copy_in_ms", "compute_ns": "compute_ms", "copy_out_ns": "copy_out_ms"}
    return {
        "split": {
            out: float(np.median([p[name] for p in parts])) / 1e6 for name, out in names.items() if name in parts[0]
        }
    }


def _inverse(ends: Sequence[float | None], samples: int) -> Interval:
    """The interval of samples per second from that of the mean time of a query in ms."""
    low, high = ends
    return Interval(1000 * samples / high if high else 0.0, 1000 * samples / low if low and low > 0 else math.inf)


def _luck(m: Measured) -> list[str]:
    if len(m.groups) < 2:
        return []
    found = processes.spread([g.blocks for g in m.groups])
    if not found.matters:
        return []
    what = "memory layout or other processes count here, and one process alone misleads"
    return [f"processes differ by {found.share:.1%}: {what}"]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
