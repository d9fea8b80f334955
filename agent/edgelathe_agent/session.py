"""In the child: load a model, time calls, infer. Frames as between host and agent, with the agent at the other end."""

from __future__ import annotations

import array
import gc
import os
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from edgelathe_agent import framing
from edgelathe_agent.cas import Store
from edgelathe_agent.jobs import write_all
from edgelathe_agent.memory import reset_peak, status
from edgelathe_agent.protocol import AgentError

Head = Dict[str, Any]
Answer = Tuple[Head, List[Any]]


class Session:
    """One model, loaded once, and the samples fed to it."""

    def __init__(self, root: str) -> None:
        self._store = Store(root)
        self._engine: Any = None
        self._samples: List[Any] = []
        self._batch, self._n, self._staged = 1, 0, [-1]
        self._base: Optional[int] = None
        self._peak = 0

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
        from edgelathe_agent.runtimes import module

        if head["cpus"]:
            os.sched_setaffinity(0, head["cpus"])
        runtime, path = module(head["runtime"]), self._store.find(head["model"])
        version, _ = runtime.describe(head["runtime"])
        gc.collect()
        reset_peak()
        self._base = status("VmRSS")
        start = time.perf_counter_ns()
        self._engine = runtime.load(
            head["runtime"], path, head["provider"], head["threads"], head["config"], self._store.root, head["profile"]
        )
        load_ms = (time.perf_counter_ns() - start) / 1e6
        self._note_peak()
        engine = self._engine
        engine.place()
        gc.collect()
        gc.disable()  # no collection falls into a timed call
        return {
            "version": version, "provider": engine.provider, "load_ms": load_ms, "build_ms": engine.build_ms,
            "inputs": engine.inputs, "outputs": engine.outputs, "warnings": engine.warnings,
        }, []  # fmt: skip

    def feed(self, head: Head) -> Answer:
        """Check the arrays against the model and point the engine at their buffers."""
        from edgelathe_agent.samples import Samples, check

        infos = {i["name"]: i for i in self._engine.inputs}
        if set(infos) != set(head["inputs"]):
            what = "inputs {} fed, the model has {}".format(sorted(head["inputs"]), sorted(infos))
            raise AgentError("model", what, "feed each input of the model by name")
        dims = {name: check(name, infos[name], fed, self._store) for name, fed in head["inputs"].items()}
        counts = {d[0] for d in dims.values()}
        if len(counts) != 1:
            raise AgentError("model", f"inputs of {sorted(counts)} samples", "feed as many of each")
        batched = {name: len(d) == len(infos[name]["shape"]) for name, d in dims.items()}
        fixed = [infos[name]["shape"][0] or 1 for name in dims if batched[name] and infos[name]["shape"]]
        self._batch = max(fixed, default=1)
        for old in self._samples:
            old.close()
        self._samples, self._n = [], 0
        samples = {
            name: Samples(self._store.find(head["inputs"][name]["sha256"]), infos[name]["dtype"], d,
                          self._batch if batched[name] else None)
            for name, d in dims.items()
        }  # fmt: skip
        self._samples, self._staged = list(samples.values()), [-1]
        self._engine.bind({name: s.buffer for name, s in samples.items()}, self._batch)
        self._n = counts.pop()
        return {"samples": self._n, "batch": self._batch}, []

    def time(self, head: Head) -> Answer:
        """Time calls in a row; only the bare call lies between the two readings of the clock."""
        self._fed()
        clock, stage, run, batch, n = time.perf_counter_ns, self._stage, self._engine.run, self._batch, self._n
        calls, first = head["calls"], head["first"]
        most = framing.MAX_PAYLOAD // 8
        times = array.array("q")
        cpu, begun = time.process_time_ns(), clock()
        end = begun + int(head["min_ms"] * 1e6)
        while (len(times) < calls or clock() < end) and len(times) < most:
            stage([(first + r) % n for r in range(batch)])
            start = clock()
            run()
            times.append(clock() - start)
            first += batch
        self._note_peak()
        if sys.byteorder == "big":
            times.byteswap()
        wall_ns = clock() - begun
        return {
            "calls": len(times),
            "cpu_ns": time.process_time_ns() - cpu,
            "wall_ns": wall_ns,
            "late": 0,
            "split": self._engine.split,
        }, [times]

    def infer(self, head: Head) -> Answer:
        """Outputs of samples first to first + count - 1, one after the other."""
        import numpy as np

        self._fed()
        first, count, batch = head["first"], head["count"], self._batch
        if not (first >= 0 and count > 0 and first + count <= self._n):
            raise AgentError("request", f"samples {first} to {first + count - 1} of {self._n}", "ask for those fed")
        outputs: List[Any] = []
        for done in range(0, count, batch):
            # A batch that reaches over the last sample is filled up with copies of it; they are cut off again.
            self._stage([min(first + done + r, self._n - 1) for r in range(batch)])
            rows = [_rows(o, batch) for o in self._engine.fetch(self._engine.run())]
            if not done:
                self._note_peak()  # before what is collected here counts too
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
        fields, parts = trace(self._engine, self._stage, head["first"], head["calls"])
        return fields, parts

    def close(self, _: Head) -> Answer:
        """Peak memory of the model, the samples collected by `infer` left out where the kernel lets us."""
        peak = None if self._base is None else max(0, self._peak - self._base)
        gpu = None if self._engine is None else self._engine.gpu_bytes()
        return {"peak_bytes": peak, "peak_pss_bytes": None, "peak_cgroup_bytes": None, "gpu_bytes": gpu}, []

    def _fed(self) -> None:
        if not self._n:
            raise AgentError("request", "the session has no samples", "feed it first")
        reset_peak()  # what an `infer` before collected is not the model's

    def _stage(self, indices: List[int]) -> None:
        if indices != self._staged:
            for s in self._samples:
                s.load(indices)
            self._engine.stage()
            self._staged = indices

    def _note_peak(self) -> None:
        self._peak = max(self._peak, status("VmHWM") or 0)
        reset_peak()


def _rows(value: Any, batch: int) -> Any:
    """An output with samples along axis 0: as it is when it is that long, else it is that of the only sample."""
    if value.ndim and value.shape[0] == batch:
        return value
    if batch > 1:
        raise AgentError("model", f"an output of {list(value.shape)} for a batch of {batch}", "")
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


def _answer(verbs: Dict[str, Callable[[Head], Answer]], head: Head) -> Answer:
    try:
        fields, body = verbs[head["do"]](head)
    except AgentError as e:
        return {"ok": False, "error": e.to_json()}, []
    except ImportError as e:
        error = AgentError(
            "missing", "{} cannot be imported: {}".format(head.get("runtime"), e), "run `edgelathe device doctor`"
        )
    except MemoryError:
        error = AgentError(
            "memory", "not enough memory on the device", "use a smaller model or fewer samples at a time"
        )
    except Exception as e:  # the runtimes raise classes of their own
        from edgelathe_agent.runtimes import one_line

        error = AgentError("model", f"{type(e).__name__}: {one_line(e)}", "")
    else:
        return {"ok": True, **fields}, body
    return {"ok": False, "error": error.to_json()}, []
