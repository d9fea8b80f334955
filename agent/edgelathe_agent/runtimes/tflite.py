"""TFLite through ai-edge-litert or tflite-runtime, with the kernels that they choose by themselves (XNNPACK)."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from edgelathe_agent.protocol import RUNTIMES, AgentError
from edgelathe_agent.runtimes import PROVIDER, Engine, Entries, choice, entries, one_line, shape

CPU = "CPU"


def describe(runtime: str) -> Tuple[str, List[str]]:
    """Version and providers; importing the interpreter proves that its shared libraries load."""
    _interpreter(runtime)
    version = getattr(importlib.import_module(RUNTIMES[runtime].package), "__version__", None)
    return version or importlib.metadata.version(runtime), [CPU]


def load(
    runtime: str,
    path: str,
    provider: str,
    threads: int,
    config: Dict[str, Any],
    root: str,  # noqa: ARG001
    profile: bool = False,  # noqa: ARG001 - the released interpreters tell no time per operator
) -> Engine:
    """An interpreter with its tensors allocated.

    `config`: `edgelathe.xnnpack=0` leaves out the XNNPACK delegate, `edgelathe.kernels=reference` takes the plain
    kernels, for comparisons. Raises AgentError: "model", "missing" for another provider, "request" for other entries.
    """
    if provider != CPU:
        raise AgentError("missing", f"{runtime} has no provider {provider!r}", f"use {CPU}")
    found = entries(config, runtime, ("xnnpack", "kernels"))
    foreign = [*found.session, *(PROVIDER + name for name in found.provider)]
    if foreign:
        raise AgentError("request", f"{runtime} takes no session entry {min(foreign)!r}", "leave it out")
    return Session(Made(runtime, path, threads, _kernels(runtime, found)))


class Made(NamedTuple):
    """What an interpreter is made from; `kernels`: a value of its OpResolverType."""

    runtime: str
    path: str
    threads: int
    kernels: Any


def _kernels(runtime: str, found: Entries) -> Any:
    kinds = importlib.import_module(RUNTIMES[runtime].package + ".interpreter").OpResolverType
    xnnpack = choice(found, "xnnpack", ("1", "0")) == "1"
    if choice(found, "kernels", ("default", "reference")) == "reference":
        return kinds.BUILTIN_REF  # which has no delegate either
    return kinds.AUTO if xnnpack else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES


class Session(Engine):
    """One interpreter; `run` is its bare `invoke`."""

    def __init__(self, made: Made) -> None:
        self.provider, self.warnings, self._made = CPU, [], made
        try:
            self._interpreter = _interpreter(made.runtime)(
                model_path=made.path, num_threads=made.threads, experimental_op_resolver_type=made.kernels
            )
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as e:
            raise AgentError("model", one_line(e), "check it with `edgelathe inspect`") from None
        self.inputs = [_info(d) for d in self._interpreter.get_input_details()]
        self.outputs = [_info(d) for d in self._interpreter.get_output_details()]
        self.run = self._interpreter.invoke
        self._bound: List[Tuple[int, Any]] = []

    def fork(self) -> Session:
        """Another interpreter on the same file: one is not for several threads."""
        return Session(self._made)

    def bind(self, buffers: Dict[str, Any], batch: int) -> None:  # noqa: ARG002 - it is in the shapes
        """Open axes, the batch among them, take the size of the arrays."""
        details = self._interpreter.get_input_details()
        resized = [d for d in details if tuple(d["shape"]) != buffers[d["name"]].shape]
        try:
            for d in resized:
                self._interpreter.resize_tensor_input(d["index"], buffers[d["name"]].shape, strict=False)
            if resized:
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as e:
            raise AgentError("model", one_line(e), "feed samples of the model's shape") from None
        self._bound = [(d["index"], buffers[d["name"]]) for d in details]

    def stage(self) -> None:
        """Copy the arrays into the interpreter."""
        for index, array in self._bound:
            self._interpreter.set_tensor(index, array)

    def fetch(self, _: Any) -> Sequence[Any]:
        """Copies of the output tensors."""
        return [self._interpreter.get_tensor(d["index"]) for d in self._interpreter.get_output_details()]


def _interpreter(runtime: str) -> Any:
    return importlib.import_module(RUNTIMES[runtime].package + ".interpreter").Interpreter


def _info(detail: Dict[str, Any]) -> Dict[str, Any]:
    dims = detail.get("shape_signature")
    dims = detail["shape"] if dims is None or not len(dims) else dims
    scale, zero_point = detail.get("quantization", (0.0, 0))
    return {
        "name": detail["name"],
        "shape": shape([int(d) for d in dims]),
        "dtype": np.dtype(detail["dtype"]).name,
        "scale": float(scale) if scale else None,
        "zero_point": int(zero_point) if scale else None,
    }
