"""Measuring on one open device: the baseline's session stays open, candidates are timed in turns with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.budget import Limit
from edgelathe.core.claim import Claim
from edgelathe.core.dataset import Dataset
from edgelathe.core.device import SessionOptions
from edgelathe.core.result import Accuracy
from edgelathe.device.measure import BenchPlan, Series, bench
from edgelathe.device.open import Device
from edgelathe.device.session import Session
from edgelathe.fit.measured import Measured
from edgelathe.model.types import Model
from edgelathe.stats import latency, metrics, quantile, ratio, stopping
from edgelathe.stats.metrics import Metric

STATISTICS = ("p50", "p90", "p95", "p99", "mean")

#: Fresh sessions behind a claim on load time or memory: the smallest one-sided 95% bound on a median needs 5.
FRESH = 7

#: Progress: what is being done, and how far (0..1).
Tick = Callable[[str, float], None]


class Rig:
    """Measures models of one job on one device. A context manager: it closes the sessions that it opened.

    Args:
        device: an open one.
        model: the uncompressed model.
        data: evaluation samples bound to the model.
        metric: of the accuracy.
        limits: of the budget; they decide how many samples are taken and when an evaluation may stop.
        options: how the baseline runs.
        require_provider: a session on another provider is a failure.
        seed: of the order of blocks.
        tick: told of progress.
    """

    def __init__(
        self,
        device: Device,
        model: Model,
        data: Dataset,
        metric: Metric,
        limits: Sequence[Limit],
        options: SessionOptions,
        *,
        require_provider: str | None = None,
        seed: int = 0,
        tick: Tick = lambda what, part: None,
    ) -> None:
        self._device, self._model, self._data, self._metric = device, model, data, metric
        self._limits, self._options, self._provider = tuple(limits), options, require_provider
        self._seed, self._tick = seed, tick
        self._base: Session | None = None

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._base:
            self._base.close()
            self._base = None

    def baseline(self) -> Measured:
        """The uncompressed model, on every sample."""
        session = self._baseline_session()
        series = self._bench([session])[0]
        outputs = self._outputs(session, lambda _: False)
        accuracy, claims = metrics.evaluate(self._metric, outputs, self._labels(outputs))
        return self._measured(session, self._options, series, accuracy, claims, {}, outputs, self._model)

    def candidate(self, model: Model, options: SessionOptions, outputs: NDArray[np.generic], *, whole: bool) -> Measured:
        """A candidate, timed in turns with the baseline whose `outputs` are given; `whole`: without early stop."""
        base = self._baseline_session()
        with self._open(model, options) as session:
            base_series, series = self._bench([base, session])
            ratios = {
                f"latency.{s}": ratio.claim(base_series.blocks, series.blocks, s) for s in STATISTICS
            }
            ratios["throughput"] = _inverse(ratios["latency.mean"])
            stop = (lambda _: False) if whole else self._hopeless(outputs)
            got = self._outputs(session, stop)
            accuracy, claims = metrics.compare_accuracy(self._metric, outputs[: len(got)], got, self._labels(outputs)[: len(got)])
            measured = self._measured(session, options, series, accuracy, claims, ratios, got, model)
        if metrics.fell_to_chance(self._metric, got, self._labels(outputs)[: len(got)]):
            return replace(measured, rejected=f"fell to chance: {accuracy.metric} {accuracy.value:.3f}")
        return measured

    def _baseline_session(self) -> Session:
        if self._base is None:
            self._base = self._open(self._model, self._options)
        return self._base

    def _open(self, model: Model, options: SessionOptions) -> Session:
        session = self._device.open_session(model, options, require_provider=self._provider)
        try:
            session.feed(self._data.inputs)
        except BaseException:
            session.close()
            raise
        return session

    def _bench(self, sessions: Sequence[Session]) -> list[Series]:
        asked = [_quantile(limit.metric) for limit in self._limits]
        calls = max([quantile.samples_needed(q) for q in asked if q] + [50]) * 2
        plan = BenchPlan(min_calls=calls)
        return bench(sessions, plan, seed=self._seed, tick=lambda part: self._tick("latency", part))

    def _outputs(self, session: Session, stop: Callable[[NDArray[np.generic]], bool]) -> NDArray[np.generic]:
        """Outputs of all samples, or of as many as it takes until `stop` says so."""
        n, at, parts = len(self._data), 0, []
        while at < n:
            count = min(n - at, max(1, math.ceil(n / 20)))
            parts.append(session.infer(at, count)[0])
            at += count
            self._tick(f"accuracy {at:,}/{n:,}", at / n)
            if at < n and stop(np.concatenate(parts)):
                break
        return np.concatenate(parts)

    def _labels(self, outputs: NDArray[np.generic]) -> NDArray[np.generic]:
        """The labels, or the baseline's own answers where there are none."""
        return self._data.labels if self._data.labels is not None else metrics.answers(self._metric, outputs)

    def _hopeless(self, base: NDArray[np.generic]) -> Callable[[NDArray[np.generic]], bool]:
        """Whether the samples so far already prove that the accuracy limit is out of reach."""
        drops = [limit for limit in self._limits if limit.metric == "accuracy.drop"]
        if not drops or self._metric.per_sample is None or self._metric.kind != "share":
            return lambda _: False
        limit, labels, total = min(x.value for x in drops), self._labels(base), len(base)
        score = self._metric.per_sample
        base_ok = score(base, labels).astype(bool)

        def hopeless(got: NDArray[np.generic]) -> bool:
            n = len(got)
            ok = score(got, labels[:n]).astype(bool)
            lost, won = int((base_ok[:n] & ~ok).sum()), int((~base_ok[:n] & ok).sum())
            return stopping.decide(lost, won, n, total, limit) == "out"

        return hopeless

    def _measured(
        self,
        session: Session,
        options: SessionOptions,
        series: Series,
        accuracy: Accuracy,
        claims: dict[str, Claim],
        ratios: dict[str, Claim],
        outputs: NDArray[np.generic],
        model: Model,
    ) -> Measured:
        peak = session.close() if session is not self._base else session.peak_bytes()
        times = {f"latency.{s}": latency.claim(series.blocks, s) for s in STATISTICS}
        fixed = {"size": Claim(model.bytes, model.bytes, model.bytes, exact=True)}
        fresh = self._fresh(model, options, session.load_ms, peak)
        return Measured(
            options=replace(options, provider=session.provider),
            latency=latency.summarize(series.blocks),
            accuracy=accuracy,
            claims={**claims, **times, "throughput": _inverse(times["latency.mean"], 1000), **fixed, **fresh},
            ratios=ratios,
            outputs=outputs,
            load_ms=session.load_ms,
            peak_bytes=peak,
            warnings=tuple(session.warnings) + tuple(series.warnings),
        )

    def _fresh(self, model: Model, options: SessionOptions, load_ms: float, peak: int) -> dict[str, Claim]:
        """Claims on load time and memory, from fresh sessions, where the budget asks for them."""
        if not {"load", "memory"} & {limit.metric for limit in self._limits}:
            return {}
        loads, peaks = [load_ms], [float(peak)]
        for _ in range(FRESH - 1):
            with self._open(model, options) as session:
                session.infer(0, 1)
                loads.append(session.load_ms)
                peaks.append(float(session.close()))
        return {"load": quantile.claim(loads, 0.5), "memory": quantile.claim(peaks, 0.5)}


def _quantile(metric: str) -> float | None:
    name = metric.removeprefix("latency.p")
    return int(name) / 100 if name.isdigit() else None


def _inverse(claim: Claim, factor: float = 1.0) -> Claim:
    return Claim(factor / claim.value, factor / claim.upper, factor / claim.lower)
