"""What the agent does for each verb of the protocol: one function a request, in one table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, List, Tuple

from edgelathe_agent.framing import pack
from edgelathe_agent.protocol import RUNTIMES, AgentError

if TYPE_CHECKING:
    from edgelathe_agent.serve import Agent

Head = Dict[str, Any]
Answer = Tuple[Head, bytes]

#: Longest that a runtime may take to be imported, in seconds; slow cards and emulators take tens.
_IMPORT_SECONDS = 120.0


def _probe(agent: Agent, _: Head, __: bytes) -> Answer:
    from edgelathe_agent import probe, sensors

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
    fields.update(
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
        else tune.restore("/", agent.root)
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
    agent.store.find(head["model"])
    limits = [head["limits"].get(k, 0) for k in ("seconds", "memory_bytes")]
    if not all(isinstance(v, (int, float)) and v >= 0 for v in limits):
        raise AgentError("request", "open.limits is {!r}".format(head["limits"]), "numbers, 0 for none")
    seconds, memory = float(limits[0]), int(limits[1])
    job = agent.child()
    try:
        answer = agent.ask(job, head, seconds, memory)
    except AgentError:
        agent.jobs.end(job)
        raise
    return {**answer.head, "session": agent.add_session(job, seconds, memory)}, b""


def _feed(agent: Agent, head: Head, _: bytes) -> Answer:
    for value in head["inputs"].values():
        agent.store.find(value.get("sha256") if isinstance(value, dict) else None)
    return agent.ask_session(head)


def _time(agent: Agent, head: Head, _: bytes) -> Answer:
    from edgelathe_agent.power import Meter
    from edgelathe_agent.sensors import conditions, sense

    meter = Meter("/", head["meters"])
    before = sense("/")
    # Without a meter seldom: what is timed must not feel the agent.
    answer = agent.ask_session(head, every=meter.interval or 0.25, tick=meter.take)
    after = sense("/")
    return {**answer.head, "conditions": conditions(before, after), "power": meter.readings()}, answer.body


def _trace(agent: Agent, head: Head, _: bytes) -> Answer:
    answer = agent.ask_session(head)
    return answer.head, answer.body


def _infer(agent: Agent, head: Head, _: bytes) -> Answer:
    return agent.ask_session(head)


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
    from edgelathe_agent.tidy import wipe

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
