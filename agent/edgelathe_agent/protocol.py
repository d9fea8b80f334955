"""The messages between host and agent: one table of requests, imported by both sides.

The agent speaks first: `{"hello": 1, "protocol": PROTOCOL, "agent": sha256, "pid", "python", "machine", "root",
"runtimes"}`; `runtimes` names those whose packages lie on its path, not yet imported.
Then the host asks and the agent answers, in order: a request is `{"id": n, "do": verb, ...fields}`, an answer
`{"id": n, "ok": true, ...}` or `{"id": n, "ok": false, "error": {"kind", "what", "mend"}}`. Before its answer a
long request may send `{"id": n, "event": "progress", "what": text}`. Closed stdin ends the agent and its children.
"""

from __future__ import annotations

from typing import Any, Dict, NamedTuple, Tuple

from edgelathe_agent.framing import ProtocolError

PROTOCOL = 1

#: Payload bytes of one `put` frame: large enough that the header costs nothing, small enough to resume from.
CHUNK = 1 << 20

#: Most payload bytes of a request; a larger one is skipped and answered with an error.
MAX_REQUEST = 8 << 20


class Runtime(NamedTuple):
    """An inference runtime: the package that it is imported from and the model format that it takes.

    `program`: one of its vendor's that does where there is no package for the device's Python.
    """

    package: str
    format: str
    program: str = ""


RUNTIMES: Dict[str, Runtime] = {
    "onnxruntime": Runtime("onnxruntime", "onnx"),
    "ai-edge-litert": Runtime("ai_edge_litert", "tflite"),
    "tflite-runtime": Runtime("tflite_runtime", "tflite"),
    "tensorrt": Runtime("tensorrt", "onnx", "trtexec"),
}


class Verb(NamedTuple):
    """Fields of a request by name and JSON type; `answer` names the fields of a good answer."""

    fields: Dict[str, Tuple[type, ...]]
    answer: Tuple[str, ...]


_OBJ, _TEXT, _INT, _NUM, _LIST, _FLAG = (dict,), (str,), (int,), (int, float), (list,), (bool,)

VERBS: Dict[str, Verb] = {
    # What the machine is; null: unknown. runtimes: [{"name", "version", "providers"}], each imported in a child of its
    # own; one that is there but cannot be imported is in `broken`: [{"name", "why"}]. `features` as the kernel names
    # them. clusters: [{"name", "cpus": [number], "max_khz"}], cores of one kind together, fastest first. conditions: as
    # `sense` answers. sensors: [{"kind": "temperature|power|energy", "label", "path"}]; of power and energy also
    # "driver", "scope", "part_of", "refresh_s", "why" (it cannot be read) and "note", as rails.Source has them.
    # fastest_modes: names of a Jetson's power modes without a limit. busiest: processes of others that took most of a
    # CPU meanwhile, [{"name", "pid", "share"}]. tuning: what is tuned now, {"settings", "until"}, null: nothing;
    # recovered: as `changed` of `tune`, what this agent found left over by one that was killed, and put back.
    "probe": Verb(
        {},
        ("machine", "cpu", "features", "cores", "memory_bytes", "memory_free_bytes", "model", "system", "kernel",
         "libc", "bits", "python", "implementation", "executable", "pip", "ensurepip", "free_bytes", "governor",
         "clock_max_khz", "clusters", "runtimes", "broken", "emulated", "emulated_why", "sensors", "conditions",
         "swap_used_bytes", "fastest_modes", "busiest", "tuning", "recovered"),
    ),
    # Clocks {cpu: kHz}, governors {cpu: name}, temperatures {sensor: Celsius}, load average of the last minute, whether
    # it is throttled now (null: unknown), why [text], and how often it was since boot (null: not counted). cpu_s:
    # seconds of all CPUs since boot {"busy", "idle", "steal"}; swap_pages: in and out since boot; gpu_khz; power_mode:
    # that of nvpmodel; clocks_locked: by jetson_clocks. time_ns: {"wall", "monotonic", "boot"}: the last one counts
    # suspension.
    "sense": Verb(
        {},
        ("clocks_khz", "governors", "temperatures_c", "load1", "throttled", "throttle_why", "throttle_count", "cpu_s",
         "swap_pages", "gpu_khz", "power_mode", "clocks_locked", "time_ns"),
    ),
    # Power for `seconds` of doing nothing: as `power` of `time`. meters: labels of the probe's power and energy
    # sensors.
    "watch": Verb({"seconds": _NUM, "meters": _LIST}, ("power",)),
    # Make the machine quieter (governor, jetson_clocks) or, with `on` false, as it was before. It is put back when the
    # connection ends too, however that is, or after `seconds` where `keep` lets it outlive the connection. With `on`
    # false and `keep` it is put back although another connection holds it tuned. changed,
    # refused: [{"what", "was", "is", "why"}].
    "tune": Verb({"on": _FLAG, "keep": _FLAG, "seconds": _NUM}, ("changed", "refused")),
    # Content-addressed files. `sizes`: bytes of each file that is whole, `partial`: of each broken transfer.
    "have": Verb({"sha256": _LIST}, ("sizes", "partial")),
    # One chunk in the payload, at `offset` of a file of `size` bytes; a transfer is taken up at what `have` says of its
    # `partial`. `received`: bytes there now. `done`: the file is whole and its hash fits.
    "put": Verb({"sha256": _TEXT, "size": _INT, "offset": _INT}, ("received", "done")),
    # `removed`: how many files, whole or partial, were there.
    "remove": Verb({"sha256": _LIST}, ("removed",)),
    # A model in a child process of its own, on these CPUs ([]: any); `beside`: files that its own file names by their
    # hashes, as an ONNX model of 2 GB and more has one for its weights; `cold`: they are read from the disk, not from
    # the page cache; `profile`: it can be traced. build_ms: part of load_ms that built an engine for this machine
    # (null: none is built). `provider` of the answer is the one that runs its nodes; inputs and outputs: [{"name",
    # "shape", "dtype", "scale", "zero_point"}] with null for an axis of any length. limits: {"memory_bytes": most RSS
    # of the child, "seconds": most time of loading and feeding, "call_seconds": of requests that run the model, beyond
    # what these ask it to run for}; 0 or left out: none.
    "open": Verb(
        {"model": _TEXT, "beside": _LIST, "format": _TEXT, "runtime": _TEXT, "provider": _TEXT, "threads": _INT,
         "config": _OBJ, "cpus": _LIST, "cold": _FLAG, "profile": _FLAG, "limits": _OBJ},
        ("session", "version", "provider", "load_ms", "build_ms", "inputs", "outputs", "warnings"),
    ),
    # Arrays for a session: {input: {"sha256", "dtype", "shape": [n, ...]}}, raw C-order bytes in the store. Axis 0 of
    # each counts samples; a call takes `batch` of them (0: one, or as many as the model's fixed batch). Up to `streams`
    # calls run at once. `batch` of the answer: samples of a call.
    "feed": Verb({"session": _INT, "inputs": _OBJ, "batch": _INT, "streams": _INT}, ("samples", "batch")),
    # Queries in a row from sample `first` on, cyclically, until both `calls` and `min_ms` are reached. A query is one
    # call, or as many as `samples` take, given to the streams at once; it ends when the last of them does. `period_ms`:
    # a query starts so long after the start of the one before, or at once when that took longer. The payload of the
    # answer: nanoseconds of each query, int64 little-endian; pauses are not in them. conditions: {"before", "after",
    # "throttled"}: as `sense` answers, and whether it was throttled between (null: unknown). cpu_ns: CPU time of the
    # child; wall_ns: time of all. late: queries that started after their time. power: null, or, where `meters` names
    # sensors, [{"label", "kind": "power|energy", "unit": "W|J", "t_ns": [..], "values": [..], "driver", "note",
    # "refresh_s", "cost_us", "why"}], t_ns from the start of the first, as power.Meter.readings. split: null, or
    # {"copy_in_ns", "compute_ns", "copy_out_ns"}, medians of calls on a GPU.
    "time": Verb(
        {"session": _INT, "first": _INT, "calls": _INT, "min_ms": _NUM, "samples": _INT, "period_ms": _NUM,
         "meters": _LIST},
        ("calls", "conditions", "cpu_ns", "wall_ns", "late", "power", "split"),
    ),
    # Calls of a session opened with `profile`, in a row; the payload: nanoseconds of each, int64 little-endian. With
    # `calls` 0 it ends: then the payload is JSON of all calls, as the runtime recorded them,
    # {"calls", "call_ns": [of each], "nodes": [{"name", "op", "provider", "types": [of its inputs, as the runtime names
    # them], "within": name of the node whose subgraph it is in (null: none), "times": how often it ran, "ns": [of each
    # call]}]}, nodes in the order that they ran. Unprofiled calls are timed by `time` of another session.
    "trace": Verb({"session": _INT, "first": _INT, "calls": _INT}, ("calls", "total_ns")),
    # Outputs of `count` samples from `first` on, batch 1 (or the model's fixed batch).
    # outputs: [{"name", "dtype", "shape": [count, ...]}]; the payload is their bytes, one after the other.
    "infer": Verb({"session": _INT, "first": _INT, "count": _INT}, ("outputs",)),
    # Ends a session. peak_bytes: the child's peak RSS above its RSS before the model was loaded (null: unknown),
    # likewise peak_pss_bytes, without what it shares with others, and peak_cgroup_bytes, that of a control group of its
    # own, with the files it read; gpu_bytes: GPU memory in use above that before.
    "close": Verb({"session": _INT}, ("peak_bytes", "peak_pss_bytes", "peak_cgroup_bytes", "gpu_bytes")),
    # A virtual environment under the root, from this Python: wheels (of the store, [{"name", "sha256"}]) are unpacked,
    # requirements are installed from the device's own index by pip, whose lines are progress. `python` is the new
    # interpreter, ROOT/venv/bin/python, which the children of this agent use from now on.
    "install": Verb({"requirements": _LIST, "wheels": _LIST}, ("python",)),
    # Everything that the agent put under its root goes, then the root if it is empty; the agent ends after its answer.
    # `removed`: how many files went; `left`: names of others that were found there and kept.
    "wipe": Verb({}, ("removed", "left")),
}  # fmt: skip

#: Kinds of error and what they mean to the host.
KINDS = {
    "request": "the request is not in the table or its fields do not fit",
    "missing": "a file, session or runtime that the request names is not there",
    "corrupt": "bytes whose hash is not the one announced",
    "space": "the device is out of space",
    "model": "the runtime refused the model or its inputs",
    "crash": "the child that ran the model died",
    "memory": "the child exceeded its memory limit and was ended",
    "time": "the child exceeded its time limit and was ended",
    "install": "the environment could not be made",
    "internal": "a bug of the agent",
}


class AgentError(Exception):
    """An answer with `ok: false`."""

    def __init__(self, kind: str, what: str, mend: str = "") -> None:
        super().__init__(what)
        self.kind, self.what, self.mend = kind, what, mend

    def to_json(self) -> Dict[str, str]:
        """The `error` of an answer."""
        return {"kind": self.kind, "what": self.what, "mend": self.mend}


def check_request(head: Dict[str, Any]) -> None:
    """Raises AgentError("request") when `head` is no request of the table; ProtocolError when it has no id."""
    if not isinstance(head.get("id"), int):
        raise ProtocolError("a request without an id")
    verb = VERBS.get(str(head.get("do")))
    if verb is None:
        raise AgentError("request", f"no request {head.get('do')!r}", "install the agent again")
    for name, types in verb.fields.items():
        value = head.get(name)
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            wanted = " or ".join(t.__name__ for t in types)
            raise AgentError("request", f"{head['do']}.{name} is {value!r}, wanted {wanted}")
