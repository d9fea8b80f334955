"""Clocks, temperatures, throttling and load, from what the kernel shows. Unknown is None or left out, never guessed.

Functions of a root folder, "/" on a device; the paths are those of the kernel's ABI documents (sysfs-class-thermal,
sysfs-devices-system-cpu, sysfs-class-hwmon) and of the Raspberry Pi's firmware driver.
"""

from __future__ import annotations

import contextlib
import glob
import os
import time
from typing import Any, Dict, Iterator, List, Optional, Tuple

_ZONES = "sys/class/thermal/thermal_zone*"
_COOLING = "sys/class/thermal/cooling_device*"
_POLICIES = "sys/devices/system/cpu/cpufreq/policy*"
_HWMON = "sys/class/hwmon/hwmon*"
#: Bits 0 to 3: under-voltage, clock capped, throttled, soft temperature limit, each of them now; from 16 on since boot.
_PI_THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
_PI_NOW = 0xF
#: Drivers whose temperatures are those of the processor, where there is no thermal zone.
_CPU_HWMON = ("coretemp", "k10temp", "zenpower")


def read(root: str, *path: str) -> Optional[str]:
    """A small file of the kernel's without its end of line and NUL; None when it is not there or cannot be read."""
    try:
        with open(os.path.join(root, *path), "rb") as f:
            return f.read(1 << 20).decode(errors="replace").strip(" \n\0")
    except OSError:
        return None


def number(root: str, *path: str) -> Optional[int]:
    """The same as an integer (decimal or 0x...)."""
    try:
        return int(read(root, *path) or "", 0)
    except ValueError:
        return None


def sense(root: str) -> Dict[str, Any]:
    """The answer of the verb `sense`: kHz by CPU (the first of those with one clock), degrees Celsius by sensor."""
    return {
        "clocks_khz": dict(_clocks(root)),
        "temperatures_c": {label: c for label, _, c in temperatures(root)},
        "load1": _load(root),
        "throttled": throttled(root),
        "throttle_count": throttle_count(root),
        "governors": {},
        "throttle_why": [],
        "cpu_s": None,
        "swap_pages": None,
        "gpu_khz": None,
        "power_mode": None,
        "clocks_locked": None,
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
    known = [s for s in signs if s is not None]
    return {"before": before, "after": after, "throttled": any(known) if known else None}


def temperatures(root: str) -> List[Tuple[str, str, float]]:
    """(label, path, degrees Celsius) of each thermal zone that answers, else of the processor's own sensors."""
    found = [(read(z, "type") or os.path.basename(z), os.path.join(z, "temp")) for z in _all(root, _ZONES)]
    if not found:
        for chip in _all(root, _HWMON):
            if read(chip, "name") in _CPU_HWMON:
                for path in sorted(glob.glob(os.path.join(chip, "temp*_input"))):
                    found.append((read(path[: -len("input")] + "label") or os.path.basename(path), path))
    out: List[Tuple[str, str, float]] = []
    for label, path in found:
        value = number("", path)
        if value is not None:
            taken = sum(o[0].split("#")[0] == label for o in out)
            out.append((label if not taken else f"{label}#{taken + 1}", path, value / 1000))
    return out


def throttled(root: str) -> Optional[bool]:
    """Whether the processor runs slower than asked, now; None where nothing tells.

    Told by the Raspberry Pi's firmware, and by the state of the kernel's cpufreq cooling devices.
    """
    signs = [state > 0 for state in _cooling(root)]
    text = read(root, _PI_THROTTLED)
    if text:
        with contextlib.suppress(ValueError):
            signs.append(bool(int(text, 16) & _PI_NOW))
    return any(signs) if signs else None


def throttle_count(root: str) -> Optional[int]:
    """Throttling events since boot: x86 cores and package, or over-current alarms of Jetson's soctherm."""
    paths = glob.glob(os.path.join(root, "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count"))
    paths += glob.glob(os.path.join(root, _HWMON, "oc*_event_cnt"))
    counts = [c for c in (number("", p) for p in paths) if c is not None]
    return sum(counts) if counts else None


def found(root: str) -> List[Dict[str, Any]]:
    """Which sensors there are: [{"kind": "temperature|power|energy", "label", "path", ...}]; see rails.Source."""
    from edgelathe_agent.rails import sources

    thermal = [{"kind": "temperature", "label": label, "path": path} for label, path, _ in temperatures(root)]
    return [*thermal, *(source.to_json() for source in sources(root))]


def _all(root: str, pattern: str) -> List[str]:
    return sorted(glob.glob(os.path.join(root, pattern)), key=_natural)


def _natural(path: str) -> Tuple[int, str]:
    """Zone 10 comes after zone 2."""
    return len(path), path


def _clocks(root: str) -> Iterator[Tuple[str, int]]:
    for policy in _all(root, _POLICIES) or _all(root, "sys/devices/system/cpu/cpu[0-9]*/cpufreq"):
        khz = number(policy, "scaling_cur_freq")
        if khz is not None:
            name = os.path.basename(policy)
            name = name if name.startswith("policy") else os.path.basename(os.path.dirname(policy))
            yield name.replace("policy", "cpu"), khz


def _cooling(root: str) -> Iterator[int]:
    for device in _all(root, _COOLING):
        kind = read(device, "type") or ""
        state = number(device, "cur_state")
        if ("cpufreq" in kind or kind == "Processor") and state is not None:
            yield state


def _load(root: str) -> Optional[float]:
    try:
        return float((read(root, "proc/loadavg") or "").split()[0])
    except (ValueError, IndexError):
        return None
