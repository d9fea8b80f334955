"""In the child: time per node, from the profile that ONNX Runtime keeps. Standard library only.

Source: ONNX Runtime, "Profiling Tools": a JSON list in Chrome's trace format, an event a line, microseconds.
"""

from __future__ import annotations

import array
import contextlib
import glob
import json
import os
import sys
import tempfile
from typing import IO, Any, Dict, Iterable, List, NamedTuple, Optional, Tuple

from edgelathe_agent.protocol import AgentError

Event = Dict[str, Any]

#: End of the name of an event that is the run of a node's kernel; older versions wrote others beside it.
_KERNEL = "_kernel_time"
#: Name of the event that encloses all others of a call.
_CALL = "model_run"


class Profile:
    """The file that a session writes its profile to. It loses its name once it is open: nothing of it stays behind."""

    def __init__(self, root: str) -> None:
        folder = os.path.join(root, "tmp")
        os.makedirs(folder, exist_ok=True)
        self.prefix = tempfile.mktemp(prefix="profile-", dir=folder)  # the runtime adds time and `.json`
        self._file: Optional[IO[str]] = None

    def hold(self) -> None:
        """The session is there and has made the file. Raises AgentError("missing") where it has not."""
        for path in glob.glob(glob.escape(self.prefix) + "*"):
            self._file = open(path, encoding="utf-8", errors="replace")  # noqa: SIM115  # it is read at the end
            os.unlink(path)
        if self._file is None:
            raise AgentError("missing", "this runtime writes no profile", "install another version of it")

    def events(self) -> Iterable[Event]:
        """All events, once the session has ended its profile."""
        if self._file is None:
            return
        with self._file:
            for line in self._file:
                with contextlib.suppress(ValueError):  # the brackets around the list
                    event = json.loads(line.strip().rstrip(","))
                    if isinstance(event, dict):
                        yield event
        self._file = None


def trace(engine: Any, queries: Any, first: int, calls: int) -> Tuple[Dict[str, Any], List[Any]]:
    """Calls in a row, nanoseconds of each; with `calls` 0 the end of the trace: all that was recorded.

    `queries` have `ready(first)`, `run() -> ns` and `step`, samples of a call, as `queries.Single`.
    """
    if calls == 0:
        return {"calls": 0, "total_ns": 0}, [json.dumps(by_node(engine.profile()), separators=(",", ":")).encode()]
    times = array.array("q", engine.series(calls, 0.0) or ())
    for number in range(calls if not times else 0):
        queries.ready(first + number * queries.step)
        times.append(queries.run())
    total = sum(times)
    if sys.byteorder == "big":
        times.byteswap()
    return {"calls": len(times), "total_ns": total}, [times]


def by_node(events: Iterable[Event]) -> Dict[str, Any]:
    """`{"calls", "call_ns": [of each call], "nodes": [...]}`, nodes in the order that they first ran.

    A node: {"name", "op", "provider", "types": [of inputs], "within": the node whose subgraph it is in, or null,
    "times": how often it ran, "ns": [of each call]}. The time of nodes in a subgraph is not in that of the node that
    holds it. Every microsecond of the kernels is in one node.
    """
    call_ns: List[int] = []
    nodes: Dict[Tuple[str, str, str], Event] = {}
    holders: List[Tuple[int, Optional[Event]]] = []  # those that the next event may lie in: end and node
    for span in _spans(events):
        end, ns = span.start + span.length, span.length * 1000
        while holders and holders[-1][0] <= span.start:
            holders.pop()
        if span.kernel is None:
            call_ns.append(ns)
            holders = [(end, None)]
            continue
        if not call_ns:
            continue
        holder = holders[-1][1] if holders else None
        node = _node(nodes, span.kernel, holder)
        node["ns"].extend([0] * (len(call_ns) - len(node["ns"])))
        node["ns"][-1] += ns
        node["times"] += 1
        if holder is not None:
            holder["ns"][-1] -= ns
        holders.append((end, node))
    for node in nodes.values():
        node["ns"].extend([0] * (len(call_ns) - len(node["ns"])))
    return {"calls": len(call_ns), "call_ns": call_ns, "nodes": list(nodes.values())}


class _Kernel(NamedTuple):
    """What all runs of a node have in common."""

    name: str
    op: str
    provider: str
    types: Tuple[str, ...]


class _Span(NamedTuple):
    """One event in microseconds; `kernel` None: a whole call."""

    start: int
    length: int
    kernel: Optional[_Kernel]


def _spans(events: Iterable[Event]) -> List[_Span]:
    """Calls and kernels by start; who holds another comes before it. Little is kept of each: a device is small."""
    shared: Dict[_Kernel, _Kernel] = {}
    spans = []
    for e in events:
        name, kernel = str(e.get("name", "")), None
        if e.get("cat") == "Node" and name.endswith(_KERNEL):
            args = e.get("args", {})
            types = tuple(next(iter(t), "") for t in args.get("input_type_shape") or [] if isinstance(t, dict))
            made = _Kernel(name[: -len(_KERNEL)], str(args.get("op_name", "")), str(args.get("provider", "")), types)
            kernel = shared.setdefault(made, made)
        elif name != _CALL:
            continue
        spans.append(_Span(int(e["ts"]), int(e["dur"]), kernel))
    spans.sort(key=lambda s: (s.start, -s.length, s.kernel is not None))
    return spans


def _node(nodes: Dict[Tuple[str, str, str], Event], kernel: _Kernel, holder: Optional[Event]) -> Event:
    within = None if holder is None else holder["name"]
    return nodes.setdefault(
        (kernel.name, kernel.op, str(within or "")),
        {"name": kernel.name, "op": kernel.op, "provider": kernel.provider, "types": list(kernel.types),
         "within": within, "times": 0, "ns": []},
    )  # fmt: skip
