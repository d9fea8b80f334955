"""In the child: load a model, time calls, infer. The same frames as above, with the parent at the other end.

Samples are read from the store straight into the buffers that the runtime reads, between calls and outside of the time
taken. They are read, not mapped: pages of a mapped data set would count as the model's memory.
"""

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
from edgelathe_agent.protocol import AgentError

Head = Dict[str, Any]
Answer = Tuple[Head, List[Any]]


class Samples:
    """One input's array [n, ...] in the store, and `buffer`, what a call takes of it: [batch, ...], or one sample whole
    where the model's input has no batch axis."""

    def __init__(self, path: str, dtype: Any, dims: List[int], rows: Optional[int]) -> None:
        import numpy as np

        self.n, each = dims[0], tuple(dims[1:])
        self.buffer = np.zeros(each if rows is None else (rows, *each), dtype)
        self._bytes = self.buffer.nbytes // (rows or 1)
        flat = self.buffer.reshape(-1).view(np.uint8)
        self._rows = [flat[r * self._bytes : (r + 1) * self._bytes].data for r in range(rows or 1)]
        self._fd = os.open(path, os.O_RDONLY)

    def load(self, indices: List[int]) -> None:
        """Fill the buffer with these samples."""
        for row, i in zip(self._rows, indices):
            if os.preadv(self._fd, [row], i * self._bytes) != self._bytes:
                raise AgentError("corrupt", "a fed file became shorter", "send it again")

    def close(self) -> None:
        """The file is not read any more."""
        os.close(self._fd)


class Session:
    """One model, loaded once, and the samples fed to it."""

    def __init__(self, root: str) -> None:
        self._store = Store(root)
        self._engine: Any = None
        self._samples: List[Samples] = []
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

        runtime, path = module(head["runtime"]), self._store.find(head["model"])
        version, _ = runtime.describe(head["runtime"])
        gc.collect()
        _reset_peak()
        self._base = _status("VmRSS")
        start = time.perf_counter_ns()
        self._engine = runtime.load(head["runtime"], path, head["provider"], head["threads"], head["config"])
        load_ms = (time.perf_counter_ns() - start) / 1e6
        self._note_peak()
        engine = self._engine
        place = getattr(engine, "place", None)
        if place is not None:
            place()
        gc.collect()
        gc.disable()  # no collection falls into a timed call
        return {
            "version": version, "provider": engine.provider, "load_ms": load_ms, "inputs": engine.inputs,
            "outputs": engine.outputs, "warnings": engine.warnings,
        }, []  # fmt: skip

    def feed(self, head: Head) -> Answer:
        """Check the arrays against the model and point the engine at their buffers."""
        infos = {i["name"]: i for i in self._engine.inputs}
        if set(infos) != set(head["inputs"]):
            what = "inputs {} fed, the model has {}".format(sorted(head["inputs"]), sorted(infos))
            raise AgentError("model", what, "feed each input of the model by name")
        dims = {name: _check(name, infos[name], fed, self._store) for name, fed in head["inputs"].items()}
        counts = {d[0] for d in dims.values()}
        if len(counts) != 1:
            raise AgentError("model", f"inputs of {sorted(counts)} samples", "feed as many of each")
        batched = {name: len(d) == len(infos[name]["shape"]) for name, d in dims.items()}
        fixed = [infos[name]["shape"][0] or 1 for name in dims if batched[name] and infos[name]["shape"]]
        self._batch = max(fixed, default=1)
        for old in self._samples:
            old.close()
        samples = {
            name: Samples(self._store.find(head["inputs"][name]["sha256"]), infos[name]["dtype"], d,
                          self._batch if batched[name] else None)
            for name, d in dims.items()
        }  # fmt: skip
        self._samples, self._n, self._staged = list(samples.values()), counts.pop(), [-1]
        self._engine.bind({name: s.buffer for name, s in samples.items()})
        return {"samples": self._n}, []

    def time(self, head: Head) -> Answer:
        """Time calls in a row; only the bare call lies between the two readings of the clock."""
        self._fed()
        clock, stage, run, batch, n = time.perf_counter_ns, self._stage, self._engine.run, self._batch, self._n
        calls, first = head["calls"], head["first"]
        most = framing.MAX_PAYLOAD // 8
        times = array.array("q")
        end = clock() + int(head["min_ms"] * 1e6)
        while (len(times) < calls or clock() < end) and len(times) < most:
            stage([(first + r) % n for r in range(batch)])
            start = clock()
            run()
            times.append(clock() - start)
            first += batch
        self._note_peak()
        if sys.byteorder == "big":
            times.byteswap()
        return {"calls": len(times)}, [times]

    def infer(self, head: Head) -> Answer:
        """Outputs of samples first to first + count - 1, one after the other."""
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
                outputs = [_room(r, count) for r in rows]
            for info, out, r in zip(self._engine.outputs, outputs, rows):
                if out.shape[1:] != r.shape[1:]:
                    what = "output {} is {}, then {}".format(info["name"], list(out.shape[1:]), list(r.shape[1:]))
                    raise AgentError("model", what, "outputs must have one shape for all samples")
                out[done : done + batch] = r[: count - done]
        infos = [
            {"name": i["name"], "dtype": o.dtype.name, "shape": list(o.shape)}
            for i, o in zip(self._engine.outputs, outputs)
        ]
        return {"outputs": infos}, outputs

    def close(self, _: Head) -> Answer:
        """Peak memory of the model, the samples collected by `infer` left out where the kernel lets us."""
        return {"peak_bytes": None if self._base is None else max(0, self._peak - self._base)}, []

    def _fed(self) -> None:
        if not self._n:
            raise AgentError("request", "the session has no samples", "feed it first")
        _reset_peak()  # what an `infer` before collected is not the model's

    def _stage(self, indices: List[int]) -> None:
        if indices != self._staged:
            for s in self._samples:
                s.load(indices)
            self._engine.stage()
            self._staged = indices

    def _note_peak(self) -> None:
        self._peak = max(self._peak, _status("VmHWM") or 0)
        _reset_peak()


def _check(name: str, info: Head, fed: Any, store: Store) -> List[int]:
    """The dimensions of a fed array that fits the input and its file. Raises AgentError."""
    import numpy as np

    dims = fed.get("shape") if isinstance(fed, dict) else None
    if not isinstance(dims, list) or not dims or not all(isinstance(d, int) and d > 0 for d in dims):
        raise AgentError("request", f"input {name}: shape {dims!r}", "a list of numbers above 0, samples first")
    if fed.get("dtype") != info["dtype"]:
        raise AgentError("model", "input {} takes {}, not {}".format(name, info["dtype"], fed.get("dtype")), "cast it")
    wanted = info["shape"]
    each = wanted if len(dims) == len(wanted) + 1 else wanted[1:]
    if len(dims) != len(each) + 1 or any(w is not None and w != d for w, d in zip(each, dims[1:])):
        raise AgentError("model", f"input {name} takes samples of {each}, not {dims[1:]}", "reshape the data")
    size, there = np.dtype(info["dtype"]).itemsize, os.path.getsize(store.find(fed.get("sha256")))
    for d in dims:
        size *= d
    if size != there:
        raise AgentError("request", f"input {name}: {size} bytes of {dims}, the file has {there}", "")
    return dims


def _rows(value: Any, batch: int) -> Any:
    """An output with samples along axis 0: as it is when it is that long, else it is that of the only sample."""
    if value.ndim and value.shape[0] == batch:
        return value
    if batch > 1:
        raise AgentError("model", f"an output of {list(value.shape)} for a batch of {batch}", "")
    return value[None]


def _room(rows: Any, count: int) -> Any:
    import numpy as np

    size = rows.nbytes // max(len(rows), 1) * count
    if size > framing.MAX_PAYLOAD:
        raise AgentError("request", f"outputs of {count} samples take {size} bytes", "ask for fewer at a time")
    return np.empty((count, *rows.shape[1:]), rows.dtype)


def _status(field: str) -> Optional[int]:
    """Bytes of a field of /proc/self/status; None where there is none."""
    try:
        with open("/proc/self/status") as f:
            for line in f:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _reset_peak() -> None:
    """Let VmHWM start again from here (Linux, proc(5): clear_refs). Where it cannot, peaks include imports."""
    try:
        fd = os.open("/proc/self/clear_refs", os.O_WRONLY)
    except OSError:
        return
    try:
        os.write(fd, b"5")
    except OSError:
        pass
    finally:
        os.close(fd)


def main(root: str, stdout: int) -> int:
    """Answer the parent's requests until it closes our stdin."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # ONNX Runtime 1.29 and later reports to its maker unless told not to
    session, inbox = Session(root), bytearray()
    verbs: Dict[str, Callable[[Head], Answer]] = {
        "describe": session.describe, "open": session.open, "feed": session.feed, "time": session.time,
        "infer": session.infer, "close": session.close,
    }  # fmt: skip
    while True:
        frame = framing.take(inbox)
        if frame is None:
            data = os.read(0, 1 << 16)
            if not data:
                return 0
            inbox += data
            continue
        fields, body = _answer(verbs, frame.head)
        parts = [memoryview(b).cast("B") for b in body if len(b)]
        write_all(stdout, framing.front({"id": frame.head.get("id"), **fields}, sum(p.nbytes for p in parts)))
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
