"""Whether the processor runs slower than asked, why, and how often it did.

Sources: cooling devices of the kernel's thermal framework (ABI sysfs-class-thermal); the Raspberry Pi's firmware, in
sysfs, as `vcgencmd get_throttled`, or as the alarm of its hwmon driver raspberrypi-hwmon; the x86 event counts (ABI
sysfs-devices-system-cpu, thermal_throttle); the over-current counts of NVIDIA's soctherm (Jetson Linux guide,
"Platform power and performance").
"""

from __future__ import annotations

import os
from typing import Dict, List, NamedTuple, Optional, Tuple

from edgelathe_agent.gpu import named
from edgelathe_agent.kernel import listed, number, read, said

#: Bits of the firmware's answer, now; the same from 16 on since boot (Raspberry Pi documentation, `get_throttled`).
_PI_BITS = ("under-voltage", "clock capped", "throttled by the firmware", "soft temperature limit")
_PI_FILES = ("sys/devices/platform/soc*/soc*:firmware/get_throttled", "sys/devices/platform/soc*firmware/get_throttled")
_PI_PROGRAMS = ("usr/bin/vcgencmd", "opt/vc/bin/vcgencmd")
#: The firmware looks at its sensors about twice a second; asking more often costs and tells nothing.
_PI_SECONDS = 1.0
_COOLING = "sys/class/thermal/cooling_device*"
_CPU_COOLERS = ("cpufreq", "throttle-alert", "powerclamp", "idle-")


class Places(NamedTuple):
    """Where a machine tells of throttling: found once, read often."""

    coolers: Tuple[Tuple[str, str], ...]
    counts: Tuple[str, ...]
    pi_file: str
    pi_program: str
    pi_alarm: str


def places(root: str) -> Places:
    """Those of this machine."""
    coolers = [(read(d, "type") or "", os.path.join(d, "cur_state")) for d in listed(root, _COOLING)]
    pi_file = next((p for pattern in _PI_FILES for p in listed(root, pattern)), "")
    programs = [os.path.join(root, p) for p in _PI_PROGRAMS]
    program = next((p for p in programs if os.access(p, os.X_OK)), "")
    alarms = [c for c in listed(root, "sys/class/hwmon/hwmon*") if read(c, "name") == "rpi_volt"]
    return Places(
        tuple((kind, path) for kind, path in coolers if _slows(kind)),
        tuple(_x86_counts(root) + listed(root, "sys/class/hwmon/hwmon*/oc*_event_cnt")),
        pi_file,
        "" if pi_file else program,
        os.path.join(alarms[0], "in0_lcrit_alarm") if alarms else "",
    )


def state(at: Places) -> Tuple[Optional[bool], List[str]]:
    """Whether it is throttled now (None: nothing tells), and why; `... since boot` for what is over."""
    signs: List[bool] = []
    why: List[str] = []
    for kind, path in at.coolers:
        value = number("", path)
        if value is not None:
            signs.append(value > 0)
            if value > 0:
                why.append(f"cooled by {kind}")
    bits = _pi_bits(at)
    if bits is not None:
        signs.append(bool(bits & 0xF))
        for i, name in enumerate(_PI_BITS):
            if bits >> i & 1:
                why.append(name)
            elif bits >> 16 + i & 1:
                why.append(f"{name} since boot")
    if at.pi_alarm and number("", at.pi_alarm):  # its silence says nothing of heat
        signs.append(True)
        if _PI_BITS[0] not in why:
            why.append(_PI_BITS[0])
    return (any(signs) if signs else None), list(dict.fromkeys(why))


def count(at: Places) -> Optional[int]:
    """Events since boot: of x86 cores and packages, or over-current alarms of a Jetson; None: not counted."""
    counts = [c for c in (number("", p) for p in at.counts) if c is not None]
    return sum(counts) if counts else None


def _slows(kind: str) -> bool:
    """Whether a cooling device makes a processor slower; a fan does not."""
    return kind == "Processor" or any(w in kind for w in _CPU_COOLERS) or ("devfreq" in kind and named(kind))


def _pi_bits(at: Places) -> Optional[int]:
    text = read("", at.pi_file) if at.pi_file else None
    if at.pi_program:
        text = (said([at.pi_program, "get_throttled"], _PI_SECONDS) or "").strip().rpartition("throttled=")[2]
    try:
        return int(text, 16) if text else None
    except ValueError:
        return None


def _x86_counts(root: str) -> List[str]:
    """One file for each core and one for each package: all CPUs of one repeat its count."""
    found: Dict[Tuple[str, ...], str] = {}
    for folder in listed(root, "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle"):
        cpu = os.path.dirname(folder)
        package = read(cpu, "topology/physical_package_id") or ""
        core = read(cpu, "topology/core_id") or os.path.basename(cpu)
        found.setdefault(("core", package, core), os.path.join(folder, "core_throttle_count"))
        found.setdefault(("package", package), os.path.join(folder, "package_throttle_count"))
    return list(found.values())
