"""Which of a device's power and energy sensors counts: by its label or by the user's word, never by a guess."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgelathe.core.device import Probe
from edgelathe.core.errors import UserError, nearest

_NO_SENSOR = "give an external meter with --meter CMD, a command that prints lines of time and watts"
_RAPL_MEND = "on the device: sudo chmod a+r /sys/class/powercap/intel-rapl*/energy_uj (until its next boot)"


def choose(probe: Probe, rail: str | None = None) -> tuple[Mapping[str, Any], ...]:
    """The sensors that `rail` names, several joined by `+`; None: the one whose label says that it is the total.

    Raises UserError when there is no such sensor, or which is the total is not clear: that is never guessed.
    """
    there = {str(s["label"]): s for s in probe.sensors if s["kind"] in ("power", "energy")}
    if rail is not None:
        return _named(probe.name, there, rail)
    if not there:
        raise UserError(probe.name, "shows no power or energy sensor", _NO_SENSOR)
    usable = [s for s in there.values() if not s.get("why")]
    if not usable:
        label, sensor = next(iter(there.items()))
        mend = _RAPL_MEND if sensor.get("driver") == "intel-rapl" else _NO_SENSOR
        raise UserError(probe.name, f"power sensor {label} cannot be read: {sensor['why']}", mend)
    totals = [s for s in usable if s.get("scope") in ("input", "platform", "package", "pmic")]
    if any(s["scope"] == "platform" for s in totals):
        totals = [s for s in totals if s["scope"] != "package"]  # the platform's figure counts its packages
    totals = totals or [s for s in usable if s.get("scope") == "battery"]
    if len(totals) == 1:
        return (totals[0],)
    names = ", ".join(str(s["label"]) for s in totals or usable)
    what = "has several totals" if totals else "has no power sensor that says it is the total"
    raise UserError(probe.name, f"{what}: {names}", "choose with --rail NAME, or NAME+NAME for their sum")


def _named(device: str, there: Mapping[str, Mapping[str, Any]], rail: str) -> tuple[Mapping[str, Any], ...]:
    names = [rail] if rail in there else [name.strip() for name in rail.split("+")]
    for name in names:
        if name not in there:
            raise UserError(
                "--rail", f"{device} has no sensor '{name}'", nearest(name, there, "" if there else _NO_SENSOR)
            )
        if there[name].get("why"):
            mend = _RAPL_MEND if there[name].get("driver") == "intel-rapl" else "choose another one"
            raise UserError("--rail", f"{name} cannot be read: {there[name]['why']}", mend)
        above = there[name].get("part_of")
        if names.count(name) > 1 or above in names:
            raise UserError("--rail", f"{name} would count twice", f"leave {'one' if above not in names else name} out")
    return tuple(there[name] for name in names)
