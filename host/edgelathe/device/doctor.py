"""`device doctor`: each step between the user and a measurement, in order, with the mend where one fails."""

from __future__ import annotations

import re
import socket
import time
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING

from edgelathe.core.errors import EdgelatheError
from edgelathe.device import bootstrap, hostkeys
from edgelathe.device.client import AgentClient
from edgelathe.device.errors import translated
from edgelathe.device.facts import Check, facts
from edgelathe.device.open import agent_command, connect
from edgelathe.device.payload import payload
from edgelathe.device.probe import from_answer
from edgelathe.device.sshconfig import Endpoint, SshConfig
from edgelathe.device.transport import Transport, run
from edgelathe.device.tune import Tuning, restore, tune

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgelathe.core.device import Target

#: Seconds between the clocks of host and device beyond which logs cannot be matched and certificates may be refused.
MOST_SKEW = 30.0


def doctor(
    target: Target, *, ssh_config: Path | None = None, tick: Callable[[Check], None] | None = None,
    tune_seconds: float = 0.0, restored: bool = False,
) -> list[Check]:  # fmt: skip
    """Go through all steps up to the first that fails, those on the open device all; nothing is raised for a fault.

    `tick` is told each check as it is done. The device is broken where one is `fail`. With `restored` it is put back as
    it was before it was tuned; `tune_seconds`: made quiet for so long.
    """
    checks = []
    for check in _steps(target, ssh_config, tune_seconds, restored=restored):
        checks.append(check)
        if tick:
            tick(check)
    return checks


def broken(checks: list[Check]) -> bool:
    """Whether a step failed; warnings alone do not count."""
    return any(check.state == "fail" for check in checks)


def _steps(target: Target, ssh_config: Path | None, tune_seconds: float, *, restored: bool) -> Iterator[Check]:
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
            step = "tuning"
            if restored:
                yield from _changes("restored", restore(client, force=True), "there was nothing to put back")
            if tune_seconds:
                yield from _changes("tuned", tune(client, keep=True, seconds=tune_seconds), "it is as quiet as it gets")
            step = "probe"
            answer = client.request("probe").head
        except EdgelatheError as e:
            yield Check("python" if type(e).__name__ == "NoPython" else step, "fail", e.what, e.mend)
            return
        probe = from_answer(target.name, answer, target.profile)
        yield from facts(target, probe, answer)
        yield _skew(transport, target)


def _changes(name: str, tuning: Tuning, nothing: str) -> Iterator[Check]:
    """One check for what was changed, one for each reason why something was not; policies of one kind are told once."""
    done = Counter(str(replace(c, what=_alike(c.what))) for c in tuning.changed)
    if done:
        yield Check(name, "ok", "; ".join(f"{text}{f' ({n} times)' if n > 1 else ''}" for text, n in done.items()))
    for what, why in dict.fromkeys((_alike(c.what), _alike(c.why)) for c in tuning.refused):
        reason, _, mend = why.partition("; run there: ")
        yield Check(name, "warn", f"{what}: {reason}", f"`{mend}` there" if mend else "measure it as it is")
    if not (tuning.changed or tuning.refused):
        yield Check(name, "ok", nothing)


def _alike(text: str) -> str:
    """Paths of the policies of cpufreq as one pattern."""
    return re.sub(r"(policy|cpu/cpu)\d+", r"\1*", text)


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
