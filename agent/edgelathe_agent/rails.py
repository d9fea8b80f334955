"""Where a machine tells its power and energy: found by what the kernel shows and by labels, not by tables of boards.

Functions of a root folder, "/" on a device. Layouts: the kernel's hwmon/sysfs-interface, hwmon/ina3221, hwmon/ina2xx,
power/powercap and ABI sysfs-class-power; the iio layout of the INA3221 in NVIDIA's kernels before JetPack 5 (Jetson
Linux guide, "Software-based power consumption modeling"); `vcgencmd pmic_read_adc` of the Raspberry Pi 5.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional

from edgelathe_agent.kernel import listed, number, read

#: Labels that say that all of a board or platform is counted; of several such the user has to choose.
_SCOPES = {"VDD_IN": "input", "POM_5V_IN": "input", "5V_IN": "input", "VIN": "input", "psys": "platform"}
_PACKAGE = "package-"
_PMIC = re.compile(r"(\w+)_([AV])\s+(?:current|volt)\(\d+\)=(\d+(?:\.\d+)?)[AV]")
#: Where vcgencmd is, besides PATH.
_PI_PATHS = ("/usr/bin", "/opt/vc/bin")
#: Longest that vcgencmd may take, in seconds.
_PI_SECONDS = 2.0
_PI_NOTE = "the sum of what the power chip measures; 5 V of USB, HATs and fan, and its own losses, are not in it"


class Source(NamedTuple):
    """One figure that the machine gives of its power or energy.

    label: the machine's own, with #2, #3 where it is there more than once. kind: power | energy. driver: what answers.
    value: watts, or joules since some start; raises OSError or ValueError. scope: what the label says that it covers,
    input | platform | package | pmic | battery, "": it does not say. part_of: label of a source that counts it too.
    refresh_s: as the driver declares it, 0: unknown. wraps_j: where an energy counter starts again, 0: unknown.
    why: why it cannot be read now. note: what a reader of its figure has to know.
    """

    label: str
    kind: str
    path: str
    driver: str
    value: Callable[[], float]
    scope: str = ""
    part_of: str = ""
    refresh_s: float = 0.0
    wraps_j: float = 0.0
    why: str = ""
    note: str = ""

    def to_json(self) -> Dict[str, Any]:
        """The entry among the `sensors` of the probe."""
        return {
            "kind": self.kind, "label": self.label, "path": self.path, "driver": self.driver, "scope": self.scope,
            "part_of": self.part_of, "refresh_s": self.refresh_s or None, "why": self.why, "note": self.note,
        }  # fmt: skip


def sources(root: str) -> List[Source]:
    """All of them, each read once; those that cannot be read say why."""
    out: List[Source] = []
    taken: Dict[str, int] = {}
    for find in (_hwmon, _iio, _rapl, _pmic, _batteries):
        for source in find(root):
            n = taken[source.label] = taken.get(source.label, 0) + 1
            label = source.label if n == 1 else f"{source.label}#{n}"
            out.append(source._replace(label=label, why=source.why or _trouble(source)))
    return out


def why(error: Exception) -> str:
    """In words, why a source could not be read."""
    if isinstance(error, PermissionError):
        return "this login may not read it"
    if isinstance(error, FileNotFoundError):
        return "it is gone"
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _trouble(source: Source) -> str:
    try:
        source.value()
    except (OSError, ValueError) as e:
        return why(e)
    return ""


def _value(path: str) -> int:
    with open(path, "rb") as f:
        return int(f.read(64))


def _file(path: str, unit: float) -> Callable[[], float]:
    return lambda: _value(path) * unit


def _product(volts: str, amps: str, unit: float) -> Callable[[], float]:
    return lambda: _value(volts) * _value(amps) * unit


def _scope(label: str) -> str:
    return "package" if label.startswith(_PACKAGE) else _SCOPES.get(label, "")


def _hwmon(root: str) -> Iterator[Source]:
    """powerN_input (or _average) in uW, energyN_input in uJ, else inN_input in mV times currN_input in mA."""
    for chip in listed(root, "sys/class/hwmon/hwmon*"):
        name = read(chip, "label") or read(chip, "name") or "hwmon"
        driver, refresh = read(chip, "name") or "hwmon", (number(chip, "update_interval") or 0) / 1000
        shown = set()
        for path in listed(chip, "power*_input") + listed(chip, "power*_average"):
            n = os.path.basename(path)[len("power") :].split("_")[0]
            if n in shown:
                continue
            shown.add(n)
            label = read(chip, f"power{n}_label") or read(chip, f"in{n}_label") or name
            every = (number(chip, f"power{n}_average_interval") or 0) / 1000 if path.endswith("average") else refresh
            yield Source(label, "power", path, driver, _file(path, 1e-6), _scope(label), refresh_s=every)
        for path in listed(chip, "energy*_input"):
            label = read(path[: -len("input")] + "label") or name
            yield Source(label, "energy", path, driver, _file(path, 1e-6), _scope(label), refresh_s=refresh)
        for path in listed(chip, "in*_label"):
            n, label = os.path.basename(path)[2:].split("_")[0], read(path) or ""
            volts, amps = os.path.join(chip, f"in{n}_input"), os.path.join(chip, f"curr{n}_input")
            if n in shown or label in ("", "NC") or not (os.path.exists(volts) and os.path.exists(amps)):
                continue  # a voltage alone is no power
            off = "the channel is switched off" if read(chip, f"in{n}_enable") == "0" else ""
            yield Source(label, "power", path, driver, _product(volts, amps, 1e-6), _scope(label), "", refresh, why=off)


def _iio(root: str) -> Iterator[Source]:
    """NVIDIA's older driver: rail_name_N with in_powerN_input in mW, or mV times mA."""
    for device in listed(root, "sys/bus/i2c/drivers/ina3221x/*/iio*device*"):
        for path in listed(device, "rail_name_*"):
            n, label = path.rsplit("_", 1)[1], read(path) or ""
            power, volts, amps = (os.path.join(device, f"in_{k}{n}_input") for k in ("power", "voltage", "current"))
            if label in ("", "NC"):
                continue
            value = _file(power, 1e-3) if os.path.exists(power) else _product(volts, amps, 1e-6)
            yield Source(label, "power", path, "ina3221x", value, _scope(label))


def _rapl(root: str) -> Iterator[Source]:
    """Zones by name; a subzone is counted by its package already."""
    for zone in listed(root, "sys/class/powercap/intel-rapl:*"):
        path = os.path.join(zone, "energy_uj")
        if not os.path.exists(path):
            continue
        name, above = read(zone, "name") or os.path.basename(zone), zone.rpartition(":")[0]
        parent = read(above, "name") if os.path.basename(zone).count(":") > 1 else None
        yield Source(
            f"{parent}/{name}" if parent else name, "energy", path, "intel-rapl", _file(path, 1e-6),
            "" if parent else _scope(name), parent or "", wraps_j=(number(zone, "max_energy_range_uj") or 0) * 1e-6,
        )  # fmt: skip


def _pmic(root: str) -> Iterator[Source]:
    """The Raspberry Pi 5's power chip, through the firmware's own program: the sum of its rails, then each."""
    program = _program(root, "vcgencmd")
    if program is None:
        return
    try:
        rails = _adc(program)
    except ValueError as e:
        if "not registered" not in str(e):  # a Raspberry Pi without that chip is no fault
            yield Source("PMIC", "power", program, "vcgencmd", lambda: _sum(program), "pmic", why=str(e), note=_PI_NOTE)
        return
    except OSError:
        return
    yield Source("PMIC", "power", program, "vcgencmd", lambda: _sum(program), "pmic", note=_PI_NOTE)
    for rail in rails:
        yield Source(rail, "power", program, "vcgencmd", _rail(program, rail), part_of="PMIC")


def _program(root: str, name: str) -> Optional[str]:
    folders = [f for f in os.environ.get("PATH", "").split(os.pathsep) if os.path.isabs(f)]
    for folder in [*folders, *_PI_PATHS]:
        path = os.path.join(root, folder.lstrip(os.sep), name)
        if os.access(path, os.X_OK):
            return path
    return None


def _adc(program: str) -> Dict[str, float]:
    """Watts by rail, of rails with a voltage and a current. Raises ValueError with what the program said instead."""
    try:
        done = subprocess.run(
            [program, "pmic_read_adc"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=_PI_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ValueError(f"vcgencmd did not answer within {_PI_SECONDS:g} s") from None
    text = done.stdout.decode(errors="replace")
    parts: Dict[str, Dict[str, float]] = {"V": {}, "A": {}}
    for rail, unit, value in _PMIC.findall(text):
        parts[unit][rail] = float(value)
    watts = {rail: amps * parts["V"][rail] for rail, amps in parts["A"].items() if rail in parts["V"]}
    if not watts:
        raise ValueError("vcgencmd says: " + " ".join(text.split())[:200])
    return watts


def _sum(program: str) -> float:
    return sum(_adc(program).values())


def _rail(program: str, rail: str) -> Callable[[], float]:
    def value() -> float:
        watts = _adc(program).get(rail)
        if watts is None:
            raise ValueError("it is gone")
        return watts

    return value


def _batteries(root: str) -> Iterator[Source]:
    """Batteries of the machine itself, in uW, or uA times uV; charging ones do not tell what the machine takes."""
    for supply in listed(root, "sys/class/power_supply/*"):
        if read(supply, "type") != "Battery" or read(supply, "scope") == "Device":
            continue
        power, volts, amps = (os.path.join(supply, f) for f in ("power_now", "voltage_now", "current_now"))
        if os.path.exists(power):
            value = _discharging(supply, _file(power, 1e-6))
        elif os.path.exists(amps) and os.path.exists(volts):
            value = _discharging(supply, _product(volts, amps, 1e-12))
        else:
            continue
        yield Source(os.path.basename(supply), "power", supply, "battery", value, "battery")


def _discharging(supply: str, value: Callable[[], float]) -> Callable[[], float]:
    def checked() -> float:
        status = read(supply, "status")
        if status != "Discharging":
            raise ValueError(f"not discharging: {status or 'unknown'}")
        return abs(value())  # drivers differ in the sign of a discharge

    return checked
