"""From evidence to verdicts: which limits hold, which candidate is chosen, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgelathe.core import budget
from edgelathe.core.budget import Limit
from edgelathe.core.result import BudgetLine
from edgelathe.fit.measured import Entry
from edgelathe.report.junit import describe

#: p50 within this share of the fastest counts as equally fast.
SAME_SPEED = 0.02


@dataclass(frozen=True)
class Rules:
    """How limits are judged: `emulated` devices prove nothing about time unless `allow_emulated`."""

    limits: tuple[Limit, ...]
    lenient: bool = False
    emulated: bool = False
    allow_emulated: bool = False


@dataclass(frozen=True)
class Decision:
    """The chosen candidate (None: nothing could be measured) with its budget lines, and the reason in words."""

    chosen: str | None
    met: bool
    lines: tuple[BudgetLine, ...]
    reason: str


def lines(rules: Rules, entry: Entry, baseline: Entry) -> tuple[BudgetLine, ...]:
    """The verdict on each limit for one candidate."""
    return tuple(_line(rules, limit, entry, baseline) for limit in rules.limits)


def _line(rules: Rules, limit: Limit, entry: Entry, baseline: Entry) -> BudgetLine:
    claim, base = entry.claims.get(limit.metric), baseline.claims.get(limit.metric)
    untrusted = rules.emulated and not rules.allow_emulated and limit.metric.split(".")[0] in budget.TIMES
    return budget.judge(
        limit,
        claim,
        base.value if base else None,
        entry.ratios.get(limit.metric),
        lenient=rules.lenient,
        hold="the device is emulated, its times prove nothing without --allow-emulated" if untrusted else "",
    )


def decide(rules: Rules, entries: Sequence[Entry], baseline: Entry) -> Decision:
    """Choose among the measured candidates.

    Of those that meet every limit: the fastest; of equally fast ones the smallest, then the most accurate. On an
    emulated device speed does not count. Where none meets the budget: the closest, whose largest relative excess over
    a limit is smallest (DESIGN, section 6).
    """
    judged = [(e, lines(rules, e, baseline)) for e in entries if e.measured]
    sound = [(e, got) for e, got in judged if e.candidate.status == "measured"] or judged
    if not sound:
        failed = "; ".join(f"{e.candidate.recipe}: {e.candidate.why}" for e in entries if e.candidate.why)
        unknown = tuple(budget.judge(limit, None) for limit in rules.limits)
        return Decision(None, False, unknown, f"nothing could be measured: {failed or 'there are no candidates'}")
    meeting = [
        (e, got) for e, got in sound if e.candidate.status == "measured" and all(x.verdict == "met" for x in got)
    ]
    if meeting:
        entry, got = _best(meeting, count_speed=not rules.emulated)
        return Decision(entry.candidate.id, True, got, _met(entry, got, rules))
    entry, got = min(sound, key=lambda pair: (_excess(pair[1]), pair[0].candidate.bytes or 0))
    return Decision(entry.candidate.id, False, got, _missed(entry, got, sound, rules))


Judged = tuple[Entry, tuple[BudgetLine, ...]]


def _best(meeting: Sequence[Judged], *, count_speed: bool) -> Judged:
    fastest = min(_p50(e) for e, _ in meeting)
    as_fast = [p for p in meeting if not count_speed or _p50(p[0]) <= fastest * (1 + SAME_SPEED)]
    return min(as_fast, key=lambda p: (p[0].candidate.bytes or 0, _drop(p[0]), p[0].candidate.id))


def _p50(entry: Entry) -> float:
    latency = entry.candidate.latency
    assert latency is not None
    ratio = entry.ratios.get("latency.p50")  # the interleaved ratio is steadier than the absolute figure
    return ratio.value if ratio else latency.p50


def _drop(entry: Entry) -> float:
    accuracy = entry.candidate.accuracy
    return accuracy.drop or 0.0 if accuracy else 0.0


def _excess(got: Sequence[BudgetLine]) -> float:
    return max(budget.excess(line) for line in got)


def _words(line: BudgetLine, entry: Entry) -> str:
    metric = entry.candidate.accuracy.metric if entry.candidate.accuracy else ""
    return describe(line.to_json(), metric)


def _met(entry: Entry, got: Sequence[BudgetLine], rules: Rules) -> str:
    parts = [_words(line, entry) for line in got]
    lenient = "; judged by point estimates (--lenient)" if rules.lenient else ""
    return f"met by {entry.candidate.recipe}: {'; '.join(parts)}{lenient}"


def _missed(entry: Entry, got: Sequence[BudgetLine], sound: Sequence[Judged], rules: Rules) -> str:
    open_ = [line for line in got if line.verdict != "met"]
    broken = [line for line in open_ if line.verdict == "missed"]
    state = "missed" if broken else "undecided"
    never = [limit.expr for i, limit in enumerate(rules.limits) if all(got[i].verdict == "missed" for _, got in sound)]
    found = "; ".join(_words(line, entry) for line in broken or open_)
    text = f"{state}: {found}; the closest is {entry.candidate.recipe}"
    if entry.candidate.status == "rejected":
        text += f", which {entry.candidate.why.partition(';')[0]}"
    if never:
        text += f"; no candidate of {len(sound)} reaches {' or '.join(never)}"
    return text
