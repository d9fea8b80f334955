"""Marks of one block, and the summary of all, from readings of the agent as they come over the wire."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgelathe.measure import conditions
from edgelathe.measure import grade as g
from edgelathe.measure.conditions import Mark

S = 1_000_000_000


def sense(at: float = 0.0, **more):
    """A reading `at` seconds after the first on a board of four cores, idle but for what `more` says."""
    clock = int(at * S)
    return {
        "clocks_khz": {"cpu0": 1_800_000}, "governors": {"cpu0": "performance"}, "temperatures_c": {"cpu": 50.0},
        "load1": 0.5, "throttled": False, "throttle_why": [], "throttle_count": None,
        "cpu_s": {"busy": 100 + at, "idle": 500 + 3 * at, "steal": 0.0}, "swap_pages": {"in": 5, "out": 7},
        "gpu_khz": None, "power_mode": None, "clocks_locked": True,
        "time_ns": {"wall": 10**18 + clock, "monotonic": 10**12 + clock, "boot": 10**12 + clock}, **more,
    }  # fmt: skip


def block(seconds: float = 0.1, throttled: bool | None = False, **after):
    return {"before": sense(), "after": sense(seconds, **after), "throttled": throttled}


def marks(taken, cpu_s: float = 0.1, cores: int = 4):
    return conditions.marks(taken, {"cpu_ns": int(cpu_s * S)}, cores)


def used(busy: float = 0.0, steal: float = 0.0):
    return {"busy": 100 + busy, "idle": 500.0, "steal": steal}


def times(wall: float = 0.1, monotonic: float = 0.1, boot: float = 0.1):
    return {"wall": 10**18 + int(wall * S), "monotonic": 10**12 + int(monotonic * S), "boot": 10**12 + int(boot * S)}


def test_a_quiet_block_has_no_mark():
    assert marks(block()) == frozenset()


@pytest.mark.parametrize(
    ("taken", "mark"),
    [
        (block(throttled=True), Mark.THROTTLED),
        (block(cpu_s=used(busy=0.2)), Mark.BUSY),
        (block(cpu_s=used(busy=0.1, steal=0.03)), Mark.STOLEN),
        (block(swap_pages={"in": 11, "out": 12}), Mark.SWAPPING),
        (block(time_ns=times(wall=60.1, boot=60.1)), Mark.SUSPENDED),
        (block(time_ns=times(wall=3600.1)), Mark.CLOCK_MOVED),
        (block(time_ns=times(wall=-5.0)), Mark.CLOCK_MOVED),
        (block(clocks_khz={"cpu0": 1_600_000}), Mark.FREQUENCY),
    ],
)
def test_each_disturbance_has_its_mark_and_no_other(taken, mark):
    assert marks(taken) == {mark}


def test_the_models_own_time_is_not_that_of_others():
    taken = block(cpu_s=used(busy=0.4))
    assert Mark.BUSY in marks(taken, cpu_s=0.1)
    assert Mark.BUSY not in marks(taken, cpu_s=0.39)
    assert Mark.BUSY not in conditions.marks(taken, {}, 4)  # not known whose it was


@pytest.mark.parametrize(
    ("busy", "cores", "found"), [(0.125, 1, False), (0.135, 1, True), (0.17, 8, False), (0.2, 8, True)]
)
def test_a_tick_of_the_kernels_is_no_load(busy, cores, found):
    """Above a tenth of all CPUs and above three ticks."""
    assert (Mark.BUSY in marks(block(cpu_s=used(busy=busy)), cores=cores)) == found


def test_small_things_are_no_mark():
    small = block(
        swap_pages={"in": 5, "out": 16}, clocks_khz={"cpu0": 1_720_000}, time_ns=times(wall=0.19, boot=0.14),
        cpu_s=used(busy=0.1, steal=0.01),
    )  # fmt: skip
    assert marks(small) == frozenset()


def test_it_is_the_fastest_clock_that_counts_and_the_gpus():
    quiet = block(clocks_khz={"cpu0": 600_000, "cpu4": 1_800_000})
    assert marks(quiet) == frozenset()
    assert marks({**block(gpu_khz=900_000), "before": sense(gpu_khz=600_000)}) == {Mark.FREQUENCY}


def test_what_is_not_told_gives_no_mark():
    bare = {
        "clocks_khz": {}, "governors": {}, "temperatures_c": {}, "load1": None, "throttled": None, "throttle_why": [],
        "throttle_count": None, "cpu_s": None, "swap_pages": None, "gpu_khz": None, "power_mode": None,
        "clocks_locked": None, "time_ns": times(),
    }  # fmt: skip
    taken = {"before": bare, "after": bare, "throttled": None}
    assert marks(taken) == frozenset()
    assert conditions.marks({}, {}, 4) == frozenset()
    found = conditions.summary([taken], [{}], 4)
    assert found["unknown"] == ["temperature", "clock", "load by others", "throttling"]
    assert (found["others"], found["steal"], found["throttled"], found["temperature_c"]) == (None, None, None, {})


def test_the_summary_has_ranges_shares_and_counts():
    blocks = [block(), block(cpu_s=used(busy=0.3), temperatures_c={"cpu": 61.0, "gpu": 40.0}), block(throttled=True)]
    found = conditions.summary(blocks, [{"cpu_ns": S // 10}] * 3, 4)
    assert (found["blocks"], found["marked"]) == (3, {"throttled": 1, "busy": 1})
    assert found["temperature_c"] == {"cpu": [50.0, 61.0], "gpu": [40.0, 40.0]}
    assert found["clock_khz"] == [1_800_000, 1_800_000]
    assert found["others"] == pytest.approx(0.2 / 1.2, abs=1e-4)
    assert (found["steal"], found["throttled"], found["unknown"]) == (0.0, True, [])
    assert (found["governors"], found["clocks_locked"], found["load1"]) == (["performance"], True, [0.5, 0.5])


def test_a_summary_without_blocks_knows_nothing():
    found = conditions.summary([], [], 4)
    assert (found["blocks"], found["throttled"]) == (0, None)
    assert found["unknown"]


def test_a_fifth_of_the_blocks_may_be_disturbed_before_it_is_measured_again():
    calm, hot, other = frozenset(), frozenset({Mark.THROTTLED}), frozenset({Mark.FREQUENCY})
    assert not conditions.retry_needed([hot] + [calm] * 4)
    assert conditions.retry_needed([hot, frozenset({Mark.BUSY})] + [calm] * 3)
    assert not conditions.retry_needed([other] * 5)
    assert not conditions.retry_needed([])


def test_the_document_has_the_thresholds_and_all_marks():
    text = (Path(__file__).parents[2] / "docs" / "conditions.md").read_text()
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    c = conditions
    assert {f"`{mark}`" for mark in Mark} <= rows.keys()
    assert f"{c.BUSY_SHARE:.0%}" in rows["`busy`"]
    assert f"{c.BUSY_SECONDS * 1000:.0f} ms" in rows["`busy`"]
    assert f"{c.STEAL_SHARE:.0%}" in rows["`stolen`"]
    assert f"{c.STEAL_SECONDS * 1000:.0f} ms" in rows["`stolen`"]
    assert f"{c.SWAP_PAGES} pages" in rows["`swapping`"]
    assert f"{c.SUSPENDED_SECONDS * 1000:.0f} ms" in rows["`suspended`"]
    assert f"{c.JUMP_SECONDS * 1000:.0f} ms" in rows["`clock-moved`"]
    assert f"{c.FREQUENCY_SHARE:.0%}" in rows["`frequency`"]
    assert f"more than {c.RETRY_SHARE:.0%} of the blocks" in text
    shares = {"B": [g.DOUBT_SHARE], "C": [g.DOUBT_SHARE, g.LARGE_DRIFT], "D": [g.BROKEN_SHARE, g.HEAVY_SHARE]}
    assert all(f"{share:.0%}" in rows[letter] for letter, given in shares.items() for share in given)
    assert f"{g.SMALL_DRIFT:.1%}" in rows["B"]


def test_every_block_is_kept_with_its_marks():
    found = conditions.kept(["a", "b"], [frozenset(), frozenset({Mark.THROTTLED, Mark.BUSY})])
    assert found == [("a", ()), ("b", ("busy", "throttled"))]
    with pytest.raises(ValueError, match="shorter"):
        conditions.kept(["a", "b"], [frozenset()])
