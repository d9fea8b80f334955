"""TensorRT by its Python module: engines are built, kept and run in this process, buffers are ours.

Sources: NVIDIA, TensorRT Python API of 8.2 to 11; samples/python/common.py and common_runtime.py of both ends.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
from statistics import median
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edgelathe_agent import engines
from edgelathe_agent.protocol import AgentError
from edgelathe_agent.runtimes import Engine, cuda, trt_api, trtexec
from edgelathe_agent.runtimes.tensorrt import PROVIDER, Plans, Shapes

_DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "INT8": "int8", "INT32": "int32", "BOOL": "bool", "UINT8": "uint8",
    "INT64": "int64",
}  # fmt: skip
#: Calls that the parts of one are told from.
_PARTS = 5


class Buffer(NamedTuple):
    """A tensor's memory on the GPU, and beside it in memory that is locked, which is where copies begin and end."""

    name: str
    device: int
    host: int
    array: Any

    @property
    def size(self) -> int:
        """Bytes."""
        return int(self.array.nbytes)


class Session(Engine):
    """One engine, one context, one stream; `run` copies in, computes, copies out and waits."""

    def __init__(self, trt: Any, plans: Plans, profile: bool) -> None:
        self._trt, self._plans = trt, plans
        self._profiler = trt_api.profiler(trt) if profile else None
        self._log = trt_api.log(trt)
        self._runtime = trt.Runtime(self._log)
        self._cuda = _cuda()
        self.provider, self.warnings = PROVIDER, plans.warnings()
        self.inputs, self.outputs = plans.file.inputs, plans.file.outputs
        self._ins: List[Buffer] = []
        self._outs: List[Buffer] = []
        self._copied: List[Tuple[Any, Any]] = []
        self._shapes: Optional[Shapes] = None
        self._engine: Any = None
        self._io: Any = None
        first = plans.first_shapes()
        if first is not None:
            self.build_ms = self._prepare(first)
        self.run = self._call

    def fork(self) -> Session:
        """The same engine with a context, a stream and buffers of its own."""
        other = copy.copy(self)
        other._cuda, other._ins, other._outs = _cuda(), [], []
        if other._engine is not None:
            other._io = trt_api.tensors(other._engine)
        other.run = other._call
        return other

    def bind(self, buffers: Dict[str, Any], batch: int) -> None:  # noqa: ARG002 - it is in the arrays' shapes
        """An engine for these shapes, and memory for all its tensors."""
        shapes = {name: tuple(buffers[name].shape) for name in self._plans.open_inputs()}
        if shapes != self._shapes:
            self.build_ms = (self.build_ms or 0.0) + self._prepare(shapes)
        self._free()
        for name, array in buffers.items():
            self._io.set_shape(name, array.shape)
        self._ins = [self._buffer(i["name"], i["dtype"]) for i in self.inputs]
        self._outs = [self._buffer(o["name"], o["dtype"]) for o in self.outputs]
        self._copied = [(b.array, buffers[b.name]) for b in self._ins]
        self._io.point({b.name: b.device for b in (*self._ins, *self._outs)})

    def stage(self) -> None:
        """The arrays go where a copy to the GPU begins."""
        for to, source in self._copied:
            np.copyto(to, source)

    def fetch(self, _: Any) -> Sequence[Any]:
        """Copies of what came back."""
        return [b.array.copy() for b in self._outs]

    @property
    def split(self) -> Optional[Dict[str, int]]:
        """Of a few more calls, with marks in the stream between the parts."""
        if not self._outs:
            return None
        marks = [self._cuda.event() for _ in range(4)]
        rows = []
        for _ in range(_PARTS):
            self._marked_call(marks)
            rows.append([self._cuda.between_ns(a, b) for a, b in zip(marks, marks[1:])])
        names = ("copy_in_ns", "compute_ns", "copy_out_ns")
        return {name: int(median(values)) for name, values in zip(names, zip(*rows))}

    def gpu_bytes(self) -> Optional[int]:
        """What this process holds on the GPU."""
        return cuda.own_memory()

    def profile(self) -> Iterable[Dict[str, Any]]:
        """The time of each layer in each call; a layer is what TensorRT made of the nodes, named after them."""
        if self._profiler is None:
            return super().profile()
        return trt_api.events(self._profiler.layers, trtexec.operators(self._information()))

    def close(self) -> None:
        """The memory is given back."""
        self._free()

    def _call(self) -> None:
        self._in()
        self._io.launch(self._cuda.stream)
        self._out()
        self._cuda.wait()

    def _marked_call(self, marks: Sequence[Any]) -> None:
        """The same with marks before, between and after the parts."""
        gpu = self._cuda
        gpu.mark(marks[0])
        self._in()
        gpu.mark(marks[1])
        self._io.launch(gpu.stream)
        gpu.mark(marks[2])
        self._out()
        gpu.mark(marks[3])
        gpu.wait()

    def _in(self) -> None:
        for b in self._ins:
            self._cuda.copy_in(b.device, b.host, b.size)

    def _out(self) -> None:
        for b in self._outs:
            self._cuda.copy_out(b.device, b.host, b.size)

    def _prepare(self, shapes: Shapes) -> float:
        def build(plan: str, timing: str) -> None:
            data = self._build(shapes, timing)
            engines.write(plan, data)

        plan, took = self._plans.get(shapes, build)
        with open(plan, "rb") as f:
            self._engine = self._runtime.deserialize_cuda_engine(f.read())
        if self._engine is None:
            raise AgentError("model", self._log.last("the engine cannot be loaded"), "remove it from ROOT/engines")
        self._io, self._shapes = trt_api.tensors(self._engine), shapes
        if self._profiler is not None:
            self._io.context.profiler = self._profiler
        kinds = {name: _DTYPES.get(kind, kind) for name, kind in self._io.kinds.items()}
        self.inputs, self.outputs = (
            [{**i, "dtype": kinds.get(i["name"], i["dtype"])} for i in infos] for infos in (self.inputs, self.outputs)
        )
        return took

    def _build(self, shapes: Shapes, timing: str) -> bytes:
        trt = self._trt
        builder = trt.Builder(self._log)
        # Named in all versions until 9; from 10 on every network has an explicit batch.
        explicit = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
        network = builder.create_network(0 if explicit is None else 1 << int(explicit))
        parser = trt.OnnxParser(network, self._log)
        if not parser.parse_from_file(self._plans.model):
            said = parser.get_error(0).desc() if parser.num_errors else "no reason"
            raise AgentError("model", f"TensorRT cannot read the model: {said}"[:400], "use ONNX Runtime")
        config = builder.create_builder_config()
        names = {"fp16": "FP16", "int8": "INT8", "sparsity": "SPARSE_WEIGHTS"}
        for option, on in self._plans.flags._asdict().items():
            flag = getattr(trt.BuilderFlag, names[option], None)  # FP16 and INT8 are gone in 11
            if on and flag is not None:
                config.set_flag(flag)
        if self._profiler is not None:
            config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if shapes:
            profile = builder.create_optimization_profile()
            for name, dims in shapes.items():
                profile.set_shape(name, dims, dims, dims)
            config.add_optimization_profile(profile)
        cache = config.create_timing_cache(_bytes(timing))
        config.set_timing_cache(cache, False)
        data = builder.build_serialized_network(network, config)
        if data is None:
            raise AgentError("model", self._log.last("TensorRT cannot build the engine"), "use ONNX Runtime")
        with contextlib.suppress(OSError):  # it only saves time
            engines.write(timing, bytes(config.get_timing_cache().serialize()))
        return bytes(data)

    def _buffer(self, name: str, dtype: str) -> Buffer:
        array = np.dtype(dtype)
        shape = self._io.shape(name)
        size = array.itemsize * int(np.prod(shape))
        host = self._cuda.host(size)
        memory: Any = (ctypes.c_char * max(1, size)).from_address(host)
        values = np.frombuffer(memory, array, size // array.itemsize).reshape(shape)
        return Buffer(name, self._cuda.device(size), host, values)

    def _free(self) -> None:
        for b in (*self._ins, *self._outs):
            self._cuda.free(b.device, b.host)
        self._ins, self._outs, self._copied = [], [], []

    def _information(self) -> str:
        inspector = getattr(self._engine, "create_engine_inspector", None)
        if inspector is None:  # before 8.2
            return "{}"
        return str(inspector().get_engine_information(self._trt.LayerInformationFormat.JSON))


def _cuda() -> cuda.Cuda:
    try:
        return cuda.Cuda()
    except RuntimeError as e:
        raise AgentError("missing", str(e), "install the CUDA runtime, or use trtexec") from None


def _bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as f:
            return f.read()
    except OSError:
        return b""
