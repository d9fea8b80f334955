"""Clocks, temperatures, throttling and load, from what the kernel shows. Unknown is None or left out, never guessed.

Functions of a root folder, "/" on a device; the paths are those of the kernel's documents (ABI sysfs-class-thermal,
sysfs-devices-system-cpu, sysfs-class-devfreq, admin-guide/pm/cpufreq, filesystems/proc). `sense` runs before and after
each block of calls, so that what there is is found once, and only read afterwards.
"""

from __future__ import annotations

import os
import time
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from edgelathe_agent import gpu, jetson, throttle
from edgelathe_agent.kernel import listed, number, read

__all__ = ["conditions", "found", "number", "policies", "read", "refresh", "sense", "temperatures"]

_ZONES = "sys/class/thermal/thermal_zone*"
#: Drivers whose temperatures are those of the processor, where there is no thermal zone.
_CPU_HWMON = ("coretemp", "k10temp", "zenpower")


class Places(NamedTuple):
    """Where a machine tells what: (name, folder) of each clock, (label, path) of each temperature."""

    policies: Tuple[Tuple[str, str], ...]
    zones: Tuple[Tuple[str, str], ...]
    throttle: throttle.Places
    devfreq: str
    cards: Optional[gpu.Cards]
    modes: Dict[int, str]


_known: Dict[str, Places] = {}


def refresh(root: str) -> Places:
    """Look anew for what there is: drivers come and go."""
    devfreq = gpu.folder(root)
    _known[root] = Places(
        tuple(policies(root)), tuple(_zones(root)), throttle.places(root), devfreq,
        None if devfreq else gpu.cards(root), jetson.modes(root),
    )  # fmt: skip
    return _known[root]


def sense(root: str) -> Dict[str, Any]:
    """The answer of the verb `sense`: kHz by CPU (the first of those with one clock), degrees Celsius by sensor."""
    at = _known.get(root) or refresh(root)
    clocks = [(name, number(folder, "scaling_cur_freq")) for name, folder in at.policies]
    governors = [(name, read(folder, "scaling_governor")) for name, folder in at.policies]
    cards = at.cards.state() if at.cards else gpu.State(gpu.khz(at.devfreq), {}, None)
    throttled, why = throttle.state(at.throttle)
    if cards.why is not None:
        throttled, why = bool(throttled or cards.why), why + cards.why
    return {
        "clocks_khz": {name: khz for name, khz in clocks if khz is not None},
        "governors": {name: governor for name, governor in governors if governor},
        "temperatures_c": {**{label: c for label, _, c in _read(at.zones)}, **cards.temperatures},
        "load1": _load(root),
        "throttled": throttled,
        "throttle_why": why,
        "throttle_count": throttle.count(at.throttle),
        "cpu_s": _cpu(root),
        "swap_pages": _swap(root),
        "gpu_khz": cards.khz,
        "power_mode": jetson.mode(root, at.modes),
        "clocks_locked": _locked(at),
        "time_ns": {
            "wall": time.time_ns(),
            "monotonic": time.monotonic_ns(),
            "boot": time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        },
    }


def conditions(before: Dict[str, Any], after: Dict[str, Any]) -> Dict[str, Any]:
    """What a block of calls was timed under, from `sense` before and after it."""
    signs = [s["throttled"] for s in (before, after)]
    counts = [s["throttle_count"] for s in (before, after)]
    if None not in counts:
        signs.append(counts[1] > counts[0])
    if set(after["throttle_why"]) - set(before["throttle_why"]):
        signs.append(True)  # it began, and ended, in between
    known = [s for s in signs if s is not None]
    return {"before": before, "after": after, "throttled": any(known) if known else None}


def temperatures(root: str) -> List[Tuple[str, str, float]]:
    """(label, path, degrees Celsius) of each thermal zone that answers, else of the processor's own sensors."""
    return _read(tuple(_zones(root)))


def found(root: str) -> List[Dict[str, Any]]:
    """Which sensors there are: [{"kind": "temperature|power|energy", "label", "path"}]."""
    from edgelathe_agent.rails import sources

    heat: List[Dict[str, Any]] = [
        {"kind": "temperature", "label": label, "path": path} for label, path, _ in temperatures(root)
    ]
    return heat + [source.to_json() for source in sources(root)]


def policies(root: str) -> List[Tuple[str, str]]:
    """(name of the first CPU, folder) of each group of CPUs with one clock."""
    folders = listed(root, "sys/devices/system/cpu/cpufreq/policy*")
    if folders:
        return [(os.path.basename(f).replace("policy", "cpu"), f) for f in folders]
    return [(os.path.basename(os.path.dirname(f)), f) for f in listed(root, "sys/devices/system/cpu/cpu[0-9]*/cpufreq")]


def _zones(root: str) -> List[Tuple[str, str]]:
    zones = [(read(z, "type") or os.path.basename(z), os.path.join(z, "temp")) for z in listed(root, _ZONES)]
    if zones:
        return zones
    chips = [c for c in listed(root, "sys/class/hwmon/hwmon*") if read(c, "name") in _CPU_HWMON]
    paths = [p for chip in chips for p in listed(chip, "temp*_input")]
    return [(read(p[: -len("input")] + "label") or os.path.basename(p), p) for p in paths]


def _read(zones: Tuple[Tuple[str, str], ...]) -> List[Tuple[str, str, float]]:
    out: List[Tuple[str, str, float]] = []
    taken: Dict[str, int] = {}
    for label, path in zones:
        value = number("", path)
        if value is not None:
            n = taken[label] = taken.get(label, 0) + 1
            out.append((label if n == 1 else f"{label}#{n}", path, value / 1000))
    return out


def _load(root: str) -> Optional[float]:
    try:
        return float((read(root, "proc/loadavg") or "").split()[0])
    except (ValueError, IndexError):
        return None


def _cpu(root: str) -> Optional[Dict[str, float]]:
    """Seconds of all CPUs since boot (proc(5), /proc/stat): time of guests is in `user` and `nice` already."""
    fields = (read(root, "proc/stat") or "").split("\n", 1)[0].split()
    if len(fields) < 8 or fields[0] != "cpu":
        return None
    ticks = [int(f) for f in fields[1:]]
    user, nice, system, idle, iowait, irq, softirq = ticks[:7]
    hertz = os.sysconf("SC_CLK_TCK")
    steal = ticks[7] if len(ticks) > 7 else 0
    busy = user + nice + system + irq + softirq
    return {"busy": busy / hertz, "idle": (idle + iowait) / hertz, "steal": steal / hertz}


def _swap(root: str) -> Optional[Dict[str, int]]:
    fields = dict(line.split(" ", 1) for line in (read(root, "proc/vmstat") or "").split("\n") if " " in line)
    if "pswpin" not in fields or "pswpout" not in fields:
        return None
    return {"in": int(fields["pswpin"]), "out": int(fields["pswpout"])}


def _locked(at: Places) -> Optional[bool]:
    """Whether no clock can move: lowest and highest of each are the same. jetson_clocks does so; None: no clocks."""
    limits = [(number(f, "scaling_min_freq"), number(f, "scaling_max_freq")) for _, f in at.policies]
    if not limits or any(None in pair for pair in limits):
        return None
    chip = gpu.locked(at.devfreq) if at.devfreq else None
    return all(low == high for low, high in limits) and chip is not False
