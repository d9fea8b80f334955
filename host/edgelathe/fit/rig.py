"""Measuring on one open device: the baseline's session stays open, candidates are timed in turns with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.budget import Limit
from edgelathe.core.claim import Claim
from edgelathe.core.dataset import Dataset, take
from edgelathe.core.device import SessionOptions
from edgelathe.core.result import Accuracy
from edgelathe.device.errors import ModelFailure
from edgelathe.device.open import Device
from edgelathe.device.session import Session
from edgelathe.fit.measured import Measured
from edgelathe.measure.early import Ask, kept, settled
from edgelathe.measure.interleave import BenchPlan, Series, bench
from edgelathe.measure.stream import pieces, stream
from edgelathe.model.run import batch_size, real
from edgelathe.model.types import Model
from edgelathe.stats import latency, metrics, quantile, ratio, stopping
from edgelathe.stats.metrics import Metric

#: Fresh sessions behind a claim on load time or memory: the smallest one-sided 95% bound on a median needs 5.
FRESH = 7

#: Why an evaluation ended early.
ENDED = {"out": "out of reach", "in": "within reach"}

Outputs = NDArray[np.generic]

#: Progress: what is being done, and how far (0..1).
Tick = Callable[[str, float], None]


class Rig:
    """Measures models of one job on one device. A context manager: it closes the sessions that it opened.

    Args:
        device: an open one.
        model: the uncompressed model.
        data: evaluation samples bound to the model; they are taken in a random order that `seed` gives.
        metric: of the accuracy.
        limits: of the budget; they decide how many samples are taken and when an evaluation may stop.
        options: how the baseline runs.
        require_provider: a session on another provider is a failure.
        remarks: warnings that hold for every measurement.
        seed: of the order of blocks and of samples.
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
        remarks: Sequence[str] = (),
        seed: int = 0,
        tick: Tick = lambda what, part: None,
    ) -> None:
        order = np.random.default_rng(seed).permutation(
            len(data)
        )  # files are often sorted by class: no early stop then
        self._device, self._model, self._data, self._metric = device, model, take(data, order), metric
        self._limits, self._options, self._provider = tuple(limits), options, require_provider
        self._seed, self._tick, self._remarks = seed, tick, tuple(remarks)
        self._base: Session | None = None
        self.push_seconds = 0.0

    def __enter__(self) -> Rig:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._base:
            self._base.close()
            self._base = None

    def baseline(self) -> Measured:
        """The uncompressed model, on every sample."""
        session = self._baseline_session()
        series = self._bench([session])[0]
        outputs, _ = self._outputs(self._model, session, None)
        accuracy = metrics.evaluate(self._metric, outputs, self._data.labels, self._data.name)
        _, value, drop = metrics.compare_accuracy(self._metric, outputs, outputs, self._data.labels, self._data.name)
        claims = {"accuracy": value, "accuracy.drop": drop, **self._claims(self._model, self._options, session, series)}
        return self._measured(session, self._options, series, accuracy, claims, {}, outputs)

    def candidate(self, model: Model, options: SessionOptions, outputs: Outputs, *, whole: bool) -> Measured:
        """A candidate, timed in turns with the baseline whose `outputs` are given; `whole`: without early stop.

        Raises ModelFailure where the device cannot run it, or its outputs are NaN.
        """
        base = self._baseline_session()
        with self._open(model, options) as session:
            base_series, series = self._bench([base, session])
            ratios = {
                f"latency.{s}": ratio.compare(base_series.blocks, series.blocks, s).claim for s in latency.STATISTICS
            }
            ratios["throughput"] = ratios["latency.mean"].inverse()
            wanted = metrics.targets(self._metric, self._data.labels, outputs)
            ask = None if whole else settled(self._metric, self._limits, wanted, len(outputs), outputs)
            got, ended = self._outputs(model, session, ask)
            labels, before = wanted[: len(got)], outputs[: len(got)]
            try:
                accuracy, value, drop = metrics.compare_accuracy(self._metric, before, got, labels, self._data.name)
            except metrics.OutputError as e:
                raise ModelFailure(self._device.name, str(e), "leave the step out, or skip the layer", "model") from e
            start = metrics.evaluate(self._metric, before, labels, self._data.name).value
            if start > 0:
                ratios["accuracy"] = metrics.against(self._metric, start, drop).scaled(1 / start)
            claims = {"accuracy": value, "accuracy.drop": drop, **self._claims(model, options, session, series)}
            if ended == ENDED["in"]:
                claims = kept(claims, self._limits)
            measured = self._measured(session, options, series, accuracy, claims, ratios, got)
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
        self._device.push(model.data)
        self.push_seconds += time.perf_counter() - start
        session = self._device.open_session(model, options, require_provider=self._provider)
        try:
            start = time.perf_counter()
            session.feed(next(pieces(self._data.inputs, batch_size(model.signature)))[1])
            self.push_seconds += time.perf_counter() - start
        except BaseException:
            session.close()
            raise
        return session

    def _bench(self, sessions: Sequence[Session]) -> list[Series]:
        asked = [_quantile(limit.metric) for limit in self._limits]
        calls = 2 * max([quantile.samples_needed(q) for q in asked if q] + [50])
        plan = BenchPlan(min_calls=calls)
        return bench(sessions, plan, seed=self._seed, tick=lambda part: self._tick("latency", part))

    def _outputs(self, model: Model, session: Session, ask: Ask | None) -> tuple[Outputs, str]:
        """Outputs of all samples, or of as many as it takes until `ask` is answered; and how it was, in words."""
        n, parts, done, ended = len(self._data), [], 0, ""
        looks = list(stopping.looks(n))
        batch = batch_size(model.signature)
        for first, *_ in stream(session, self._data.inputs, batch=batch, forget=self._device.forget):
            parts.append(first)
            done += len(first)
            self._tick(f"accuracy {done:,}/{n:,}", done / n)
            if ask and done < n and done >= looks[0]:
                looks = [look for look in looks if look > done]
                ended = ENDED.get(ask(np.concatenate(parts)), "")
                if ended:
                    break
        got = np.concatenate(parts)
        return got if self._metric.classes else real([got], model.signature)[0], ended

    def _claims(self, model: Model, options: SessionOptions, session: Session, series: Series) -> dict[str, Claim]:
        """What does not depend on the answers: times, size, and load and memory where the budget asks for them."""
        times = {f"latency.{s}": latency.claim(series.blocks, s) for s in latency.STATISTICS}
        return {
            **times,
            "throughput": times["latency.mean"].inverse(1000),
            "size": Claim.of(model.bytes),
            **self._fresh(model, options, session),
        }

    def _fresh(self, model: Model, options: SessionOptions, session: Session) -> dict[str, Claim]:
        if not {"load", "memory"} & {limit.metric for limit in self._limits}:
            return {}
        loads, peaks = [session.load_ms], [float(session.peak_bytes())]
        for number in range(1, FRESH):
            self._tick("load and memory", number / FRESH)
            with self._open(model, options) as fresh:
                fresh.infer(0, 1)
                loads.append(fresh.load_ms)
                peaks.append(float(fresh.close().peak_bytes or 0))
        return {"load": quantile.claim(loads, 0.5), "memory": quantile.claim(peaks, 0.5)}

    def _measured(
        self,
        session: Session,
        options: SessionOptions,
        series: Series,
        accuracy: Accuracy,
        claims: dict[str, Claim],
        ratios: dict[str, Claim],
        outputs: Outputs,
    ) -> Measured:
        return Measured(
            options=replace(options, provider=session.provider),
            latency=latency.summarize(series.blocks),
            accuracy=accuracy,
            claims=claims,
            ratios=ratios,
            outputs=outputs,
            load_ms=session.load_ms,
            peak_bytes=session.peak_bytes(),
            warnings=(*self._remarks, *session.warnings, *series.warnings),
        )


def _quantile(metric: str) -> float | None:
    name = metric.removeprefix("latency.p")
    return int(name) / 100 if name.isdigit() else None
