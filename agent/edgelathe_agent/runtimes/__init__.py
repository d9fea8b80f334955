"""One module a runtime, each with `describe(name)` and `load(...) -> Engine`; `module(name)` finds it.

`load(name, path, provider, threads, config, root, profile)`: `config` holds the runtime's own session entries, those of
its provider as `provider.NAME` and ours as `edgelathe.NAME`; `root` is the agent's folder; `profile` asks for an engine
whose calls can be traced.
"""

from __future__ import annotations

import abc
import importlib
import importlib.util
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from edgelathe_agent import programs
from edgelathe_agent.protocol import RUNTIMES, AgentError

#: Entries of a session's `config` that are for the execution provider, and those that are for the agent.
PROVIDER, OURS = "provider.", "edgelathe."


class Engine(abc.ABC):
    """A loaded model that runs one call at a time.

    `inputs` and `outputs`: [{"name", "shape": [int or None], "dtype", "scale", "zero_point"}], in the model's order.
    `provider` ran or will run the nodes; `warnings` say where that is not what was asked for.
    `build_ms`: the part of loading that built an engine for this machine; None where none is built, 0 where one that
    was built before is used.
    `run` is the bare call that is timed, copies to and from a GPU in it; what it returns goes to `fetch`.
    """

    inputs: List[Dict[str, Any]]
    outputs: List[Dict[str, Any]]
    provider: str
    warnings: List[str]
    run: Callable[[], Any]
    build_ms: Optional[float] = None

    def place(self) -> None:  # noqa: B027  # most runtimes know it from the start
        """Find out which provider runs the nodes, where that is not certain; sets `provider` and `warnings`."""

    @abc.abstractmethod
    def fork(self) -> Engine:
        """Another engine on the same loaded model with buffers of its own, so that both may run at once."""

    @abc.abstractmethod
    def bind(self, buffers: Dict[str, Any], batch: int) -> None:
        """From now on a call reads its inputs from these arrays by name, `batch` samples with their axis."""

    @abc.abstractmethod
    def stage(self) -> None:
        """The arrays have new values. Not timed."""

    @abc.abstractmethod
    def fetch(self, result: Any) -> Sequence[Any]:
        """The output arrays of the last call, its own copies, in the model's order."""

    @property
    def split(self) -> Optional[Dict[str, int]]:
        """{"copy_in_ns", "compute_ns", "copy_out_ns"} of a call on a GPU, the medians of the latest ones."""
        return None

    def series(self, calls: int, min_ms: float) -> Optional[List[int]]:  # noqa: ARG002
        """Nanoseconds of calls in a row, from an engine whose calls cannot be timed from here; None: time `run`."""
        return None

    def gpu_bytes(self) -> Optional[int]:
        """GPU memory that this process holds; None: no GPU, or the driver does not tell."""
        return None

    def profile(self) -> Iterable[Dict[str, Any]]:
        """The events that the runtime recorded of all calls; it records no more. See `edgelathe_agent.trace`.

        Of an engine loaded with `profile`. Raises AgentError("missing") where the runtime cannot tell.
        """
        raise AgentError("missing", "this runtime tells no time per node", "trace the model with another runtime")

    def close(self) -> None:  # noqa: B027  # most engines end with their process
        """Files and device memory of its own go."""


class Entries(NamedTuple):
    """A session's `config` by whom its entries are for, their prefixes cut off."""

    session: Dict[str, str]
    provider: Dict[str, str]
    ours: Dict[str, str]


def entries(config: Dict[str, Any], runtime: str, ours: Sequence[str]) -> Entries:
    """Sort the entries of `config`. Raises AgentError("request") for one of ours that is not among `ours`."""
    out = Entries({}, {}, {})
    for key, value in config.items():
        if key.startswith(PROVIDER):
            out.provider[key[len(PROVIDER) :]] = str(value)
        elif key.startswith(OURS):
            name = key[len(OURS) :]
            if name not in ours:
                there = ", ".join(OURS + n for n in ours)
                raise AgentError(
                    "request", f"{runtime} knows no entry {key!r}", f"one of {there}" if ours else "leave it out"
                )
            out.ours[name] = str(value)
        else:
            out.session[key] = str(value)
    return out


def choice(found: Entries, name: str, values: Tuple[str, ...]) -> str:
    """The value of one of our entries, the first of `values` where it is not given. Raises AgentError("request")."""
    value = found.ours.get(name, values[0])
    if value not in values:
        raise AgentError("request", f"{OURS}{name} is {value!r}", "one of " + ", ".join(values))
    return value


def installed(runtime: str) -> bool:
    """Whether the package of a runtime is there, or the program that stands in for it; either may still fail."""
    row = RUNTIMES[runtime]
    if importlib.util.find_spec(row.package) is not None:
        return True
    return bool(row.program and (programs.find(row.program) or programs.packages(row.package)))


def module(runtime: str) -> Any:
    """The module for a runtime of the protocol's table, imported with it.

    Raises AgentError("missing") when it is not installed, ImportError when it is and cannot be imported.
    """
    if not installed(runtime):
        raise AgentError("missing", f"{runtime} is not installed on the device", "run `edgelathe device install`")
    return importlib.import_module("edgelathe_agent.runtimes." + MODULES[runtime])


#: A new runtime is a row here and one in the protocol's table.
MODULES = {"onnxruntime": "onnxruntime", "ai-edge-litert": "tflite", "tflite-runtime": "tflite", "tensorrt": "tensorrt"}


def one_line(e: BaseException, limit: int = 400) -> str:
    """An exception's text in one line of bounded length."""
    text = " ".join(str(e).split()) or type(e).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def shape(dims: Sequence[Any]) -> List[Any]:
    """Dimensions with None for those that are open, however the runtime writes them (names, -1)."""
    return [int(d) if isinstance(d, int) and d >= 0 else None for d in dims]
