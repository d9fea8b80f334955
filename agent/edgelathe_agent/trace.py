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
from typing import IO, Any, Dict, Iterable, List, Optional, Tuple

from edgelathe_agent.protocol import AgentError

Event = Dict[str, Any]

#: End of the name of an event that is the run of a node's kernel; older versions wrote others beside it.
_KERNEL = "_kernel_time"
#: Name of the event that encloses all others of a call.
_CALL = "model_run"
#: Events that the runtime keeps; it drops those beyond a million, and we read them all into memory.
MOST_EVENTS = 60_000


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
    kept = [e for e in events if e.get("ph") == "X" and (_is_kernel(e) or e.get("name") == _CALL)]
    # Whoever encloses another starts no later and ends no earlier.
    kept.sort(key=lambda e: (e["ts"], -e["dur"], e["name"] != _CALL))
    call_ns: List[int] = []
    nodes: Dict[Tuple[str, str, str], Dict[str, Any]] = {}
    open_: List[Tuple[int, Optional[Dict[str, Any]]]] = []
    for e in kept:
        start, end, ns = e["ts"], e["ts"] + e["dur"], e["dur"] * 1000
        while open_ and open_[-1][0] <= start:
            open_.pop()
        if e["name"] == _CALL:
            call_ns.append(ns)
            open_ = [(end, None)]
            continue
        if not call_ns:
            continue
        holder = open_[-1][1] if open_ else None
        node = _node(nodes, e, holder)
        node["ns"].extend([0] * (len(call_ns) - len(node["ns"])))
        node["ns"][-1] += ns
        node["times"] += 1
        if holder is not None:
            holder["ns"][-1] -= ns
        open_.append((end, node))
    for node in nodes.values():
        node["ns"].extend([0] * (len(call_ns) - len(node["ns"])))
    return {"calls": len(call_ns), "call_ns": call_ns, "nodes": list(nodes.values())}


def _is_kernel(event: Event) -> bool:
    return event.get("cat") == "Node" and str(event.get("name", "")).endswith(_KERNEL)


def _node(nodes: Dict[Tuple[str, str, str], Dict[str, Any]], event: Event, holder: Optional[Dict[str, Any]]) -> Event:
    name, args = event["name"][: -len(_KERNEL)], event.get("args", {})
    within = None if holder is None else holder["name"]
    key = (name, str(args.get("op_name", "")), str(within or ""))
    if key not in nodes:
        types = [next(iter(t), "") for t in args.get("input_type_shape") or [] if isinstance(t, dict)]
        nodes[key] = {
            "name": name, "op": key[1], "provider": str(args.get("provider", "")), "types": types, "within": within,
            "times": 0, "ns": [],
        }  # fmt: skip
    return nodes[key]
