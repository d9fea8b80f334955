"""What a bench shows of one model, as claims with bounds, and whether they keep a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgelathe.core import budget
from edgelathe.core.budget import Limit
from edgelathe.core.claim import Claim
from edgelathe.core.result import BudgetLine
from edgelathe.measure.interleave import thinned
from edgelathe.measure.looks import per_sample, statistic
from edgelathe.measure.plan import Job
from edgelathe.measure.subject import Measured
from edgelathe.measure.sustain import steady_claim
from edgelathe.stats import latency, processes, ratio, throughput
from edgelathe.stats.latency import STATISTICS
from edgelathe.stats.ratio import Comparison


def claims(m: Measured, more: Mapping[str, Claim], *, sustained: bool = False) -> dict[str, Claim]:
    """By metric of a budget, in its unit. `more`: those that do not come from the series."""
    made = {f"latency.{s}": time(m, s) for s in STATISTICS} if m.whole.calls else {}
    if made:
        made["throughput"] = rate(m)
        made["latency.paced"] = made["latency.p50"]
        if sustained:
            made["latency.sustained"] = steady_claim(m.whole)
    return {**made, "size": Claim.of(m.subject.model.bytes), **more}


def time(m: Measured, name: str) -> Claim:
    """One statistic of a query in ms; its bounds hold wherever the bench ended, and for another process."""
    groups = [thinned(g.blocks) for g in m.groups]
    return processes.claim(groups, name) if len(groups) > 1 else latency.claim(groups[0], name, looks=m.looks)


def rate(m: Measured) -> Claim:
    """Samples per second, with bounds as those of `time`."""
    if len(m.groups) > 1:
        return time(m, "mean").inverse(1000 * width(m))
    return throughput.claim(samples(m), looks=m.looks)


def samples(m: Measured) -> list[tuple[int, int]]:
    """(samples, nanoseconds) of each block."""
    return [(len(b) * width(m), int(b.sum())) for b in m.whole.blocks]


def compare(a: Measured, b: Measured, name: str, margin: float) -> Comparison:
    """Time of a sample of b over that of a."""
    of_a, of_b = ([per_sample(g, width(m)) for g in m.groups] for m in (a, b))
    if len(a.groups) > 1:
        return processes.compare(of_a, of_b, name, margin)
    return ratio.compare(of_a[0], of_b[0], name, margin, looks=a.looks)


def width(m: Measured) -> int:
    """Samples of a query."""
    return m.facts.samples if m.facts else 1


def judge(
    limits: Sequence[Limit], m: Measured, base: Measured, found: Mapping[str, Claim], first: Mapping[str, Claim],
    job: Job, *, emulated: bool,
) -> list[BudgetLine]:  # fmt: skip
    """A line for each limit that concerns this model.

    Args:
        limits: of the budget; relative ones are about `base`, the first model, and do not concern that itself.
        m: this model.
        base: the first model.
        found: this model's claims; first: those of the first model.
        job: of the bench.
        emulated: whether the device is.
    """
    lines = []
    for limit in limits:
        if limit.relative and m is base:
            continue
        held = emulated and not job.allow_emulated and limit.metric.partition(".")[0] in budget.TIMES
        hold = "an emulated device proves nothing about time (--allow-emulated)" if held else ""
        start = first.get(limit.metric)
        baseline = start.value if limit.relative and start else None
        against = _ratio(limit, m, base, job) if limit.relative and start and limit.metric in found else None
        lines.append(budget.judge(limit, found.get(limit.metric), baseline, against, hold=hold))
    return lines


def _ratio(limit: Limit, m: Measured, base: Measured, job: Job) -> Claim | None:
    name = statistic(limit.metric)
    if name is None or not (m.whole.calls and base.whole.calls):
        return None
    found = compare(base, m, name, job.margin).claim
    return found.inverse() if limit.metric == "throughput" else found
