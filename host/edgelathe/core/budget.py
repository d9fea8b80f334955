"""Budget expressions `METRIC OP VALUE`: what they say, and whether a measured claim keeps them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgelathe.core.claim import Claim
from edgelathe.core.errors import UserError, nearest
from edgelathe.core.interval import OPS
from edgelathe.core.result import BudgetLine, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Per family the units and what one of them is in the family's own unit: ms, per second, fraction, bytes, mJ.
# "" is a number without a unit: refused where one can be off by 1000 without noticing.
UNITS: Mapping[str, Mapping[str, float]] = {
    "time": {"us": 1e-3, "ms": 1.0, "s": 1e3},
    "rate": {"/s": 1.0, "": 1.0},
    "share": {"%": 0.01, "": 1.0},
    "bytes": {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "": 1},
    "energy": {"uJ": 1e-3, "mJ": 1.0, "J": 1e3},
}


@dataclass(frozen=True)
class Quantity:
    """A row of METRICS: the family of units, whether `0.5x` makes sense, and what is said of it in help."""

    family: str
    text: str
    ratio: bool = True
    zero: bool = False


METRICS: Mapping[str, Quantity] = {
    "latency.p50": Quantity("time", "median time of one inference"),
    "latency.p90": Quantity("time", "time that 90% of the inferences keep"),
    "latency.p95": Quantity("time", "time that 95% of the inferences keep"),
    "latency.p99": Quantity("time", "time that 99% of the inferences keep"),
    "latency.mean": Quantity("time", "mean time of one inference"),
    "latency.paced": Quantity("time", "median time with pauses between the calls"),
    "latency.sustained": Quantity("time", "median time once the device has warmed up"),
    "throughput": Quantity("rate", "inferences per second"),
    "accuracy": Quantity("share", "value of the dataset's metric"),
    "accuracy.drop": Quantity("share", "loss against the uncompressed model, paired", ratio=False, zero=True),
    "size": Quantity("bytes", "bytes of the deployed file"),
    "memory": Quantity("bytes", "peak memory of the process"),
    "energy": Quantity("energy", "energy per inference"),
    "load": Quantity("time", "time of a cold start"),
}

ALIASES: Mapping[str, str] = {"latency": "latency.p50"}

#: Families of metrics that an emulated device says nothing of.
TIMES = frozenset({"latency", "throughput", "load", "energy"})


@dataclass(frozen=True)
class Limit:
    """One limit. `value` is in ms, per second, fractions, bytes or mJ; if `relative`, in times the baseline."""

    expr: str
    metric: str
    op: str
    value: float
    relative: bool = False

    @property
    def upper(self) -> bool:
        """Whether the metric is to stay below the limit."""
        return self.op in ("<", "<=")

    def resolve(self, baseline: float | None) -> float:
        """The limit in the metric's unit. Raises ValueError if it is relative and there is no baseline."""
        if not self.relative:
            return self.value
        if baseline is None:
            raise ValueError(f"budget '{self.expr}' needs the baseline's value")
        return self.value * baseline


_EXPR = re.compile(
    r"\s*(?P<metric>[A-Za-z][\w.-]*)\s*(?P<op>[<>=!~≤≥]+)\s*"
    r"(?P<number>[+-]?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|nan|inf(?:inity)?)(?![\d.,]))\s*(?P<unit>\S.*?)?\s*",
    re.IGNORECASE,
)
_SPELLINGS = {"≤": "<=", "≥": ">=", "µs": "us", "μs": "us", "µJ": "uJ", "μJ": "uJ", "×": "x"}


def parse(expr: str) -> Limit:
    """A limit from its text. Raises UserError naming what is wrong: metric, operator, value or unit."""
    where = f"budget '{expr.strip()}'"
    parts = _EXPR.fullmatch(expr)
    if not parts:
        raise UserError(where, "not METRIC OP VALUE", "write it as in 'latency.p95<=20ms' or 'size<=0.5x'")
    metric = ALIASES.get(parts["metric"], parts["metric"])
    if metric not in METRICS:
        raise UserError(where, f"no metric '{metric}'", nearest(metric, {*METRICS, *ALIASES}))
    op = _SPELLINGS.get(parts["op"], parts["op"])
    if op not in OPS:
        raise UserError(where, f"no operator '{op}'", "use one of <= >= < >")
    row, number = METRICS[metric], parts["number"]
    value = float(number)
    if not math.isfinite(value):
        raise UserError(where, f"the value {number} is no number", "give a finite one")
    if value < 0 or (value == 0 and not row.zero):
        what = f"the value {number} is " + ("negative" if value < 0 else "zero")
        raise UserError(where, what, "give one from 0 up" if row.zero else "give one above 0")
    unit = _SPELLINGS.get(parts["unit"] or "", parts["unit"] or "")
    relative = unit in ("x", "X")
    if relative and not row.ratio:
        raise UserError(where, f"{metric} is a difference to the baseline already, 'x' does not fit", "write it in %")
    return Limit(expr.strip(), metric, op, value if relative else value * _factor(where, metric, unit), relative)


def _factor(where: str, metric: str, unit: str) -> float:
    row = METRICS[metric]
    known = UNITS[row.family]
    if unit in known:
        return known[unit]
    allowed = ", ".join([*filter(None, known), *(["x (times the uncompressed model)"] if row.ratio else [])])
    if not unit:
        raise UserError(where, "the unit is missing", f"add one of {allowed}")
    if row.family == "bytes" and unit in ("KB", "kb", "Kb", "K", "k"):
        raise UserError(where, f"unit '{unit}' can mean two things", "write kB (1000 bytes) or KiB (1024 bytes)")
    raise UserError(where, f"unit '{unit}' does not fit {metric}", f"use one of {allowed}")


def parse_all(exprs: Iterable[str]) -> tuple[Limit, ...]:
    """All limits of a budget, as ordered. Raises UserError where one is said twice or two exclude each other."""
    limits = tuple(map(parse, exprs))
    for i, b in enumerate(limits):
        for a in limits[:i]:
            if a.metric != b.metric or a.relative != b.relative:
                continue
            if (a.op, a.value) == (b.op, b.value):
                raise UserError(f"budget '{b.expr}'", f"says the same as '{a.expr}'", "leave one of them out")
            if a.upper != b.upper:
                most, least = (a, b) if a.upper else (b, a)
                strict = most.op != "<=" or least.op != ">="
                if most.value < least.value or (most.value == least.value and strict):
                    raise UserError(f"budget '{b.expr}'", f"cannot hold together with '{a.expr}'", "drop one of them")
    return limits


def suit(limits: Iterable[Limit], metric: str, kind: Literal["share", "error", "score"], better: str) -> None:
    """Refuse accuracy limits that make no sense for the dataset's metric.

    `kind` and `better` (`higher` or `lower`) are those of the metric named `metric`. Raises UserError for a share
    above 1 (`accuracy>=90` for 90%) and for a limit against the metric's direction (`accuracy>=0.1` on an error).
    """
    for limit in limits:
        where = f"budget '{limit.expr}'"
        if limit.metric in ("accuracy", "accuracy.drop") and kind == "share" and not limit.relative and limit.value > 1:
            raise UserError(where, f"{metric} is a share of 1 and never above it", f"did you mean {limit.value:g}%?")
        if limit.metric == "accuracy" and limit.upper != (better == "lower"):
            raise UserError(
                where, f"{better} is better for {metric}", f"turn '{limit.op}' round, or limit accuracy.drop"
            )


def judge(
    limit: Limit,
    claim: Claim | None,
    baseline: float | None = None,
    ratio: Claim | None = None,
    *,
    lenient: bool = False,
    hold: str = "",
) -> BudgetLine:
    """Whether a claim keeps a limit, by the one-sided 95% bound on the unfavourable side.

    `met` iff that bound keeps the limit, `missed` iff the opposite one breaks it, else `undecided`. `ratio` is the
    claim on candidate / baseline from interleaved measurements: its bounds, times `baseline` (the baseline's value),
    replace those of `claim` where the limit is relative. `lenient` judges the point estimate. `hold` is a reason not
    to judge at all (an emulated device); so is a missing claim.
    """
    value = claim.value if claim else None
    if hold or claim is None or (limit.relative and baseline is None):
        why = hold or ("not measured" if claim is None else "no baseline to compare with")
        at = limit.value if baseline is None else limit.resolve(baseline)
        return BudgetLine(limit.expr, limit.metric, at, value, None, baseline, "undecided", why)
    at = limit.resolve(baseline)
    if limit.relative and ratio is not None and baseline is not None and not claim.exact:
        lower, upper = min(ratio.lower * baseline, claim.value), max(ratio.upper * baseline, claim.value)
        claim = Claim(claim.value, lower, upper, n=ratio.n or claim.n)
    if lenient and not claim.exact:
        claim, note = Claim(claim.value, claim.value, claim.value, n=claim.n), "judged by the point estimate"
    else:
        note = ""
    bound, other = (claim.upper, claim.lower) if limit.upper else (claim.lower, claim.upper)
    keeps = OPS[limit.op]
    verdict: Verdict = "met" if keeps(bound, at) else "undecided" if keeps(other, at) else "missed"
    if verdict == "undecided":
        note = _settle(claim, bound, other, at, keeps(claim.value, at))
    return BudgetLine(limit.expr, limit.metric, at, claim.value, bound, baseline, verdict, note)


def _settle(claim: Claim, bound: float, other: float, limit: float, kept: bool) -> str:
    """How much more would settle it: the distance of a bound shrinks with the root of the number of samples."""
    end = bound if kept else other
    if math.isinf(end):
        return "too few samples for a bound"
    gap = abs(limit - claim.value)
    factor = ((end - claim.value) / gap) ** 2 if gap else math.inf
    if factor > 1000:
        return "the value is too close to the limit for any reasonable number of samples"
    more = f" ({math.ceil(claim.n * (factor - 1)):,} more)" if claim.n else ""
    times = f"{factor:.0f}" if factor >= 10 else f"{max(factor, 1.1):.1f}"
    return f"about {times} times the samples{more} would settle it"


def excess(line: BudgetLine) -> float:
    """By how much the judged bound is beyond the limit, relative to the limit; 0 where the limit is kept.

    For ranking candidates that miss. Where there is no finite bound the value stands in for it, and where there is no
    value either the line says nothing: 0. A limit of 0 (`accuracy.drop<=0%`) is no measure: then 0.01 is the unit.
    """
    at = line.value if line.bound is None or math.isinf(line.bound) else line.bound
    if line.verdict == "met" or at is None:
        return 0.0
    over = at - line.limit if parse(line.expr).upper else line.limit - at
    return max(over, 0.0) / (abs(line.limit) or 0.01)
