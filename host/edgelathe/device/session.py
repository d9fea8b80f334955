"""A model loaded on a device: fed with samples, timed, asked for outputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.errors import DeviceError
from edgelathe.device.errors import AgentRefusal, ModelFailure

if TYPE_CHECKING:
    from types import TracebackType

    from edgelathe.core.device import SessionOptions
    from edgelathe.device.client import AgentClient

Array = NDArray[np.generic]
Push = Callable[[Array], str]
"""Sends the bytes of an array, C order, little-endian; gives their sha256."""


#: What a model may take to answer, unless the user says otherwise.
CALL_SECONDS = 120.0


@dataclass(frozen=True)
class Limits:
    """What the child that runs a model may take; 0: no limit."""

    memory_bytes: int = 0
    seconds: float = 1800.0  # of loading: an engine may be built, which takes ten minutes for some
    call_seconds: float = CALL_SECONDS  # of a block of calls or samples, beyond the time that it was to take

    def to_json(self) -> dict[str, Any]:
        """The `limits` of the protocol."""
        return asdict(self)


class Named(NamedTuple):
    """A model in the device's store; `beside`: the files that its own names by their hashes."""

    sha256: str
    format: str
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Load:
    """How `samples` are given to a session while it is timed, the fields of the protocol's `time`.

    `samples` of a query (0: one call's), `period_ms` from the start of one query to that of the next (0: at once),
    `meters`: labels of power and energy sensors to read meanwhile.
    """

    samples: int = 0
    period_ms: float = 0.0
    meters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Closed:
    """Peak memory of a session's child in bytes, above what it took before the model was loaded; None: unknown.

    `pss_bytes` leaves out what it shares with other processes; `cgroup_bytes` counts the pages of files that it read.
    """

    peak_bytes: int | None = None
    pss_bytes: int | None = None
    cgroup_bytes: int | None = None
    gpu_bytes: int | None = None


class Timed(NamedTuple):
    """One block of queries: nanoseconds of each, the conditions before and after as the agent saw them, and the rest of
    its answer (`cpu_ns`, `wall_ns`, `late`, `power`, `split`)."""

    ns: NDArray[np.int64]
    conditions: Mapping[str, Any]
    more: Mapping[str, Any] = MappingProxyType({})


SINGLE = Load()
"""One call after the other."""


class Session:
    """A model in a child process of its own on the device. A context manager; closed once, it answers nothing more.

    Attributes:
        provider: the one that really runs its nodes; version: of the runtime.
        load_ms: time that loading took, on the device; build_ms: the part of it that built an engine (None: none is).
        inputs, outputs: as the runtime names them: [{"name", "dtype", "shape"}].
        warnings: what the runtime or the agent remarked.
    """

    def __init__(
        self, client: AgentClient, push: Push, model: Named, options: SessionOptions, limits: Limits,
        *, cold: bool = False, profile: bool = False,
    ) -> None:  # fmt: skip
        self._client, self._push = client, push
        self._again: Callable[[], Session] = lambda: Session(client, push, model, options, limits)
        self._closed = Closed()
        self._fed: Mapping[str, Array] = {}
        answer = client.request(
            "open",
            {"model": model.sha256, "beside": list(model.beside), "format": model.format, "runtime": options.runtime,
             "provider": options.provider, "threads": options.threads, "config": dict(options.config),
             "cpus": list(options.cpus), "cold": cold, "profile": profile, "limits": limits.to_json()},
        ).head  # fmt: skip
        self._id: int | None = answer["session"]
        self.options = options
        self.provider, self.version = str(answer["provider"]), str(answer["version"])
        self.load_ms = float(answer["load_ms"])
        self.build_ms: float | None = answer["build_ms"]
        self.inputs: list[Mapping[str, Any]] = answer["inputs"]
        self.outputs: list[Mapping[str, Any]] = answer["outputs"]
        self.warnings: tuple[str, ...] = tuple(answer["warnings"])

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except DeviceError:
            if error is None:  # else what went wrong first is to be told
                raise

    def feed(self, arrays: Mapping[str, Array], batch: int = 0, streams: int = 1) -> int:
        """Give samples, an array [n, ...] per model input; what is on the device already is not sent. Gives n.

        A call takes `batch` of them (0: one, or the model's fixed batch); up to `streams` calls run at once.
        """
        fields = {
            name: {"sha256": self._push(a), "dtype": a.dtype.name, "shape": list(a.shape)} for name, a in arrays.items()
        }
        samples = int(self._ask("feed", inputs=fields, batch=batch, streams=streams).head["samples"])
        self._fed = arrays
        return samples

    def time(self, calls: int = 1, min_ms: float = 0.0, first: int = 0, load: Load = SINGLE) -> Timed:
        """Queries in a row from sample `first` on, cyclically, until both `calls` and `min_ms` are reached."""
        frame = self._ask(
            "time", first=first, calls=calls, min_ms=min_ms,
            samples=load.samples, period_ms=load.period_ms, meters=list(load.meters),
        )  # fmt: skip
        more = {k: frame.head[k] for k in ("cpu_ns", "wall_ns", "late", "power", "split")}
        return Timed(np.frombuffer(frame.body, "<i8").astype(np.int64), frame.head["conditions"], more)

    def trace(self, calls: int, first: int = 0) -> NDArray[np.int64]:
        """Calls in a row of a session opened with `profile`: nanoseconds of each, the profiler's own time included."""
        return np.frombuffer(self._ask("trace", first=first, calls=calls).body, "<i8").astype(np.int64)

    def traced(self) -> dict[str, Any]:
        """What the runtime recorded of all calls of `trace`, which ends here: the JSON of the protocol's `trace`."""
        found: dict[str, Any] = json.loads(self._ask("trace", first=0, calls=0).body)
        return found

    def infer(self, first: int, count: int) -> list[Array]:
        """An array [count, ...] per output, for `count` samples from `first` on. Raises ValueError for count < 1."""
        if count < 1:
            raise ValueError(f"count is {count}")
        frame = self._ask("infer", first=first, count=count)
        arrays, at = [], 0
        for output in frame.head["outputs"]:
            dtype, shape = np.dtype(str(output["dtype"])), tuple(output["shape"])
            size = dtype.itemsize * int(np.prod(shape))
            part = frame.body[at : at + size]
            if len(part) != size:
                raise DeviceError(self._client.device, f"output {output['name']} came short", "please report this")
            arrays.append(np.frombuffer(part, dtype).reshape(shape))
            at += size
        return arrays

    def close(self) -> Closed:
        """End it; what memory it took. Closed again, it says the same."""
        if self._id is not None:
            session, self._id = self._id, None
            if self._client.usable:  # after a lost or interrupted request the agent ends its children itself
                with suppress(AgentRefusal):  # a child that died over its last request is gone already
                    self._closed = _closed(self._client.request("close", {"session": session}).head)
        return self._closed

    def peak_bytes(self) -> int:
        """Peak memory without closing: that of a second session, which runs one sample (0: unknown)."""
        if self._closed.peak_bytes is None and self._id is not None:
            with self._again() as twin:
                if self._fed:
                    twin.feed(self._fed)
                    twin.infer(0, 1)
                self._closed = twin.close()
        return self._closed.peak_bytes or 0

    def _ask(self, verb: str, **fields: Any) -> Any:
        if self._id is None:
            raise DeviceError(self._client.device, f"{verb} of a closed session", "please report this")
        return self._client.request(verb, {"session": self._id, **fields})


def _closed(head: Mapping[str, Any]) -> Closed:
    return Closed(head["peak_bytes"], head["peak_pss_bytes"], head["peak_cgroup_bytes"], head["gpu_bytes"])


def demand(session: Session, provider: str) -> None:
    """Raises ModelFailure unless `provider` runs the session's nodes."""
    if session.provider != provider:
        raise ModelFailure(
            session._client.device,
            f"{session.provider} runs the model, {provider} is required",
            "install a runtime with it, or leave --require-provider out",
            "provider",
        )
