"""What a model costs before and besides its calls: loading, the first inference and memory, in fresh processes."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.claim import Claim
from edgelathe.core.device import SessionOptions
from edgelathe.device.open import Device
from edgelathe.device.session import Closed
from edgelathe.model.types import Model
from edgelathe.stats import quantile

#: Fresh processes behind a claim: the smallest one-sided 95% bound on a median needs 5.
FRESH = 7

Tick = Callable[[str, float], None]


class Start(NamedTuple):
    """One fresh process. load_ms: without building; first_ms: of the first inference; build_ms: None: none is built."""

    load_ms: float
    first_ms: float
    build_ms: float | None
    closed: Closed


@dataclass(frozen=True)
class Footprint:
    """Medians over fresh processes, with one-sided 95% bounds from order statistics; None: unknown.

    Attributes:
        load: file to a ready session, in ms, without building an engine; the file in the page cache.
        first: the first inference, in ms.
        load_cold, first_cold: the same with the model's file read from the disk.
        build_ms: the longest time that building an engine took; cached ones are not built again. None: none is built.
        memory: peak of the child above what it was before the model was loaded, in bytes, resident; memory_pss:
            without what it shares; memory_cgroup: with the pages of files; memory_gpu: of the GPU.
    """

    load: Claim
    first: Claim
    load_cold: Claim | None
    first_cold: Claim | None
    build_ms: float | None
    memory: Claim | None
    memory_pss: Claim | None
    memory_cgroup: Claim | None
    memory_gpu: Claim | None
    runs: int
    warnings: tuple[str, ...] = field(default=())

    @property
    def peak_bytes(self) -> int:
        """Median peak memory; 0: unknown."""
        return 0 if self.memory is None else int(self.memory.value)

    def to_json(self) -> dict[str, Any]:
        """Claims as they are, null for what is unknown."""
        claims = {
            "load_ms": self.load, "first_ms": self.first, "load_cold_ms": self.load_cold,
            "first_cold_ms": self.first_cold, "peak_bytes": self.memory, "peak_pss_bytes": self.memory_pss,
            "peak_cgroup_bytes": self.memory_cgroup, "gpu_bytes": self.memory_gpu,
        }  # fmt: skip
        found = {name: None if claim is None else claim.to_json() for name, claim in claims.items()}
        return {**found, "build_ms": self.build_ms, "runs": self.runs, "warnings": list(self.warnings)}


def footprint(
    device: Device, model: Model, options: SessionOptions, inputs: Mapping[str, NDArray[np.generic]], *,
    runs: int = FRESH, cold: bool = True, require_provider: str | None = None, seed: int = 0,
    tick: Tick = lambda what, part: None,
) -> Footprint:  # fmt: skip
    """Open the model in fresh processes, cold and warm in random order within each round, and run it once in each.

    Args:
        device: an open one.
        model: sent to it unless it is there.
        options: how it runs.
        inputs: samples, an array [n, ...] per model input; the first is run.
        runs: fresh processes of each kind.
        cold: with the model's file out of the page cache too, where the device permits it.
        require_provider: another one is a failure.
        seed: of the order.
        tick: told of progress.

    Raises:
        ModelFailure: the device cannot run it. UserError: the inputs do not fit.
    """
    chance, warm, chill = random.Random(seed), list[Start](), list[Start]()
    remarks: dict[str, None] = {}
    kinds = [False, True] if cold else [False]

    def start(now_cold: bool) -> Start:
        with device.open_session(model, options, cold=now_cold, require_provider=require_provider) as session:
            remarks.update(dict.fromkeys(session.warnings))
            session.feed(inputs)
            first = float(session.time(1).ns[0]) / 1e6
            build = session.build_ms
            return Start(session.load_ms - (build or 0.0), first, build, session.close())

    for number in range(runs):
        chance.shuffle(kinds)
        for turn, kind in enumerate(kinds):
            tick("load and memory", (number + turn / len(kinds)) / runs)
            (chill if kind else warm).append(start(kind))
    return _summary(warm, chill, tuple(remarks))


def _summary(warm: Sequence[Start], cold: Sequence[Start], remarks: tuple[str, ...]) -> Footprint:
    every = [*warm, *cold]
    builds = [s.build_ms for s in every if s.build_ms is not None]
    return Footprint(
        load=quantile.claim([s.load_ms for s in warm], 0.5),
        first=quantile.claim([s.first_ms for s in warm], 0.5),
        load_cold=_claim([s.load_ms for s in cold]),
        first_cold=_claim([s.first_ms for s in cold]),
        build_ms=max(builds, default=None),
        memory=_claim([s.closed.peak_bytes for s in warm]),
        memory_pss=_claim([s.closed.pss_bytes for s in warm]),
        memory_cgroup=_claim([s.closed.cgroup_bytes for s in warm]),
        memory_gpu=_claim([s.closed.gpu_bytes for s in warm]),
        runs=len(warm),
        warnings=remarks,
    )


def _claim(values: Sequence[float | None]) -> Claim | None:
    known = [float(v) for v in values if v is not None]
    return quantile.claim(known, 0.5) if known and len(known) == len(values) else None
