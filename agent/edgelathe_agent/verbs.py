"""What the agent does for each verb of the protocol: one function a request, in one table."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, List, Optional, Tuple

from edgelathe_agent import cgroup
from edgelathe_agent.framing import pack
from edgelathe_agent.patience import Patience, Session, Tell
from edgelathe_agent.protocol import RUNTIMES, AgentError

if TYPE_CHECKING:
    from edgelathe_agent.serve import Agent

Head = Dict[str, Any]
Answer = Tuple[Head, bytes]

#: Longest that a runtime may take to be imported, in seconds; slow cards and emulators take tens.
_IMPORT_SECONDS = 120.0
#: Most calls of a session at once: each has a thread and buffers.
MOST_STREAMS = 256
#: Seconds between looks at a child that is timed, where no meter is read: it must not feel the agent.
SELDOM = 0.25


def _probe(agent: Agent, _: Head, __: bytes) -> Answer:
    from edgelathe_agent import probe, sensors, tune

    begun, before = time.monotonic(), probe.processes("/")
    children = {name: agent.child() for name in RUNTIMES}
    for name, job in children.items():
        agent.jobs.send(job, pack({"do": "describe", "runtime": name}))
    runtimes: List[Head] = []
    broken: List[Head] = []
    why = probe.emulation(next(iter(children.values())).pid)
    for name, job in children.items():
        try:
            answer = agent.answer(job, _IMPORT_SECONDS).head
        except AgentError as e:
            broken.append({"name": name, "why": e.what})
        else:
            if answer["installed"]:
                runtimes.append({"name": name, "version": answer["version"], "providers": answer["providers"]})
        agent.jobs.end(job)
    fields = probe.describe("/", agent.root)
    sensors.refresh("/")
    fields.update(
        busiest=probe.busiest(before, probe.processes("/"), time.monotonic() - begun, os.getpid()),
        tuning=tune.state(agent.root), recovered=agent.recovered,
        runtimes=runtimes, broken=broken, emulated=bool(why), emulated_why=why, executable=agent.python,
        sensors=sensors.found("/"), conditions=sensors.sense("/"),
    )  # fmt: skip
    return fields, b""


def _sense(_: Agent, __: Head, ___: bytes) -> Answer:
    from edgelathe_agent import sensors

    return sensors.sense("/"), b""


def _watch(agent: Agent, head: Head, _: bytes) -> Answer:
    from edgelathe_agent.power import Meter

    meter = Meter("/", head["meters"])
    agent.jobs.sleep(head["seconds"], meter.interval, meter.take)
    return {"power": meter.readings()}, b""


def _tune(agent: Agent, head: Head, _: bytes) -> Answer:
    from edgelathe_agent import tune

    changed, refused = (
        tune.apply("/", agent.root, keep=head["keep"], seconds=head["seconds"])
        if head["on"]
        else tune.restore("/", agent.root, force=head["keep"])
    )
    return {"changed": changed, "refused": refused}, b""


def _have(agent: Agent, head: Head, _: bytes) -> Answer:
    sizes, partial = agent.store.sizes(head["sha256"])
    return {"sizes": sizes, "partial": partial}, b""


def _put(agent: Agent, head: Head, body: bytes) -> Answer:
    received, done = agent.store.put(head["sha256"], head["size"], head["offset"], body)
    return {"received": received, "done": done}, b""


def _remove(agent: Agent, head: Head, _: bytes) -> Answer:
    return {"removed": agent.store.remove(head["sha256"])}, b""


def _open(agent: Agent, head: Head, _: bytes) -> Answer:
    runtime = RUNTIMES.get(head["runtime"])
    if runtime is None:
        raise AgentError("request", "no runtime {!r}".format(head["runtime"]), "one of " + ", ".join(RUNTIMES))
    if runtime.format != head["format"]:
        raise AgentError(
            "request", "{} does not run {} models".format(head["runtime"], head["format"]), "choose another runtime"
        )
    if head["threads"] < 1:
        raise AgentError("request", f"open.threads is {head['threads']}", "at least 1")
    for name in (head["model"], *head["beside"]):
        agent.store.find(name)
    _allowed(head["cpus"])
    limits = [head["limits"].get(k, 0) for k in ("seconds", "call_seconds", "memory_bytes")]
    if not all(isinstance(v, (int, float)) and v >= 0 for v in limits):
        raise AgentError("request", "open.limits is {!r}".format(head["limits"]), "numbers, 0 for none")
    job = agent.child()
    session = Session(job, float(limits[0]), float(limits[1]), int(limits[2]))
    job.group = cgroup.make("/", job.pid)
    tell = Tell(agent, job, "{} loads the model".format(head["runtime"]))
    try:
        answer = agent.ask(job, {**head, "cgroup": job.group}, session.seconds, session.memory_bytes, tick=tell)
    except AgentError:
        agent.jobs.end(job)
        raise
    return {**answer.head, "session": agent.add_session(session)}, b""


def _allowed(cpus: List[Any]) -> None:
    there = os.sched_getaffinity(0)
    for cpu in cpus:
        if isinstance(cpu, bool) or not isinstance(cpu, int) or cpu not in there:
            raise AgentError("request", f"open.cpus: no CPU {cpu!r} for the agent", f"use some of {ranges(there)}")


def ranges(cpus: Iterable[int]) -> str:
    """Numbers as the kernel lists them: 0-3,6."""
    parts: List[List[int]] = []
    for cpu in sorted(cpus):
        if parts and cpu == parts[-1][-1] + 1:
            parts[-1].append(cpu)
        else:
            parts.append([cpu])
    return ",".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)


def _feed(agent: Agent, head: Head, _: bytes) -> Answer:
    _within(head, batch=(0, None), streams=(1, MOST_STREAMS))
    for value in head["inputs"].values():
        agent.store.find(value.get("sha256") if isinstance(value, dict) else None)
    session = agent.sessions.get(head["session"])  # an engine may be built for the shapes that are fed
    return agent.ask_session(head, tick=session and Tell(agent, session.job, "the model takes its samples"))


def _time(agent: Agent, head: Head, _: bytes) -> Answer:
    from edgelathe_agent.power import Meter
    from edgelathe_agent.sensors import conditions, sense

    _within(head, first=(0, None), calls=(0, None), min_ms=(0, None), samples=(0, None), period_ms=(0, None))
    meter = Meter("/", head["meters"])
    runs_for = max(head["min_ms"], head["calls"] * head["period_ms"]) / 1e3
    tick = Patience(agent, head, runs_for, meter.take)
    before = sense("/")
    answer = agent.ask_session(head, every=meter.interval or SELDOM, tick=tick, runs_for=runs_for)
    after = sense("/")
    return {**answer.head, "conditions": conditions(before, after), "power": meter.readings()}, answer.body


def _trace(agent: Agent, head: Head, _: bytes) -> Answer:
    _within(head, first=(0, None), calls=(0, None))
    answer = agent.ask_session(head, every=SELDOM, tick=Patience(agent, head, 0.0), runs_for=0.0)
    return answer.head, answer.body


def _within(head: Head, **limits: Tuple[int, Optional[int]]) -> None:
    """Raises AgentError("request") for a field that is below or above its limits, or no number."""
    for name, (least, most) in limits.items():
        value = head[name]
        if not (value >= least and (most is None or value <= most) and value != float("inf")):
            wanted = f"at least {least}" if most is None else f"{least} to {most}"
            raise AgentError("request", "{}.{} is {}".format(head["do"], name, value), wanted)


def _infer(agent: Agent, head: Head, _: bytes) -> Answer:
    return agent.ask_session(head, tick=Patience(agent, head, 0.0), runs_for=0.0)


def _close(agent: Agent, head: Head, _: bytes) -> Answer:
    try:
        return agent.ask_session(head)
    finally:
        agent.end_session(head["session"])


def _install(agent: Agent, head: Head, _: bytes) -> Answer:
    from edgelathe_agent.install import install

    agent.python = install(agent, head["requirements"], head["wheels"])
    return {"python": agent.python}, b""


def _wipe(agent: Agent, _: Head, __: bytes) -> Answer:
    from edgelathe_agent import tune
    from edgelathe_agent.tidy import wipe

    stuck = tune.restore("/", agent.root, force=True)[1]
    if stuck:  # what was would be forgotten with the journal
        raise AgentError("internal", "{what} cannot be put back: {why}".format(**stuck[0]), "then uninstall again")
    for number in list(agent.sessions):
        agent.end_session(number)
    removed, left = wipe(agent.root)
    agent.wiped = True
    return {"removed": removed, "left": left}, b""


#: One function a request, by the verbs of the protocol's table.
HANDLERS: Dict[str, Callable[[Agent, Head, bytes], Answer]] = {
    "probe": _probe, "sense": _sense, "watch": _watch, "tune": _tune, "have": _have, "put": _put, "remove": _remove,
    "open": _open, "feed": _feed, "time": _time, "trace": _trace, "infer": _infer, "close": _close,
    "install": _install, "wipe": _wipe,
}  # fmt: skip
