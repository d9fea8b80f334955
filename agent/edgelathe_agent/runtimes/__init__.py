"""One module a runtime, each with `describe()` and `load(...) -> Engine`; `module(name)` finds it."""

from __future__ import annotations

import abc
import importlib
import importlib.util
from typing import Any, Callable, Dict, List, Sequence

from edgelathe_agent.protocol import RUNTIMES, AgentError


class Engine(abc.ABC):
    """A loaded model that runs one call at a time.

    `inputs` and `outputs`: [{"name", "shape": [int or None], "dtype", "scale", "zero_point"}], in the model's order.
    `provider` ran or will run the nodes; `warnings` say where that is not what was asked for.
    `run` is the bare call that is timed; what it returns goes to `fetch`.
    """

    inputs: List[Dict[str, Any]]
    outputs: List[Dict[str, Any]]
    provider: str
    warnings: List[str]
    run: Callable[[], Any]

    def place(self) -> None:  # noqa: B027  # most runtimes know it from the start
        """Find out which provider runs the nodes, where that is not certain; sets `provider` and `warnings`."""

    @abc.abstractmethod
    def bind(self, buffers: Dict[str, Any]) -> None:
        """From now on a call reads its inputs from these arrays, by input name, batch axis included."""

    @abc.abstractmethod
    def stage(self) -> None:
        """The arrays have new values. Not timed."""

    @abc.abstractmethod
    def fetch(self, result: Any) -> Sequence[Any]:
        """The output arrays of the last call, its own copies, in the model's order."""


def installed(runtime: str) -> bool:
    """Whether the package of a runtime is there; it may still fail to be imported."""
    return importlib.util.find_spec(RUNTIMES[runtime].package) is not None


def module(runtime: str) -> Any:
    """The module for a runtime of the protocol's table, imported with it.

    Raises AgentError("missing") when it is not installed, ImportError when it is and cannot be imported.
    """
    if not installed(runtime):
        raise AgentError("missing", f"{runtime} is not installed on the device", "run `edgelathe device install`")
    return importlib.import_module("edgelathe_agent.runtimes." + MODULES[RUNTIMES[runtime].format])


#: By model format; a new runtime is a row here and one in the protocol's table.
MODULES = {"onnx": "onnxruntime", "tflite": "tflite"}


def one_line(e: BaseException, limit: int = 400) -> str:
    """An exception's text in one line of bounded length."""
    text = " ".join(str(e).split()) or type(e).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def shape(dims: Sequence[Any]) -> List[Any]:
    """Dimensions with None for those that are open, however the runtime writes them (names, -1)."""
    return [int(d) if isinstance(d, int) and d >= 0 else None for d in dims]
