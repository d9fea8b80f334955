"""What a block of calls was timed under: marks for what disturbed it, and a summary of all blocks.

Pure functions of what the agent answers (`conditions` and the rest of `time`, see the protocol). What the device does
not tell gives no mark; `summary` names it under `unknown`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

Conditions = Mapping[str, Any]
More = Mapping[str, Any]
_Block = TypeVar("_Block")


class Mark(StrEnum):
    """What disturbed a block."""

    THROTTLED = "throttled"
    BUSY = "busy"
    STOLEN = "stolen"
    SWAPPING = "swapping"
    SUSPENDED = "suspended"
    CLOCK_MOVED = "clock-moved"
    FREQUENCY = "frequency"


#: Share of all CPU time that other processes may take, and the least of it in seconds: the kernel counts in ticks of
#: 10 ms, so that two readings differ by up to one tick a CPU without any load.
BUSY_SHARE, BUSY_SECONDS = 0.10, 0.03
#: Share of all CPU time that a hypervisor may give to others, and the least of it in seconds (more than one tick).
STEAL_SHARE, STEAL_SECONDS = 0.02, 0.015
#: Pages moved to and from swap that are no accident.
SWAP_PAGES = 10
#: Time that passed without the machine running, and jump of its calendar clock against its steady one, in seconds.
SUSPENDED_SECONDS, JUMP_SECONDS = 0.05, 0.1
#: Change of the highest clock between the ends of a block, relative to the higher one.
FREQUENCY_SHARE = 0.05
#: Share of blocks marked throttled or busy beyond which it is worth to cool down and measure again.
RETRY_SHARE = 0.2


class Use(NamedTuple):
    """How CPU time was used in a block, in seconds of CPU; None: unknown."""

    others: float | None
    steal: float | None
    total: float


def marks(conditions: Conditions, more: More, cores: int) -> frozenset[Mark]:
    """What disturbed one block of calls.

    Args:
        conditions: {"before", "after", "throttled"} of the block.
        more: the rest of its answer; of it `cpu_ns`, the CPU time of the model's process.
        cores: CPUs of the device.
    """
    before, after = _ends(conditions)
    found = {mark for mark, test in _TESTS.items() if test(before, after)}
    if conditions.get("throttled"):
        found.add(Mark.THROTTLED)
    used = use(conditions, more, cores)
    if used.others is not None and used.others > max(BUSY_SHARE * used.total, BUSY_SECONDS):
        found.add(Mark.BUSY)
    if used.steal is not None and used.steal > max(STEAL_SHARE * used.total, STEAL_SECONDS):
        found.add(Mark.STOLEN)
    return frozenset(found)


def marked(conditions: Sequence[Conditions], more: Sequence[More], cores: int) -> list[frozenset[Mark]]:
    """The marks of each block."""
    return [marks(c, m, cores) for c, m in zip(conditions, more, strict=True)]


def use(conditions: Conditions, more: More, cores: int) -> Use:
    """CPU time between the two readings: that of other processes (the model's own is taken off) and that stolen."""
    before, after = _ends(conditions)
    total = max(0.0, cores * (_gain(before, after, "time_ns", "monotonic") or 0.0) / 1e9)
    busy = _gain(before, after, "cpu_s", "busy")
    own = more.get("cpu_ns")
    others = None if busy is None or own is None or not total else max(0.0, busy - own / 1e9)
    return Use(others, _gain(before, after, "cpu_s", "steal") if total else None, total)


def retry_needed(marked: Sequence[frozenset[Mark]]) -> bool:
    """Whether more than a fifth of the blocks were throttled or busy: cool down, then measure again."""
    hit = sum(bool(m & {Mark.THROTTLED, Mark.BUSY}) for m in marked)
    return hit > RETRY_SHARE * len(marked)


def kept(blocks: Sequence[_Block], marked: Sequence[frozenset[Mark]]) -> list[tuple[_Block, tuple[str, ...]]]:
    """Every block with the names of its marks, for the export of raw samples: none is left out. Raises ValueError."""
    return [(block, tuple(sorted(m))) for block, m in zip(blocks, marked, strict=True)]


def summary(conditions: Sequence[Conditions], more: Sequence[More], cores: int) -> dict[str, Any]:
    """All blocks of a measurement in one JSON object.

    `blocks`, and how many carry each mark (`marked`); [lowest, highest] of temperatures (Celsius by sensor), of the
    highest CPU clock and of the GPU's (kHz) and of the load average; shares of all CPU time that other processes and
    the hypervisor took; governors, power mode, locked clocks, why it throttled; `unknown`: what nothing told.
    """
    found_marks = marked(conditions, more, cores)
    senses = [s for c in conditions for s in _ends(c)]
    used = [use(c, m, cores) for c, m in zip(conditions, more, strict=True)]
    throttled = [c.get("throttled") for c in conditions]
    found: dict[str, Any] = {
        "blocks": len(conditions),
        "marked": {str(mark): n for mark in Mark if (n := sum(mark in m for m in found_marks))},
        "temperature_c": _by_sensor(senses),
        "clock_khz": _range(max(c.values(), default=None) for c in _each(senses, "clocks_khz")),
        "gpu_khz": _range(s.get("gpu_khz") for s in senses),
        "governors": sorted({str(g) for found in _each(senses, "governors") for g in found.values()}),
        "load1": _range(s.get("load1") for s in senses),
        "others": _share(used, "others"),
        "steal": _share(used, "steal"),
        "throttled": True if any(throttled) else None if None in throttled or not throttled else False,
        "throttle_why": sorted({str(w) for s in senses for w in s.get("throttle_why") or ()}),
        "power_mode": next((s["power_mode"] for s in senses if s.get("power_mode")), None),
        "clocks_locked": next((s["clocks_locked"] for s in senses if s.get("clocks_locked") is not None), None),
    }
    names = {"temperature_c": "temperature", "clock_khz": "clock", "others": "load by others"}
    unknown = [name for key, name in names.items() if not found[key] and found[key] != 0]
    found["unknown"] = unknown + (["throttling"] if found["throttled"] is None else [])
    return found


def _ends(conditions: Conditions) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    return conditions.get("before") or {}, conditions.get("after") or {}


def _gain(before: Mapping[str, Any], after: Mapping[str, Any], key: str, part: str) -> float | None:
    ends = [(s.get(key) or {}).get(part) for s in (before, after)]
    return None if ends[0] is None or ends[1] is None else float(ends[1] - ends[0])


def _swapping(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    moved = [_gain(before, after, "swap_pages", way) or 0 for way in ("in", "out")]
    return sum(moved) >= SWAP_PAGES


def _apart(before: Mapping[str, Any], after: Mapping[str, Any], clock: str) -> float:
    """Seconds by which `clock` moved on more than the steady one did."""
    moved, steady = (_gain(before, after, "time_ns", name) for name in (clock, "monotonic"))
    return 0.0 if moved is None or steady is None else (moved - steady) / 1e9


def _suspended(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    return _apart(before, after, "boot") > SUSPENDED_SECONDS


def _moved(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    return abs(_apart(before, after, "wall")) > JUMP_SECONDS and not _suspended(before, after)


def _frequency(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    ends = [max((s.get("clocks_khz") or {}).values(), default=0) for s in (before, after)]
    gpu = [s.get("gpu_khz") or 0 for s in (before, after)]
    return any(min(pair) > 0 and 1 - min(pair) / max(pair) > FREQUENCY_SHARE for pair in (ends, gpu))


_TESTS: dict[Mark, Callable[[Mapping[str, Any], Mapping[str, Any]], bool]] = {
    Mark.SWAPPING: _swapping, Mark.SUSPENDED: _suspended, Mark.CLOCK_MOVED: _moved, Mark.FREQUENCY: _frequency,
}  # fmt: skip


def _each(senses: Iterable[Mapping[str, Any]], key: str) -> list[Mapping[str, Any]]:
    return [s[key] for s in senses if s.get(key)]


def _range(values: Iterable[float | None]) -> list[float] | None:
    known = [v for v in values if v is not None]
    return [min(known), max(known)] if known else None


def _by_sensor(senses: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    found = _each(senses, "temperatures_c")
    labels = dict.fromkeys(label for f in found for label in f)
    return {label: r for label in labels if (r := _range(f.get(label) for f in found))}


def _share(used: Sequence[Use], what: str) -> float | None:
    known = [(getattr(u, what), u.total) for u in used if getattr(u, what) is not None]
    total = sum(t for _, t in known)
    return round(sum(v for v, _ in known) / total, 4) if total else None
