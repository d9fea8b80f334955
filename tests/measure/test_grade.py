"""The letter of a measurement follows from its worst blemish, and every letter below A has its reason."""

from __future__ import annotations

import pytest

from edgelathe.measure.conditions import Mark
from edgelathe.measure.grade import Grade, grade

QUIET = {
    "clock_khz": [1_800_000, 1_800_000], "governors": ["performance"], "others": 0.01, "steal": 0.0,
    "throttled": False, "throttle_why": [], "unknown": [],
}  # fmt: skip


def graded(marked: dict[Mark, int] | None = None, blocks: int = 20, summary=None, **more) -> Grade:
    rows: list[set[Mark]] = [set() for _ in range(blocks)]
    for mark, n in (marked or {}).items():
        for row in rows[:n]:
            row.add(mark)
    return grade([frozenset(r) for r in rows], {**QUIET, **(summary or {})}, **{"n": 1000, "needed": 200, **more})


def test_a_quiet_and_steady_measurement_is_an_a_without_reasons():
    assert graded() == Grade("A", ())
    assert graded(change=0.03, significant=False).letter == "A"  # chance
    assert graded(change=0.004, significant=True).letter == "A"


@pytest.mark.parametrize(
    ("letter", "reason", "given"),
    [
        ("B", "other processes took more than 10% of the CPU in 4 of 20 blocks", {"marked": {Mark.BUSY: 4}}),
        ("C", "other processes took more than 10% of the CPU in 5 of 20 blocks", {"marked": {Mark.BUSY: 5}}),
        ("D", "other processes took more than 10% of the CPU in 11 of 20 blocks", {"marked": {Mark.BUSY: 11}}),
        ("D", "the device throttled in 12 of 20 blocks (under-voltage)",
         {"marked": {Mark.THROTTLED: 12}, "summary": {"throttle_why": ["under-voltage"]}}),
        ("D", "the machine was suspended in 1 of 20 blocks", {"marked": {Mark.SUSPENDED: 1}}),
        ("C", "the calendar clock was set in 20 of 20 blocks", {"marked": {Mark.CLOCK_MOVED: 20}}),
        ("B", "the hypervisor gave CPU time to others in 2 of 20 blocks", {"marked": {Mark.STOLEN: 2}}),
        ("C", "the hypervisor gave 5% of the CPU time to others", {"summary": {"steal": 0.05}}),
        ("D", "other processes took 40% of the CPU on average", {"summary": {"others": 0.4}}),
        ("D", "the device is emulated: these are not the times of a real one", {"emulated": True}),
        ("C", "it became 3.0% slower while it was measured", {"change": 0.03, "significant": True}),
        ("B", "it became 1.0% faster while it was measured", {"change": -0.01, "significant": True}),
        ("C", "30 samples, 200 are needed for the percentile asked for", {"n": 30}),
        ("B", "times were not steady when the warm-up ended", {"settled": False}),
        ("B", "unknown on this device: heat, throttling", {"summary": {"unknown": ["heat", "throttling"]}}),
        ("B", "governor ondemand does not hold the clock", {"summary": {"governors": ["ondemand", "performance"]}}),
        ("B", "the clock went from 1.50 to 1.80 GHz", {"summary": {"clock_khz": [1_500_000, 1_800_000]}}),
        ("B", "the clock of the GPU went from 0.30 to 0.60 GHz", {"summary": {"gpu_khz": [300_000, 600_000]}}),
        ("C", "governor schedutil let the clock go from 0.60 to 1.80 GHz",
         {"summary": {"governors": ["schedutil"], "clock_khz": [600_000, 1_800_000]}}),
        ("B", "governor powersave does not hold the clock", {"summary": {"governors": ["powersave"]}}),
    ],
)  # fmt: skip
def test_each_blemish_has_its_letter_and_its_words(letter, reason, given):
    assert graded(**given) == Grade(letter, (reason,))


def test_the_worst_decides_and_comes_first():
    found = graded({Mark.BUSY: 1, Mark.SUSPENDED: 1}, n=10)
    assert found.letter == "D"
    assert [r.split()[1] for r in found.reasons] == ["machine", "samples,", "processes"]


def test_a_clock_that_moved_within_blocks_only_is_told_by_its_range():
    assert graded({Mark.FREQUENCY: 20}).letter == "A"  # the range, which is judged, did not


def test_nothing_known_is_no_a():
    assert grade([], {}, n=0, needed=1).letter == "C"
    assert grade([frozenset()], {"unknown": ["clock"]}, n=5).letter == "B"


def test_in_json():
    assert graded(n=1).to_json() == {
        "letter": "C", "reasons": ["1 samples, 200 are needed for the percentile asked for"],
    }  # fmt: skip
