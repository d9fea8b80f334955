"""How far a measurement can be trusted: a letter, and the reasons for it in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edgelathe.measure.conditions import BUSY_SHARE, FREQUENCY_SHARE, STEAL_SHARE, Mark

Letter = Literal["A", "B", "C", "D"]

#: Governors that hold one clock; `powersave` is none: under intel_pstate it is dynamic.
FIXED_GOVERNORS = frozenset({"performance", "userspace"})
#: Share of marked blocks beyond which a measurement is doubtful, and beyond which it is not to be trusted.
DOUBT_SHARE, BROKEN_SHARE = 0.2, 0.5
#: Drift over a whole measurement that is a blemish, and that makes it doubtful; relative to its middle.
SMALL_DRIFT, LARGE_DRIFT = 0.005, 0.02
#: Share of all CPU time taken by others, on average, at which nothing can be trusted.
HEAVY_SHARE = 0.3

_WHAT = {
    Mark.THROTTLED: "the device throttled in {}",
    Mark.BUSY: "other processes took more than {share:.0%} of the CPU in {}",
    Mark.STOLEN: "the hypervisor gave CPU time to others in {}",
    Mark.SWAPPING: "memory was swapped in {}",
    Mark.CLOCK_MOVED: "the calendar clock was set in {}",
}
#: Marks that make a measurement worthless when most blocks have them.
_GRAVE = frozenset({Mark.THROTTLED, Mark.BUSY, Mark.SWAPPING})


@dataclass(frozen=True)
class Grade:
    """`letter`: A quiet and steady, B small blemishes, C usable with doubt, D not to be trusted; `reasons`: gravest
    first, none for A."""

    letter: Letter
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Both fields."""
        return {"letter": self.letter, "reasons": list(self.reasons)}


def grade(
    marks: Sequence[frozenset[Mark]], summary: Mapping[str, Any], *, change: float | None = None,
    significant: bool = False, n: int, needed: int = 0, settled: bool = True, emulated: bool = False,
) -> Grade:  # fmt: skip
    """The grade of one measurement.

    Args:
        marks: of each block (`conditions.marks`).
        summary: of all blocks (`conditions.summary`).
        change: latency at the end relative to the beginning, less 1 (0.03: 3% slower); None: not tested.
        significant: whether that drift is more than chance.
        n: samples; needed: those that the percentile asked for wants.
        settled: whether the warm-up ended because times were steady.
        emulated: whether the device is.
    """
    found = [
        *_of_machine(summary, emulated),
        *_of_marks(marks, summary),
        *_of_series(change, significant, n, needed, settled),
        *_of_unknown(summary),
    ]
    found.sort(key=lambda item: item[0], reverse=True)  # stable: within a letter as they were found
    return Grade(found[0][0] if found else "A", tuple(reason for _, reason in found))


Finding = tuple[Letter, str]


def _of_machine(summary: Mapping[str, Any], emulated: bool) -> Iterator[Finding]:
    if emulated:
        yield "D", "the device is emulated: these are not the times of a real one"
    others, steal = summary.get("others"), summary.get("steal")
    if others is not None and others > HEAVY_SHARE:
        yield "D", f"other processes took {others:.0%} of the CPU on average"
    if steal is not None and steal > STEAL_SHARE:
        yield "C", f"the hypervisor gave {steal:.0%} of the CPU time to others"
    low, high = (v / 1e6 for v in summary.get("clock_khz") or (0, 0))
    wandered = high > 0 and 1 - low / high > FREQUENCY_SHARE
    loose = [g for g in summary.get("governors") or () if g not in FIXED_GOVERNORS]
    if wandered:
        who = f"governor {loose[0]} let the clock go" if loose else "the clock went"
        yield ("C" if loose else "B"), f"{who} from {low:.2f} to {high:.2f} GHz"
    elif loose:
        yield "B", f"governor {loose[0]} does not hold the clock"
    low, high = (v / 1e6 for v in summary.get("gpu_khz") or (0, 0))
    if high > 0 and 1 - low / high > FREQUENCY_SHARE:
        yield "B", f"the clock of the GPU went from {low:.2f} to {high:.2f} GHz"


def _of_marks(marks: Sequence[frozenset[Mark]], summary: Mapping[str, Any]) -> Iterator[Finding]:
    many = len(marks)
    asleep = sum(Mark.SUSPENDED in m for m in marks)
    if asleep:
        yield "D", f"the machine was suspended in {_of(asleep, many)}"
    for mark, text in _WHAT.items():
        hit = sum(mark in m for m in marks)
        if not hit:
            continue
        share = hit / many
        letter: Letter = "B" if share <= DOUBT_SHARE else "D" if share > BROKEN_SHARE and mark in _GRAVE else "C"
        reason = text.format(_of(hit, many), share=BUSY_SHARE)
        if mark is Mark.THROTTLED and summary.get("throttle_why"):
            reason += f" ({', '.join(summary['throttle_why'])})"
        yield letter, reason


def _of_series(change: float | None, significant: bool, n: int, needed: int, settled: bool) -> Iterator[Finding]:
    if change is not None and significant and abs(change) > SMALL_DRIFT:
        what = f"it became {abs(change):.1%} {'slower' if change > 0 else 'faster'} while it was measured"
        yield ("C" if abs(change) > LARGE_DRIFT else "B"), what
    if n < needed:
        yield "C", f"{n} samples, {needed} are needed for the percentile asked for"
    if not settled:
        yield "B", "times were not steady when the warm-up ended"


def _of_unknown(summary: Mapping[str, Any]) -> Iterator[Finding]:
    unknown = summary.get("unknown") or ()
    if unknown:
        yield "B", f"unknown on this device: {', '.join(unknown)}"


def _of(hit: int, many: int) -> str:
    return f"{hit} of {many} blocks"
