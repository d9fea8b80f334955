"""What differs between TensorRT's releases: tensors by number (8.2) or by name (8.5 to 11); its logger and profiler."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping, Sequence, Tuple

from edgelathe_agent.protocol import AgentError


class Named:
    """Tensors of TensorRT 8.5 and later."""

    def __init__(self, engine: Any) -> None:
        self.context = engine.create_execution_context()
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        self.kinds = {n: engine.get_tensor_dtype(n).name for n in names}

    def set_shape(self, name: str, dims: Sequence[int]) -> None:
        """Of an input."""
        self.context.set_input_shape(name, tuple(dims))

    def shape(self, name: str) -> Tuple[int, ...]:
        """Of any tensor, once those of all inputs are set."""
        return tuple(self.context.get_tensor_shape(name))

    def point(self, addresses: Dict[str, int]) -> None:
        """Where the tensors are."""
        for name, address in addresses.items():
            self.context.set_tensor_address(name, address)

    def launch(self, stream: int) -> None:
        """Start a call."""
        if not self.context.execute_async_v3(stream):
            raise AgentError("model", "TensorRT did not start the call", "")


class Numbered:
    """Bindings of TensorRT before 8.5."""

    def __init__(self, engine: Any) -> None:
        self.context = engine.create_execution_context()
        self._numbers = {engine.get_binding_name(i): i for i in range(engine.num_bindings)}
        self.kinds = {n: engine.get_binding_dtype(i).name for n, i in self._numbers.items()}
        self._addresses: List[int] = []

    def set_shape(self, name: str, dims: Sequence[int]) -> None:
        """Of an input."""
        self.context.set_binding_shape(self._numbers[name], tuple(dims))

    def shape(self, name: str) -> Tuple[int, ...]:
        """Of any tensor, once those of all inputs are set."""
        return tuple(self.context.get_binding_shape(self._numbers[name]))

    def point(self, addresses: Dict[str, int]) -> None:
        """Where the tensors are."""
        self._addresses = [addresses[name] for name in sorted(self._numbers, key=self._numbers.__getitem__)]

    def launch(self, stream: int) -> None:
        """Start a call."""
        if not self.context.execute_async_v2(self._addresses, stream):
            raise AgentError("model", "TensorRT did not start the call", "")


def tensors(engine: Any) -> Any:
    """A context of the engine, by the interface that this version has."""
    return Named(engine) if hasattr(engine, "num_io_tensors") else Numbered(engine)


def log(trt: Any) -> Any:
    """A logger for its objects, whose `last(otherwise)` is the last error."""

    class Log(trt.ILogger):  # type: ignore[misc]
        """Keeps the last error: a failed build returns nothing and says why here."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._said = ""

        def log(self, severity: Any, words: str) -> None:
            """Called by TensorRT."""
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self._said = words

        def last(self, otherwise: str) -> str:
            """In one line."""
            return " ".join(self._said.split())[:400] or otherwise

    return Log()


def profiler(trt: Any) -> Any:
    """A profiler for a context, whose `layers` are filled while it runs."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        """Nanoseconds of each layer by call, in the order that they ran."""

        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.layers: Dict[str, List[int]] = {}

        def report_layer_time(self, name: str, ms: float) -> None:
            """Called by TensorRT after a call, for each layer."""
            self.layers.setdefault(name, []).append(int(ms * 1e6))

    return Profiler()


def events(layers: Mapping[str, Sequence[int]], ops: Mapping[str, str]) -> Iterator[Dict[str, Any]]:
    """Layer times in ns as `trace.by_node` reads them: in microseconds, one layer after the other."""
    at = 0.0
    for number in range(min(map(len, layers.values()), default=0)):
        took = sum(ns[number] for ns in layers.values()) / 1e3
        yield {"ph": "X", "name": "model_run", "ts": at, "dur": took}
        for name, ns in layers.items():
            args = {"op_name": ops.get(name, ""), "provider": "TensorRT"}
            dur = ns[number] / 1e3
            yield {"ph": "X", "cat": "Node", "name": name + "_kernel_time", "ts": at, "dur": dur, "args": args}
            at += dur
        at += 1.0
