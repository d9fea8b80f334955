"""Measuring on one open device: the baseline's session stays open, candidates are timed in turns with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.claim import Claim
from edgelathe.core.dataset import Dataset, take
from edgelathe.core.device import SessionOptions
from edgelathe.core.result import Accuracy, Latency
from edgelathe.device.errors import ModelFailure
from edgelathe.device.open import Device
from edgelathe.device.session import Session
from edgelathe.fit.beside import Asked, Beside, Found
from edgelathe.fit.measured import Measured
from edgelathe.measure import figures
from edgelathe.measure.early import Ask, answered, kept, settled
from edgelathe.measure.interleave import BenchPlan, Series, bench, thinned
from edgelathe.measure.looks import Looks
from edgelathe.measure.plan import Job
from edgelathe.measure.stream import pieces, stream
from edgelathe.model.run import batch_size, real
from edgelathe.model.types import Model
from edgelathe.stats import latency, metrics, quantile, ratio
from edgelathe.stats.metrics import Metric

#: Why an evaluation ended early.
ENDED = {"out": "the accuracy limit will not be shown to hold", "in": "the accuracy limit is kept"}

Outputs = NDArray[np.generic]

#: Progress: what is being done, and how far (0..1).
Tick = Callable[[str, float], None]


@dataclass(frozen=True, eq=False)
class Timed:
    """The latencies of one model: samples, summary, claims and ratios by metric, and how far they can be trusted."""

    series: Series
    latency: Latency
    claims: Mapping[str, Claim]
    ratios: Mapping[str, Claim]
    grade: Mapping[str, Any]


@dataclass(frozen=True)
class Ways:
    """How all models of a fit are measured.

    `require_provider`: a session on another provider is a failure; `lenient`: limits are judged by values, not bounds;
    `remarks`: warnings that hold for every measurement; `seed`: of the order of blocks and of samples.
    """

    require_provider: str | None = None
    lenient: bool = False
    remarks: tuple[str, ...] = ()
    seed: int = 0


class Rig:
    """Measures models of one job on one device. A context manager: it closes the sessions that it opened.

    Args:
        device: an open one.
        model: the uncompressed model.
        data: evaluation samples bound to the model; they are taken in a random order.
        metric: of the accuracy.
        asked: by the budget: it decides what is measured, how long, and when an evaluation may stop.
        options: how the baseline runs.
        ways: that hold for all models.
        tick: told of progress.
    """

    def __init__(
        self, device: Device, model: Model, data: Dataset, metric: Metric, asked: Asked, options: SessionOptions,
        ways: Ways = Ways(), tick: Tick = lambda what, part: None,
    ) -> None:  # fmt: skip
        order = np.random.default_rng(ways.seed).permutation(len(data))  # files are often sorted by class
        self._device, self._model, self._data, self._metric = device, model, take(data, order), metric
        self._asked, self._options, self._ways, self._tick = asked, options, ways, tick
        self._beside = Beside(device, asked, ways.require_provider, ways.seed, tick)
        self._stack = ExitStack()
        self._base: Session | None = None
        self.push_seconds = 0.0

    def __enter__(self) -> Rig:
        self._stack.enter_context(self._beside)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if self._base:
            self._base.close()
            self._base = None

    def baseline(self) -> Measured:
        """The uncompressed model, on every sample."""
        session = self._baseline_session()
        timed = self._time([session])
        outputs, _ = self._outputs(self._model, session, None)
        accuracy = metrics.evaluate(self._metric, outputs, self._data.labels, self._data.name)
        _, value, drop = metrics.compare_accuracy(self._metric, outputs, outputs, self._data.labels, self._data.name)
        beside = self._more(self._model, self._options, [session])
        beside.claims |= {"accuracy": value, "accuracy.drop": drop, "size": Claim.of(self._model.bytes)}
        measured = self._measured(session, self._options, timed, accuracy, beside, outputs)
        # It stays open, to be timed beside the candidates, and a peak is told at the end: a second session tells it.
        return measured if measured.peak_bytes is not None else replace(measured, peak_bytes=session.peak_bytes())

    def candidate(self, model: Model, options: SessionOptions, outputs: Outputs, *, whole: bool) -> Measured:
        """A candidate, timed in turns with the baseline whose `outputs` are given; `whole`: without early stop.

        Raises ModelFailure where the device cannot run it, or its outputs are NaN.
        """
        base = self._baseline_session()
        limits, lenient = self._asked.limits, self._ways.lenient
        with self._open(model, options) as session:
            timed = self._time([base, session])
            wanted = metrics.targets(self._metric, self._data.labels, outputs)
            ask = (
                None
                if whole
                else settled(self._metric, limits, wanted, len(outputs), outputs, lenient=lenient, prove=True)
            )
            got, ended = self._outputs(model, session, ask)
            labels, before = wanted[: len(got)], outputs[: len(got)]
            try:
                accuracy, value, drop = metrics.compare_accuracy(self._metric, before, got, labels, self._data.name)
            except metrics.OutputError as e:
                raise ModelFailure(self._device.name, str(e), "leave the step out, or skip the layer", "model") from e
            beside = self._more(model, options, [base, session])
            answers = {"accuracy": value, "accuracy.drop": drop}
            beside.claims |= kept(answers, limits) if ended == ENDED["in"] else answers
            beside.claims["size"] = Claim.of(model.bytes)
            start = metrics.evaluate(self._metric, before, labels, self._data.name).value
            if start > 0:
                beside.ratios["accuracy"] = metrics.against(self._metric, start, drop).scaled(1 / start)
            measured = self._measured(session, options, timed, accuracy, beside, got)
        if measured.peak_bytes is None:  # what was collected of answers is not in it, so it is the model's own
            measured = replace(measured, peak_bytes=session.close().peak_bytes or 0)
        if ended:
            measured = replace(measured, stopped=f"stopped after {len(got):,} of {len(outputs):,} samples: {ended}")
        level = metrics.chance(self._metric, labels, got.reshape(len(got), -1).shape[1])
        if metrics.fell_to_chance(self._metric, value, drop, level):
            return replace(
                measured, rejected=f"fell to chance: {accuracy.metric} {accuracy.value:.3f}, chance is {level:.3f}"
            )
        return measured

    def _baseline_session(self) -> Session:
        """Open and alive: a child that died, of memory perhaps, must not count against the candidates."""
        if self._base is not None:
            try:
                self._base.time(1)
            except ModelFailure:
                self._base = None
        if self._base is None:
            self._base = self._open(self._model, self._options)
        return self._base

    def _open(self, model: Model, options: SessionOptions) -> Session:
        start = time.perf_counter()
        self._device.push_model(model)
        self.push_seconds += time.perf_counter() - start
        session = self._device.open_session(model, options, require_provider=self._ways.require_provider)
        try:
            start = time.perf_counter()
            session.feed(self._first_piece(model))
            self.push_seconds += time.perf_counter() - start
        except BaseException:
            session.close()
            raise
        return session

    def _time(self, sessions: Sequence[Session]) -> Timed:
        """Time the last of these, beside the baseline if there are two, until the limits on times are settled."""
        asked = [_quantile(limit.metric) for limit in self._asked.limits]
        needed = max([quantile.samples_needed(q) for q in asked if q] + [50])
        plan = BenchPlan(min_calls=2 * needed)
        job = Job(limits=self._asked.limits, max_ms=plan.max_ms)
        looks = Looks(job, [1] * len(sessions), judged=1) if len(sessions) > 1 else None
        seed, tick = self._ways.seed, lambda part: self._tick("latency", part)
        series = bench(sessions, plan, seed=seed, tick=tick, until=looks)
        count = looks.count if looks else 1
        blocks = thinned(series[-1].blocks)
        claims = {f"latency.{s}": latency.claim(blocks, s, looks=count) for s in latency.STATISTICS}
        claims["throughput"] = claims["latency.mean"].inverse(1000)
        ratios: dict[str, Claim] = {}
        if len(series) > 1:
            a, b = (s.blocks for s in series)
            ratios = {f"latency.{s}": ratio.compare(a, b, s, looks=count).claim for s in latency.STATISTICS}
            ratios["throughput"] = ratios["latency.mean"].inverse()
        trust = figures.trusted(series[-1], self._device.probe, needed)
        return Timed(series[-1], latency.summarize(blocks), claims, ratios, trust["grade"])

    def _outputs(self, model: Model, session: Session, ask: Ask | None) -> tuple[Outputs, str]:
        """Outputs of all samples, or of as many as it takes until `ask` is answered; and how it was, in words."""
        n, batch = len(self._data), batch_size(model.signature)
        blocks = stream(session, self._data.inputs, batch=batch, forget=self._device.forget)
        tick = self._tick
        got, ended = answered(blocks, n, ask, hear=lambda _, done: tick(f"accuracy {done:,}/{n:,}", done / n))
        return got if self._metric.classes else real([got], model.signature)[0], ENDED.get(ended, "")

    def _more(self, model: Model, options: SessionOptions, sessions: Sequence[Session]) -> Found:
        return self._beside.measure(model, options, sessions, self._first_piece(model))

    def _first_piece(self, model: Model) -> dict[str, Outputs]:
        """As many samples as are sent at a time: enough to be timed on."""
        return next(pieces(self._data.inputs, batch_size(model.signature)))[1]

    def _measured(
        self, session: Session, options: SessionOptions, timed: Timed, accuracy: Accuracy, beside: Found,
        outputs: Outputs,
    ) -> Measured:  # fmt: skip
        paced, sustained = (beside.claims.get(f"latency.{name}") for name in ("paced", "sustained"))
        summary = replace(
            timed.latency, paced=paced.value if paced else None, sustained=sustained.value if sustained else None
        )
        return Measured(
            options=replace(options, provider=session.provider),
            latency=summary,
            accuracy=accuracy,
            claims={**timed.claims, **beside.claims},
            ratios={**timed.ratios, **beside.ratios},
            outputs=outputs,
            load_ms=session.load_ms,
            peak_bytes=beside.peak_bytes,
            energy=beside.energy,
            grade=timed.grade,
            warnings=(*self._ways.remarks, *session.warnings, *timed.series.warnings, *beside.warnings),
        )


def _quantile(metric: str) -> float | None:
    name = metric.removeprefix("latency.p")
    return int(name) / 100 if name.isdigit() else None
