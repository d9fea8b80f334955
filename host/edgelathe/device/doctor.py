"""`device doctor`: each step between the user and a measurement, in order, with the mend where one fails."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from edgelathe.core.errors import EdgelatheError
from edgelathe.device import bootstrap, hostkeys
from edgelathe.device.client import AgentClient
from edgelathe.device.errors import translated
from edgelathe.device.install import wanted
from edgelathe.device.open import agent_command, connect
from edgelathe.device.payload import payload
from edgelathe.device.probe import from_answer
from edgelathe.device.sshconfig import Endpoint, SshConfig
from edgelathe.device.transport import Transport, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from edgelathe.core.device import Probe, Target

State = Literal["ok", "warn", "fail"]

#: Free space below which an installation of the runtimes does not fit, and memory below which models hardly run.
LEAST_DISK, LEAST_MEMORY = 500_000_000, 200_000_000
#: Seconds between the clocks of host and device beyond which logs cannot be matched and certificates may be refused.
MOST_SKEW = 30.0
HOT_CELSIUS = 75.0
STEADY_GOVERNORS = frozenset({"performance", "userspace"})


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


def doctor(
    target: Target, *, ssh_config: Path | None = None, tick: Callable[[Check], None] | None = None
) -> list[Check]:
    """Go through all steps up to the first that fails, those on the open device all; nothing is raised for a fault.

    `tick` is told each check as it is done. The device is broken where one is `fail`.
    """
    checks = []
    for check in _steps(target, ssh_config):
        checks.append(check)
        if tick:
            tick(check)
    return checks


def broken(checks: list[Check]) -> bool:
    """Whether a step failed; warnings alone do not count."""
    return any(check.state == "fail" for check in checks)


def _steps(target: Target, ssh_config: Path | None) -> Iterator[Check]:
    step = "address"
    with ExitStack() as stack:
        try:
            if target.url != "local":
                endpoint = SshConfig(ssh_config).endpoint(target.url)
                first = endpoint.jumps[0] if endpoint.jumps else endpoint
                yield Check("address", "ok", _path(endpoint))
                if not first.proxy_command:
                    step = "network"
                    yield _network(target, first)
                step = "host key"
                yield _host_key(target, endpoint)
                step = "login"
            transport = stack.enter_context(closing(connect(target, ssh_config)))
            if target.url != "local":
                yield Check("login", "ok", f"as {endpoint.user}")
            step = "agent"
            begun = time.perf_counter()
            started = bootstrap.start(transport, agent_command(target), target.python)
            client = AgentClient(target.name, started)
            stack.callback(client.close)
            yield Check("python", "ok", f"{client.hello['python']} on {client.hello['machine']}")
            took = time.perf_counter() - begun
            yield Check("agent", "ok", f"{payload().sha256[:12]} in {client.hello['root']}, ready in {took:.2f} s")
            step = "probe"
            answer = client.request("probe").head
        except EdgelatheError as e:
            yield Check("python" if type(e).__name__ == "NoPython" else step, "fail", e.what, e.mend)
            return
        probe = from_answer(target.name, answer, target.profile)
        yield from _facts(target, probe, answer)
        yield _skew(transport, target)


def _path(endpoint: Endpoint) -> str:
    hops = [f"{hop.user}@{hop.address}" for hop in (*endpoint.jumps, endpoint)]
    through = f" by `{endpoint.proxy_command}`" if endpoint.proxy_command else ""
    return " > ".join(hops) + through


def _network(target: Target, first: Endpoint) -> Check:
    with translated(target.name, host=first.host, port=first.port, user=first.user):
        begun = time.perf_counter()
        with socket.create_connection((first.host, first.port), first.connect_seconds):
            return Check("network", "ok", f"{first.address} answers in {1000 * (time.perf_counter() - begun):.1f} ms")


def _host_key(target: Target, endpoint: Endpoint) -> Check:
    from edgelathe.device.ssh import look

    key = look(target.name, endpoint)
    hostkeys.check(endpoint, key, target.name, target.fingerprint)
    return Check("host key", "ok", f"{key.type} {key.fingerprint}")


def _facts(target: Target, probe: Probe, answer: Mapping[str, Any]) -> Iterator[Check]:
    """What the probe tells: every one of these is looked at, whatever the others are."""
    yield from _runtimes(target, probe)
    yield _least("disk", answer.get("free_bytes"), LEAST_DISK, "free", "free some space, or move it with --root")
    free = answer.get("memory_free_bytes")
    yield _least("memory", free or probe.memory_bytes, LEAST_MEMORY, "available", "end other programs there")
    if probe.emulated:
        what = f"emulated: {answer.get('emulated_why') or 'not the machine that it says it is'}"
        yield Check("machine", "warn", what, "times measured there are not those of the real device")
    governor = answer.get("governor")
    if governor and governor not in STEADY_GOVERNORS:
        mend = "for steady times: `sudo cpufreq-set -r -g performance` there (jetson: `sudo jetson_clocks`)"
        yield Check("governor", "warn", governor, mend)
    elif governor:
        yield Check("governor", "ok", governor)
    yield from _heat(answer.get("conditions") or {})


def _runtimes(target: Target, probe: Probe) -> Iterator[Check]:
    for bad in probe.extra.get("broken") or ():
        mend = f"run `edgelathe device install {target.name}`"
        yield Check("runtime", "warn", f"{bad['name']} cannot be imported: {bad['why']}", mend)
    for runtime in probe.runtimes:
        providers = f" ({', '.join(runtime.providers)})" if runtime.providers else ""
        yield Check("runtime", "ok", f"{runtime.name} {runtime.version}{providers}")
    if not probe.runtimes:
        names = " or ".join(wanted(probe))
        yield Check(
            "runtime", "fail", f"no runtime, {names} is wanted", f"run `edgelathe device install {target.name}`"
        )


def _least(name: str, value: int | None, least: int, word: str, mend: str) -> Check:
    if value is None:
        return Check(name, "warn", "unknown", "look there yourself")
    what = f"{value / 1e9:.1f} GB {word}"
    return Check(name, "ok", what) if value >= least else Check(name, "warn", what, mend)


def _heat(conditions: Mapping[str, Any]) -> Iterator[Check]:
    temperatures = conditions.get("temperatures_c") or {}
    if temperatures:
        hottest = max(temperatures, key=temperatures.__getitem__)
        what = f"{temperatures[hottest]:.0f} °C ({hottest})"
        if temperatures[hottest] >= HOT_CELSIUS:
            yield Check("temperature", "warn", what, "let it cool, or cool it better: a hot device lowers its clocks")
        else:
            yield Check("temperature", "ok", what)
    if conditions.get("throttled"):
        yield Check("throttling", "warn", "it lowers its clocks now", "check power supply and cooling")


def _skew(transport: Transport, target: Target) -> Check:
    """The device's clock against the middle of the question's round trip (Cristian, 1989)."""
    before = time.time()
    try:
        theirs = float(run(transport, ["date", "+%s"], limit=10.0).out)
    except (ValueError, TimeoutError, EdgelatheError):
        return Check("clock", "warn", "the device does not tell its time", "look there yourself")
    after = time.time()
    skew = theirs + 0.5 - (before + after) / 2  # whole seconds, cut
    if abs(skew) <= MOST_SKEW:
        return Check("clock", "ok", f"within {abs(skew) + 0.5:.0f} s of this machine's")
    return Check(
        "clock", "warn", f"{abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}", f"set the clock of {target.name}"
    )
