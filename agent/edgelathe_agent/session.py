"""In the child: load a model, time calls, infer. Frames as between host and agent, with the agent at the other end."""

from __future__ import annotations

import array
import gc
import os
import resource
import sys
import time
from typing import Any, Callable, Dict, List, Tuple

from edgelathe_agent import framing, progress
from edgelathe_agent.cas import Store
from edgelathe_agent.jobs import write_all
from edgelathe_agent.protocol import AgentError
from edgelathe_agent.queries import Block, Several, Single, Stream, block, clock

Head = Dict[str, Any]
Answer = Tuple[Head, List[Any]]


class Session:
    """One model, loaded once, and the samples fed to it."""

    def __init__(self, root: str) -> None:
        self._store = Store(root)
        self._engine: Any = None
        self._streams: List[Stream] = []
        self._queries: Any = None
        self._asked = -1  # samples of a query that `_queries` are for
        self._batch, self._n = 1, 0
        self._memory: Any = None

    def describe(self, head: Head) -> Answer:
        """Version and providers of a runtime, once it is imported."""
        from edgelathe_agent.runtimes import installed, module

        name = head["runtime"]
        if not installed(name):
            return {"installed": False}, []
        version, providers = module(name).describe(name)
        return {"installed": True, "version": version, "providers": providers}, []

    def open(self, head: Head) -> Answer:
        """Load the model; `load_ms` counts from its file to a session that is ready, without imports."""
        from edgelathe_agent.memory import Footprint
        from edgelathe_agent.pagecache import drop
        from edgelathe_agent.runtimes import module

        if head["cpus"]:
            os.sched_setaffinity(0, head["cpus"])  # before threads are made, which take it over
        name, path = head["runtime"], self._store.find(head["model"])
        beside = [self._store.link(b, head["model"]) for b in head["beside"]]
        runtime = module(name)
        version, _ = runtime.describe(name)
        remarks = [drop(p) for p in (path, *beside)] if head["cold"] else []
        gc.collect()
        self._memory = Footprint(head["cgroup"])
        start = time.perf_counter_ns()
        engine = self._engine = runtime.load(
            name, path, head["provider"], head["threads"], head["config"], self._store.root, head["profile"]
        )
        load_ms = (time.perf_counter_ns() - start) / 1e6
        self._memory.note(engine.gpu_bytes)
        engine.place()
        gc.collect()
        gc.disable()  # no collection falls into a timed call
        return {
            "version": version, "provider": engine.provider, "load_ms": load_ms, "build_ms": engine.build_ms,
            "inputs": engine.inputs, "outputs": engine.outputs,
            "warnings": [*engine.warnings, *sorted({r for r in remarks if r})],
        }, []  # fmt: skip

    def feed(self, head: Head) -> Answer:
        """Check the arrays against the model and point the engine, and its forks, at buffers for them."""
        from edgelathe_agent.samples import Samples, batch_of, check

        infos = {i["name"]: i for i in self._engine.inputs}
        if set(infos) != set(head["inputs"]):
            what = "inputs {} fed, the model has {}".format(sorted(head["inputs"]), sorted(infos))
            raise AgentError("model", what, "feed each input of the model by name")
        dims = {name: check(name, infos[name], fed, self._store) for name, fed in head["inputs"].items()}
        counts = {d[0] for d in dims.values()}
        if len(counts) != 1:
            raise AgentError("model", f"inputs of {sorted(counts)} samples", "feed as many of each")
        batched = {name: len(d) == len(infos[name]["shape"]) for name, d in dims.items()}
        batch = batch_of({name: infos[name]["shape"][0] if batched[name] else 1 for name in dims}, head["batch"])
        self._unfed()
        self._memory.begin()
        n = counts.pop()
        engines = [self._engine, *(self._engine.fork() for _ in range(1, head["streams"]))]
        for engine in engines:
            samples = {
                name: Samples(self._store.find(head["inputs"][name]["sha256"]), infos[name]["dtype"], d,
                              batch if batched[name] else None)
                for name, d in dims.items()
            }  # fmt: skip
            try:
                engine.bind({name: s.buffer for name, s in samples.items()}, batch)
            except BaseException:
                for s in samples.values():
                    s.close()
                raise
            self._streams.append(Stream(engine, list(samples.values()), batch, n))
        self._memory.note(self._engine.gpu_bytes)
        self._batch, self._n = batch, n
        return {"samples": n, "batch": batch}, []

    def time(self, head: Head) -> Answer:
        """Queries in a row, paced where a period is given; each is timed alone."""
        self._fed()
        cpu = _cpu_ns()
        done = self._block(head)
        cpu_ns = _cpu_ns() - cpu
        self._memory.note(self._engine.gpu_bytes)
        if sys.byteorder == "big":
            done.times.byteswap()
        return {
            "calls": len(done.times), "cpu_ns": cpu_ns, "wall_ns": done.wall_ns, "late": done.late,
            "split": self._engine.split,
        }, [done.times]  # fmt: skip

    def infer(self, head: Head) -> Answer:
        """Outputs of samples first to first + count - 1, one after the other."""
        import numpy as np

        self._fed()
        first, count, batch = head["first"], head["count"], self._batch
        if not (first >= 0 and count > 0 and first + count <= self._n):
            raise AgentError("request", f"samples {first} to {first + count - 1} of {self._n}", "ask for those fed")
        outputs: List[Any] = []
        for done in range(0, count, batch):
            # A batch that reaches over the last sample is filled up from the start; that is cut off again.
            self._streams[0].stage(first + done)
            rows = [_rows(o, batch) for o in self._engine.fetch(self._engine.run())]
            if not done:
                self._memory.note(self._engine.gpu_bytes)  # before what is collected here counts too
                outputs = _room(rows, count)
            for info, out, r in zip(self._engine.outputs, outputs, rows):
                if out.shape[1:] != r.shape[1:]:
                    what = "output {} is {}, then {}".format(info["name"], list(out.shape[1:]), list(r.shape[1:]))
                    raise AgentError("model", what, "outputs must have one shape for all samples")
                out[done : done + batch] = r[: count - done]
        infos = [
            {"name": i["name"], "dtype": o.dtype.name, "shape": list(o.shape)}
            for i, o in zip(self._engine.outputs, outputs)
        ]
        return {"outputs": infos}, [o.reshape(-1).view(np.uint8).data for o in outputs]

    def trace(self, head: Head) -> Answer:
        """Time of each node, from the runtime's own profile."""
        from edgelathe_agent.trace import trace

        self._fed()
        fields, parts = trace(self._engine, Single(self._streams[0]), head["first"], head["calls"])
        return fields, parts

    def close(self, _: Head) -> Answer:
        """Peak memory of the model, the samples collected by `infer` left out where the kernel lets us."""
        self._unfed()
        self._engine.close()
        peaks = self._memory.to_json()
        if self._elsewhere():
            peaks.update(peak_bytes=None, peak_pss_bytes=None)
        return peaks, []

    def _fed(self) -> None:
        if not self._n:
            raise AgentError("request", "the session has no samples", "feed it first")
        self._memory.begin()  # what an `infer` before collected is not the model's

    def _unfed(self) -> None:
        if self._queries is not None:
            self._queries.close()
        for stream in self._streams:
            stream.close()
        self._streams, self._queries, self._asked, self._n = [], None, -1, 0

    def _elsewhere(self) -> bool:
        """Whether the engine's calls run in another process, and cannot be timed from here."""
        from edgelathe_agent.runtimes import Engine

        return type(self._engine).series is not Engine.series

    def _block(self, head: Head) -> Block:
        samples, calls, min_ms, period_ms = (head[k] for k in ("samples", "calls", "min_ms", "period_ms"))
        single = samples <= self._batch
        if self._elsewhere():
            if not single or period_ms:
                what = "a program of the runtime's own times its calls: it knows no pauses and no queries of several"
                raise AgentError("missing", what, "install the runtime's Python module, or time single calls in a row")
            self._streams[0].stage(head["first"])
            start = clock()
            return Block(array.array("q", self._engine.series(calls, min_ms)), 0, clock() - start)
        if self._asked != samples:
            if self._queries is not None:
                self._queries.close()
            self._queries = Single(self._streams[0]) if single else Several(self._streams, samples)
            self._asked = samples
        return block(self._queries, head["first"], calls, min_ms, period_ms)


def _cpu_ns() -> int:
    """Processor time of this process, all threads, and of those that it has run to their end."""
    others = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time_ns() + int((others.ru_utime + others.ru_stime) * 1e9)


def _rows(value: Any, batch: int) -> Any:
    """An output with samples along axis 0: as it is when it is that long, else it is that of the only sample."""
    if value.ndim and value.shape[0] == batch:
        return value
    if batch > 1:
        raise AgentError(
            "model", f"an output of {list(value.shape)} for a batch of {batch}", "export the model with a batch axis"
        )
    return value[None]


def _room(rows: List[Any], count: int) -> List[Any]:
    """Arrays for the outputs of `count` samples, by those of one call."""
    import numpy as np

    size = sum(r.nbytes // len(r) for r in rows) * count
    if size > framing.MAX_PAYLOAD:
        raise AgentError("request", f"outputs of {count} samples take {size} bytes", "ask for fewer at a time")
    return [np.empty((count, *r.shape[1:]), r.dtype) for r in rows]


def main(root: str, stdout: int) -> int:
    """Answer the parent's requests until it closes our stdin."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # ONNX Runtime 1.29 and later reports to its maker unless told not to
    session, inbox = Session(root), bytearray()
    progress.listen(lambda what: _send(stdout, None, ({"event": "progress", "what": what}, [])))
    verbs: Dict[str, Callable[[Head], Answer]] = {
        "describe": session.describe, "open": session.open, "feed": session.feed, "time": session.time,
        "trace": session.trace, "infer": session.infer, "close": session.close,
    }  # fmt: skip
    while True:
        frame = framing.take(inbox)
        if frame is None:
            data = os.read(0, 1 << 16)
            if not data:
                return 0
            inbox += data
            continue
        _send(stdout, frame.head.get("id"), _answer(verbs, frame.head))


def _send(stdout: int, number: Any, answer: Answer) -> None:
    """In a function of its own: what is sent is let go of, or it would count as the model's memory in the next call."""
    fields, body = answer
    parts = [memoryview(b).cast("B") for b in body]
    write_all(stdout, framing.front({"id": number, **fields}, sum(p.nbytes for p in parts)))
    for part in parts:
        write_all(stdout, part)


#: How runtimes word an allocation that failed, in lower case.
_NO_MEMORY = ("bad_alloc", "bad allocation", "out of memory", "failed to allocate memory", "cannot allocate memory")


def _answer(verbs: Dict[str, Callable[[Head], Answer]], head: Head) -> Answer:
    from edgelathe_agent.runtimes import one_line

    try:
        fields, body = verbs[head["do"]](head)
    except AgentError as e:
        error = e
    except ImportError as e:
        error = AgentError("missing", f"{head.get('runtime')} cannot be imported: {e}", "run `edgelathe device doctor`")
    except MemoryError as e:
        error = AgentError("memory", one_line(e))
    except Exception as e:  # the runtimes raise classes of their own
        error = AgentError("model", f"{type(e).__name__}: {one_line(e)}")
    else:
        return {"ok": True, **fields}, body
    if error.kind == "memory" or (error.kind == "model" and any(w in error.what.lower() for w in _NO_MEMORY)):
        mend = "use a smaller model, a smaller batch or fewer samples at a time"
        error = AgentError("memory", f"not enough memory on the device: {error.what}", mend)
    return {"ok": False, "error": error.to_json()}, []
