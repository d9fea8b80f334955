"""A device whose sessions run on a made-up clock, for benches that take no time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import edgelathe
from edgelathe.core.device import SessionOptions
from edgelathe.device.errors import ModelFailure
from edgelathe.device.session import SINGLE, Load, Timed
from edgelathe.model import io
from edgelathe.model.types import Model

from .documents import PROBE

BUNDLED = Path(edgelathe.__file__).parent / "bundled"
OPTIONS = SessionOptions("onnxruntime", "CPUExecutionProvider")
DIGITS = io.load(BUNDLED / "digits.onnx")


def models(n: int) -> list[tuple[str, Model]]:
    return [(f"{'abc'[i]}.onnx", DIGITS) for i in range(n)]


class Machine:
    """The clock that all sessions share, and what the device says of itself."""

    def __init__(self, seed: int = 0) -> None:
        self.ns, self.rng = 0, np.random.default_rng(seed)
        self.busy_s = 0.0
        self.others = 0.0  # share of all CPUs that other processes take
        self.throttled: bool | None = False
        self.celsius = 50.0

    def pass_(self, ns: int, own_ns: int = 0) -> None:
        self.ns += ns
        self.busy_s += own_ns / 1e9 + self.others * PROBE.cores * ns / 1e9

    def sense(self) -> dict[str, Any]:
        total = PROBE.cores * self.ns / 1e9
        return {
            "clocks_khz": {"0": 1_800_000}, "governors": {"0": "performance"},
            "temperatures_c": {"cpu": self.celsius}, "throttled": self.throttled, "throttle_why": [],
            "cpu_s": {"busy": self.busy_s, "idle": total - self.busy_s, "steal": 0.0},
            "time_ns": {"wall": self.ns, "monotonic": self.ns, "boot": self.ns}, "load1": 0.1,
        }  # fmt: skip


class FakeSession:
    """Call i takes `call(i)` ns."""

    version, load_ms, build_ms, warnings = "1.0", 3.0, None, ()
    provider = "CPUExecutionProvider"
    outputs: tuple[dict[str, Any], ...] = ({"name": "y", "dtype": "float32", "shape": [1, 3]},)
    answer = np.ones((1, 3), np.float32)

    def __init__(self, machine: Machine, call: Callable[[int], float]) -> None:
        self.machine, self.call, self.calls, self.batch, self.streams = machine, call, 0, 0, 1
        self.closed = False
        self.asked: list[tuple[int, Load]] = []

    def __enter__(self) -> FakeSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def feed(self, arrays: Any, batch: int = 0, streams: int = 1) -> int:
        self.batch, self.streams = batch, streams
        return 4

    def infer(self, first: int, count: int) -> list[Any]:
        return [self.answer]

    def time(self, calls: int = 1, min_ms: float = 0.0, first: int = 0, load: Load = SINGLE) -> Timed:
        m, begun, before, out = self.machine, self.machine.ns, self.machine.sense(), []
        own = 0
        self.asked.append((first, load))
        times = max(1, load.samples // max(1, self.batch) // self.streams)
        while len(out) < calls or m.ns - begun < min_ms * 1e6:
            ns = int(sum(self.call(self.calls + k) for k in range(times)))
            self.calls += times
            out.append(ns)
            own += ns
            m.pass_(max(ns, int(load.period_ms * 1e6)), ns)
        conditions = {"before": before, "after": m.sense(), "throttled": m.throttled}
        more = {"cpu_ns": own, "wall_ns": m.ns - begun, "late": 0, "power": None, "split": None}
        return Timed(np.array(out, np.int64), conditions, more)


class FakeDevice:
    """`calls[i]` says how long the calls of the i-th session take: a function of the call's number, or a failure."""

    name = "fake"

    def __init__(self, *calls: Callable[[int], float] | ModelFailure, emulated: bool = False) -> None:
        self.machine, self._calls = Machine(), calls
        self.probe = replace(PROBE, emulated=emulated)
        self.sessions: list[FakeSession] = []

    def sense(self) -> dict[str, Any]:
        return self.machine.sense()

    def open_session(self, model: Model, options: SessionOptions, **_: Any) -> FakeSession:
        call = self._calls[len(self.sessions) % len(self._calls)]
        self.sessions.append(FakeSession(self.machine, call if callable(call) else lambda i: 0))
        if not callable(call):
            raise call
        return self.sessions[-1]

    def noisy(self, ms: float, share: float = 0.01) -> Callable[[int], float]:
        """Calls of about so many ms."""
        return lambda i: ms * 1e6 * (1 + share * abs(self.machine.rng.normal()))
