"""What the probe of an open device tells of its fitness to measure: one check a fact, whatever the others are."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from edgelathe.device import wheels
from edgelathe.device.install import wanted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgelathe.core.device import Probe, Target

State = Literal["ok", "warn", "fail"]

#: Free space below which an installation of the runtimes does not fit, and memory below which models hardly run.
LEAST_DISK, LEAST_MEMORY = 500_000_000, 200_000_000
HOT_CELSIUS = 75.0
STEADY_GOVERNORS = frozenset({"performance", "userspace"})
#: Swapped out memory that is no accident, and load of the last minute per CPU that disturbs.
MOST_SWAP, MOST_LOAD = 64_000_000, 0.5
#: Debian's packages of the libraries that the runtimes' wheels leave to the system.
_PACKAGES = {"libstdc++": "libstdc++6", "libgomp": "libgomp1", "libatomic": "libatomic1", "libgcc_s": "libgcc-s1"}
_MISSING = re.compile(r"(lib[\w+-]+)\.so[.\d]*: cannot open shared object")
_TOO_OLD = re.compile(r"version [`'\"]?(GLIBC|GLIBCXX|CXXABI)_([\d.]+)['\"`]? not found")


@dataclass(frozen=True)
class Check:
    """One step: how it went, what was seen, and what to do where it is not `ok`."""

    name: str
    state: State
    what: str
    mend: str = ""

    def to_json(self) -> dict[str, str]:
        """All fields."""
        return asdict(self)


def facts(target: Target, probe: Probe, answer: Mapping[str, Any]) -> Iterator[Check]:
    """All checks of a device that answered `probe`."""
    yield from _runtimes(target, probe)
    yield _least("disk", answer.get("free_bytes"), LEAST_DISK, "free", "free some space, or move it with --root")
    free = answer.get("memory_free_bytes")
    yield _least("memory", free or probe.memory_bytes, LEAST_MEMORY, "available", "end other programs there")
    if probe.emulated:
        what = f"emulated: {answer.get('emulated_why') or 'not the machine that it says it is'}"
        yield Check("machine", "warn", what, "times measured there are not those of the real device")
    yield from _cores(answer)
    yield from _clocks(target, answer)
    yield from _heat(answer.get("conditions") or {})
    yield from _others(probe, answer)
    yield from _tuning(target, answer)
    yield from _unknown(answer)


def _runtimes(target: Target, probe: Probe) -> Iterator[Check]:
    for bad in probe.extra.get("broken") or ():
        mend = _mend_of_import(target, probe, bad["name"], bad["why"])
        yield Check("runtime", "warn", f"{bad['name']} cannot be imported: {bad['why']}", mend)
    for runtime in probe.runtimes:
        providers = f" ({', '.join(runtime.providers)})" if runtime.providers else ""
        yield Check("runtime", "ok", f"{runtime.name} {runtime.version}{providers}")
    if not probe.runtimes:
        names = wanted(probe)
        mend = f"run `edgelathe device install {target.name}`"
        if names:
            fits = " or ".join(wheels.example(name, probe) for name in names)
            mend += f"; where its index has none, give --wheels DIR with {fits}"
        yield Check("runtime", "fail", f"no runtime, {' or '.join(names) or 'one'} is wanted", mend)


def _mend_of_import(target: Target, probe: Probe, name: str, why: str) -> str:
    """What makes a runtime that is there importable, by what the dynamic linker said."""
    missing, old = _MISSING.search(why), _TOO_OLD.search(why)
    if missing:
        package = _PACKAGES.get(missing.group(1))
        return (
            f"`sudo apt install {package}` there" if package else f"install the package with {missing.group(1)} there"
        )
    if old and old.group(1) == "GLIBC":
        what = f"it was built for a newer system (glibc {old.group(2)}, here {probe.extra.get('libc') or 'unknown'})"
        return f"{what}: install {wheels.example(name, probe)}"
    if old:
        return "`sudo apt install --only-upgrade libstdc++6` there: it is older than the runtime wants"
    return f"run `edgelathe device install {target.name}`"


def _least(name: str, value: int | None, least: int, word: str, mend: str) -> Check:
    if value is None:
        return Check(name, "warn", "unknown", "look there yourself")
    what = f"{value / 1e9:.1f} GB {word}"
    return Check(name, "ok", what) if value >= least else Check(name, "warn", what, mend)


def _cores(answer: Mapping[str, Any]) -> Iterator[Check]:
    clusters = answer.get("clusters") or ()
    if len(clusters) > 1:
        parts = [f"{c['name']} (CPUs {','.join(map(str, c['cpus']))})" for c in clusters]
        yield Check("cores", "ok", f"{' and '.join(parts)}; --cpus big or --cpus little binds a model to one kind")


def _clocks(target: Target, answer: Mapping[str, Any]) -> Iterator[Check]:
    quiet = f"run `edgelathe device doctor {target.name} --tune`"
    now = answer.get("conditions") or {}
    governors = sorted(set((now.get("governors") or {}).values())) or [g for g in [answer.get("governor")] if g]
    loose = [g for g in governors if g not in STEADY_GOVERNORS]
    if loose:
        yield Check("governor", "warn", f"'{loose[0]}': latencies will wander with the clock", quiet)
    elif governors:
        yield Check("governor", "ok", governors[0])
    fastest, mode = answer.get("fastest_modes") or (), now.get("power_mode")
    if mode and fastest and mode not in fastest:
        mend = f"`sudo nvpmodel -m ID` there, with the ID of {fastest[0]}, unless {mode} is what it will run in"
        yield Check("power mode", "warn", f"{mode}, the board can do {fastest[0]}", mend)
    elif mode:
        yield Check("power mode", "ok", str(mode))
    if mode and now.get("clocks_locked") is False:
        yield Check("clocks", "warn", "they are not held by jetson_clocks", quiet)
    elif now.get("clocks_locked"):
        yield Check("clocks", "ok", "held")


def _heat(conditions: Mapping[str, Any]) -> Iterator[Check]:
    temperatures = conditions.get("temperatures_c") or {}
    if temperatures:
        hottest = max(temperatures, key=temperatures.__getitem__)
        what = f"{temperatures[hottest]:.0f} °C ({hottest})"
        if temperatures[hottest] >= HOT_CELSIUS:
            yield Check("temperature", "warn", what, "let it cool, or cool it better: a hot device lowers its clocks")
        else:
            yield Check("temperature", "ok", what)
    why, count = conditions.get("throttle_why") or [], conditions.get("throttle_count")
    now = [w for w in why if not w.endswith(" since boot")]
    if conditions.get("throttled"):
        what = f"it lowers its clocks now{': ' if now else ''}{', '.join(now)}"
        power = any("voltage" in w or "current" in w for w in now)
        mend = "a stronger power supply and a shorter cable" if power else "check cooling and power supply"
        yield Check("throttling", "warn", what, mend)
    elif why or count:
        past = [*why, *([f"{count} events since boot"] if count else [])]
        yield Check("throttling", "warn", f"not now, but {', '.join(past)}", "check cooling and power supply")
    elif conditions.get("throttled") is False:
        yield Check("throttling", "ok", "none")


def _others(probe: Probe, answer: Mapping[str, Any]) -> Iterator[Check]:
    busiest = answer.get("busiest") or ()
    load = (answer.get("conditions") or {}).get("load1")
    if busiest:
        names = ", ".join(f"{b['name']} ({b['share']:.0%} of a CPU)" for b in busiest)
        yield Check("load", "warn", f"others work there: {names}", "end them, or measure when they rest")
    elif load is not None:
        high = load > MOST_LOAD * probe.cores
        what = f"{load:.2f} in the last minute on {probe.cores} CPUs"
        yield Check("load", "warn", what, "wait until it rests") if high else Check("load", "ok", what)
    swap = answer.get("swap_used_bytes")
    if swap is not None and swap > MOST_SWAP:
        what = f"{swap / 1e6:.0f} MB are swapped out"
        yield Check("swap", "warn", what, "end other programs: memory that is fetched back falls into what is timed")
    elif swap is not None:
        yield Check("swap", "ok", "hardly used" if swap else "not used")


def _tuning(target: Target, answer: Mapping[str, Any]) -> Iterator[Check]:
    for change in answer.get("recovered") or ():
        what = f"an agent that was killed had left {change['what']} at {change['was']}; it is {change['is']} again"
        yield Check("tuning", "ok", what)
    tuning = answer.get("tuning")
    if tuning:
        back = f"`edgelathe device doctor {target.name} --restore` puts it back at once"
        yield Check("tuning", "ok", f"held quiet {until(tuning['until'])}; {back}")


def _unknown(answer: Mapping[str, Any]) -> Iterator[Check]:
    now = answer.get("conditions") or {}
    known = {
        "clock": now.get("clocks_khz"), "temperature": now.get("temperatures_c"),
        "throttling": now.get("throttled") is not None or now.get("throttle_count") is not None,
    }  # fmt: skip
    unknown = [name for name, value in known.items() if not value]
    if unknown:
        yield Check("sensors", "ok", f"it does not tell its {', '.join(unknown)}: grade B is the best here")


def until(seconds: float | None) -> str:
    """To what time of the clock something holds."""
    import time

    return time.strftime("until %H:%M:%S", time.localtime(seconds)) if seconds else "until its connection ends"
