"""What is measured: models with how they run and on which samples, and the sessions opened for them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from edgelathe.core import dataset
from edgelathe.core.dataset import Dataset
from edgelathe.core.device import SessionOptions
from edgelathe.device.errors import ModelFailure
from edgelathe.device.open import Device
from edgelathe.device.session import SINGLE, Load, Session, Timed
from edgelathe.measure.inputs import Shapes, generated
from edgelathe.measure.interleave import Series
from edgelathe.measure.plan import Scenario
from edgelathe.model.types import Model

#: Most bytes of data that a device is given to run on.
FED = 64 << 20

#: Time that a query of the offline scenario takes at least, long beside what starting its calls costs, and its samples.
QUERY_MS, MOST = 100.0, 1 << 16


@dataclass(frozen=True)
class Subject:
    """One model to measure: its name (as the user gave it), how it runs, and samples [n, ...] per input."""

    name: str
    model: Model
    options: SessionOptions
    inputs: Mapping[str, NDArray[np.generic]]
    remarks: tuple[str, ...] = ()
    drawn: bool = False  # at random

    def failed(self, error: ModelFailure) -> ModelFailure:
        """With what to do about it: whole numbers drawn at random may mean nothing to a model."""
        if not (self.drawn and error.kind == "model" and any(a.dtype.kind in "iu" for a in self.inputs.values())):
            return error
        mend = "its integer inputs were drawn at random: give real samples with --data"
        return ModelFailure(error.where, error.what, mend, error.kind)


@dataclass(frozen=True)
class Facts:
    """What a session said when it was opened; `samples` of a query."""

    provider: str
    version: str
    load_ms: float
    build_ms: float | None
    warnings: tuple[str, ...]
    samples: int = 1


@dataclass(eq=False)
class Measured:
    """What came of one subject.

    `groups` holds a series per process (one, mostly); `beside` the back-to-back series of a paced scenario; `looks`
    how often the measurement could have ended; `tries` how often it was made.
    """

    subject: Subject
    facts: Facts | None = None
    groups: list[Series] = field(default_factory=list)
    beside: Series | None = None
    looks: int = 1
    tries: int = 1
    error: ModelFailure | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def whole(self) -> Series:
        """All groups as one series."""
        if len(self.groups) == 1:
            return self.groups[0]
        whole = Series()
        for g in self.groups:
            whole.blocks += g.blocks
            whole.conditions += g.conditions
            whole.more += g.more
            whole.warnings += [w for w in g.warnings if w not in whole.warnings]
            whole.warm_calls += g.warm_calls
            whole.wall_ms += g.wall_ms
            whole.settled = whole.settled and g.settled
        return whole


@dataclass(frozen=True)
class Lane:
    """A session under a load, as `interleave.bench` takes it. `width` samples go into a query."""

    session: Session
    load: Load = SINGLE
    width: int = 1

    def time(self, calls: int = 1, min_ms: float = 0.0, first: int = 0) -> Timed:
        """A block of queries; `first` counts queries."""
        return self.session.time(calls, min_ms, first * self.width, self.load)


@dataclass(frozen=True)
class Opened:
    """An open session, its lane, and what it said."""

    session: Session
    lane: Lane
    facts: Facts


def subjects(
    models: Sequence[tuple[str, Model]], options: Sequence[SessionOptions], data: Dataset | None, batch: int,
    seed: int, shapes: Shapes = MappingProxyType({}),
) -> list[Subject]:  # fmt: skip
    """Models with inputs: the data bound to each, or random ones of `shapes`. Raises UserError where these do not fit.

    Of data larger than FED bytes so many samples are taken, evenly spread: a device has to hold them all.
    """
    if data is None:
        fed = generated(models, shapes, seed, samples=max(4, batch))
        return [
            Subject(name, model, how, arrays, remarks, drawn=True)
            for (name, model), how, (arrays, remarks) in zip(models, options, fed, strict=True)
        ]
    made = []
    for (name, model), how in zip(models, options, strict=True):
        bound = dataset.bind(data, model.signature, name)
        n, size = len(bound), sum(a.nbytes for a in bound.inputs.values())
        kept = min(n, max(1, FED * n // max(1, size)))
        remark = () if kept == n else (f"timed on {kept:,} of {n:,} samples, evenly spread",)
        few = bound if kept == n else dataset.take(bound, np.arange(kept) * n // kept)
        made.append(Subject(name, model, how, few.inputs, remark))
    return made


@contextmanager
def opened(
    device: Device, found: Sequence[Subject], scenario: Scenario, require_provider: str | None
) -> Iterator[list[Opened | ModelFailure]]:
    """A session for each, fed; or why the device cannot run it."""
    with ExitStack() as stack:
        got: list[Opened | ModelFailure] = []
        for subject in found:
            try:
                session = stack.enter_context(
                    device.open_session(subject.model, subject.options, require_provider=require_provider)
                )
                lane = _lane(session, subject, scenario, device.probe.cores)
                odd = odd_outputs(session)
            except ModelFailure as e:
                got.append(subject.failed(e))
            else:
                said = (*session.warnings, *odd)
                facts = Facts(session.provider, session.version, session.load_ms, session.build_ms, said, lane.width)
                got.append(Opened(session, lane, facts))
        yield got


def odd_outputs(session: Session) -> tuple[str, ...]:
    """A remark where a session that is fed answers its first sample with what is no number.

    A model that is broken is as fast as one that is not, and nobody would see it by its times.
    """
    bad = [
        str(info["name"])
        for info, array in zip(session.outputs, session.infer(0, 1), strict=True)
        if array.dtype.kind == "f" and not np.isfinite(array).all()
    ]
    if not bad:
        return ()
    return (f"NaN or infinity in the outputs ({', '.join(bad[:3])}) of the first sample: is the model broken?",)


def _lane(session: Session, subject: Subject, scenario: Scenario, cores: int) -> Lane:
    fixed = max((t.shape[0] or 1 for t in subject.model.signature.inputs if t.shape), default=1)
    batch = max(scenario.batch, fixed)
    if scenario.name == "multi-stream":
        calls = math.ceil(scenario.streams / batch)
        session.feed(subject.inputs, scenario.batch, calls)
        return Lane(session, Load(samples=calls * batch), calls * batch)
    if scenario.name != "offline":
        session.feed(subject.inputs, scenario.batch)
        return Lane(session, SINGLE, batch)
    streams = scenario.streams or max(1, cores // max(1, subject.options.threads))
    session.feed(subject.inputs, scenario.batch, streams)
    least = batch * streams
    session.time(1, 0.0, 0, Load(samples=least))  # the first call is the slowest
    once_ms = float(session.time(3, 0.0, 0, Load(samples=least)).ns.min()) / 1e6
    samples = least * max(1, min(math.ceil(QUERY_MS / max(once_ms, 1e-3)), MOST // least))
    return Lane(session, Load(samples=samples), samples)
