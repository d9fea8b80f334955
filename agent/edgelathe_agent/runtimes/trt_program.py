"""An engine that `trtexec` runs: a process a block of calls, and one a call for answers, with files in between."""

from __future__ import annotations

import os
import tempfile
from statistics import median
from typing import Any, Dict, Iterable, List, Optional, Sequence

import numpy as np

from edgelathe_agent.protocol import AgentError
from edgelathe_agent.runtimes import Engine, trt_api, trtexec
from edgelathe_agent.runtimes.tensorrt import PROVIDER, Plans, Shapes, run

#: Most calls of a block: a trace of them is read as text.
_MOST = 200_000


class Program(Engine):
    """Answers are right to six digits: the program writes them as text.

    Times are of `series` alone, as the program took them; its `run` is a whole process and serves answers.
    """

    def __init__(self, program: str, plans: Plans) -> None:
        self._program, self._plans = program, plans
        self.provider, self.warnings = PROVIDER, [*plans.warnings(), "trtexec runs the model and takes its times"]
        self.inputs, self.outputs = plans.file.inputs, plans.file.outputs
        tmp = os.path.join(plans.root, "tmp")
        os.makedirs(tmp, mode=0o700, exist_ok=True)
        self._folder = tempfile.TemporaryDirectory(prefix="trtexec-", dir=tmp)
        self._buffers: Dict[str, Any] = {}
        self._files = {i["name"]: f"input{n}" for n, i in enumerate(self.inputs)}
        self._shapes: Optional[Shapes] = None
        self._plan = ""
        self._split: Optional[Dict[str, int]] = None
        self._usual_ns = 0.0
        first = plans.first_shapes()
        if first is not None:
            self.build_ms = self._build(first)
        self.run = self._answer

    def fork(self) -> Engine:
        """It runs one stream only."""
        raise AgentError("request", "trtexec runs one call at a time here", "use TensorRT's Python module for streams")

    def bind(self, buffers: Dict[str, Any], batch: int) -> None:  # noqa: ARG002 - it is in the arrays' shapes
        """An engine for these shapes."""
        shapes = {name: buffers[name].shape for name in self._plans.open_inputs()}
        if shapes != self._shapes:
            self.build_ms = (self.build_ms or 0.0) + self._build(shapes)
        self._buffers, self._usual_ns = buffers, 0.0

    def stage(self) -> None:
        """Write the arrays to the files that the program reads."""
        for name, array in self._buffers.items():
            array.tofile(self._at(self._files[name]))

    def fetch(self, result: Any) -> Sequence[Any]:
        """The arrays that the program wrote."""
        return list(result)

    @property
    def split(self) -> Optional[Dict[str, int]]:
        """Medians of the latest block."""
        return self._split

    def series(self, calls: int, min_ms: float) -> List[int]:
        """Calls in one process, after a warm-up in it: at least as many, and as many as should take `min_ms`."""
        self._sure()
        if not self._usual_ns and min_ms:
            self._usual_ns = median(self._times(max(10, calls)).latency)
        wanted = max(calls, int(min_ms * 1e6 / self._usual_ns) + 1 if self._usual_ns else 0)
        times = self._times(min(wanted, _MOST))
        self._usual_ns = median(times.latency)
        parts = {"copy_in_ns": times.copy_in, "compute_ns": times.compute, "copy_out_ns": times.copy_out}
        self._split = {name: int(median(values)) for name, values in parts.items()}
        return times.latency

    def profile(self) -> Iterable[Dict[str, Any]]:
        """Average time of each layer over a hundred calls of its own; a layer is what TensorRT made of the nodes."""
        self._sure()
        files = ("profile.json", "layers.json")
        self._call(trtexec.profile(self._program, self._plan, self._shapes or {}, self._files, 100, files))
        layers = {name: [ns] for name, ns in trtexec.layers(self._read(files[0])).items()}
        return trt_api.events(layers, trtexec.operators(self._read(files[1])))

    def close(self) -> None:
        """Its files go."""
        self._folder.cleanup()

    def _build(self, shapes: Shapes) -> float:
        def build(plan: str, timing: str) -> None:
            made = plan + ".made"  # what breaks off is not taken for an engine
            plans = self._plans
            self._call(trtexec.build(self._program, plans.model, made, timing, shapes, plans.flags, plans.version))
            os.replace(made, plan)

        self._plan, took = self._plans.get(shapes, build)
        self._shapes = shapes
        return took

    def _answer(self) -> List[Any]:
        self._sure()
        self._call(trtexec.infer(self._program, self._plan, self._shapes or {}, self._files, "outputs.json"))
        found = trtexec.outputs(self._read("outputs.json"))
        missing = [o["name"] for o in self.outputs if o["name"] not in found]
        if missing:
            raise AgentError("model", f"trtexec gave no output {missing[0]!r}", "")
        return [np.array(found[o["name"]][1], o["dtype"]).reshape(found[o["name"]][0]) for o in self.outputs]

    def _times(self, calls: int) -> trtexec.Timing:
        self._call(trtexec.time(self._program, self._plan, self._shapes or {}, self._files, calls, "times.json"))
        found = trtexec.timing(self._read("times.json"))
        if not found.latency:
            raise AgentError("model", "trtexec told the time of no call", "")
        return found

    def _sure(self) -> None:
        """The input files are there: timing may come before the first samples are staged."""
        if self._buffers and not os.path.exists(self._at("input0")):
            self.stage()

    def _call(self, command: List[str]) -> None:
        run(command, self._folder.name)

    def _read(self, name: str) -> str:
        with open(self._at(name), encoding="utf-8", errors="replace") as f:
            return f.read()

    def _at(self, name: str) -> str:
        return os.path.join(self._folder.name, name)
