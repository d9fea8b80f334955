"""Measuring without compressing: the documents of `bench` and `eval`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.core import dataset
from edgelathe.core.dataset import Dataset
from edgelathe.core.device import SessionOptions
from edgelathe.core.profile import Profile
from edgelathe.core.signature import Signature, TensorInfo
from edgelathe.device.measure import BenchPlan, bench, evaluate
from edgelathe.device.open import Device
from edgelathe.model import metadata, run
from edgelathe.model.types import Model
from edgelathe.recipes.ready import choose_session, from_text
from edgelathe.stats import latency, metrics, ratio

#: Samples whose answers are compared between host and device.
PARITY = 200

Tick = Callable[[str, float], None]


def options_of(model: Model, profile: Profile, device: Device, threads: int | None) -> SessionOptions:
    """How a model is run: as its metadata ask, where the device has that runtime, else the profile's first way."""
    first = choose_session(profile, model.format, device.probe, threads)
    text = metadata.read(model, metadata.SESSION)
    if text is None:
        return first
    wanted = from_text(text)
    runtime = device.probe.runtime(wanted.runtime)
    if runtime is None or (runtime.providers and wanted.provider not in runtime.providers):
        return first
    return replace(wanted, threads=threads or wanted.threads)


def bench_document(
    device: Device, models: Sequence[tuple[str, Model]], options: Sequence[SessionOptions], data: Dataset | None,
    plan: BenchPlan, *, remarks: Sequence[str] = (), seed: int = 0, tick: Tick = lambda what, part: None,
) -> dict[str, Any]:  # fmt: skip
    """Latencies of models, measured in turns, and each pair compared: `edgelathe.bench/1`.

    Args:
        device: an open one.
        models: names (as the user gave them) and models.
        options: how each runs.
        data: samples to run on, as loaded; None: random ones that fit the inputs.
        plan: how long to measure.
        remarks: warnings that hold for every model.
        seed: of the random order and inputs.
        tick: told of progress.

    Raises:
        UserError: the data do not fit a model. ModelFailure: the device cannot run one.
    """
    with ExitStack() as stack:
        sessions = []
        for (name, model), how in zip(models, options, strict=True):
            inputs = (
                random_inputs(model.signature, seed)
                if data is None
                else dataset.bind(data, model.signature, name).inputs
            )
            session = stack.enter_context(device.open_session(model, how))
            session.feed(inputs)
            sessions.append(session)
        series = bench(sessions, plan, seed=seed, tick=lambda part: tick("latency", part))
        results = []
        for (name, model), how, session, taken in zip(models, options, sessions, series, strict=True):
            got = latency.summarize(taken.blocks)
            results.append(
                {
                    "model": name, "format": model.format, "bytes": model.bytes, "runtime": how.runtime,
                    "options": replace(how, provider=session.provider).to_json(), "latency_ms": got.to_json(),
                    "throughput": 1000 / got.mean, "load_ms": session.load_ms,
                    "warnings": [*remarks, *session.warnings, *taken.warnings],
                }
            )  # fmt: skip
    pairs = itertools.combinations(range(len(models)), 2)
    comparisons = [
        {"a": models[i][0], "b": models[j][0], **ratio.compare(series[i].blocks, series[j].blocks).to_json()}
        for i, j in pairs
    ]
    return {
        "schema": "edgelathe.bench/1", "device": device.probe.to_json(), "results": results, "comparisons": comparisons,
    }  # fmt: skip


def eval_document(
    device: Device, models: Sequence[tuple[str, Model]], options: Sequence[SessionOptions], data: Dataset,
    *, remarks: Sequence[str] = (), tick: Tick = lambda what, part: None,
) -> dict[str, Any]:  # fmt: skip
    """Accuracies of models on the device, and parity with the host: `edgelathe.eval/1`. Raises as `bench_document`.

    Without labels there is no accuracy of one model: the answers of the first model then count as right.
    """
    metric = metrics.load_metric(data.metric, Path(data.name).parent)
    results, reference = [], None
    for (name, model), how in zip(models, options, strict=True):
        bound = dataset.bind(data, model.signature, name)
        with device.open_session(model, how) as session:
            session.feed(bound.inputs)
            parts, done = [], 0
            for first, *_ in evaluate(session, len(bound), batch=run.batch_size(model.signature)):
                parts.append(first)
                done += len(first)
                tick(f"{name} {done:,}/{len(bound):,}", done / len(bound))
            raw = np.concatenate(parts)
            ran = replace(how, provider=session.provider)
            unlabelled = () if bound.labels is not None else ("no labels: agreement with the first model is shown",)
            warnings = [*remarks, *unlabelled, *bound.warnings, *session.warnings]
        outputs = raw if metric.classes else run.real([raw], model.signature)[0]
        reference = outputs if reference is None else reference
        accuracy = metrics.evaluate(metric, outputs, metrics.targets(metric, bound.labels, reference), data.name)
        results.append(
            {
                "model": name, "format": model.format, "runtime": how.runtime, "options": ran.to_json(),
                "accuracy": accuracy.to_json(), "parity": _parity(model, bound, how, raw), "warnings": warnings,
            }
        )  # fmt: skip
    return {"schema": "edgelathe.eval/1", "device": device.probe.to_json(), "results": results}


def random_inputs(signature: Signature, seed: int, samples: int = 4) -> dict[str, NDArray[np.generic]]:
    """Arrays [samples, ...] for every input: floats in 0..1, integers in 0..127, axes of any length taken as 1."""
    rng = np.random.default_rng(seed)
    return {t.name: _random(t, rng, samples) for t in signature.inputs}


def _random(tensor: TensorInfo, rng: np.random.Generator, samples: int) -> NDArray[np.generic]:
    batch = (tensor.shape[0] or 1) if tensor.shape else 1
    shape = (samples * batch, *(n or 1 for n in tensor.shape[1:]))
    dtype = np.dtype(tensor.dtype)
    if dtype.kind == "f":
        return rng.random(shape, np.float32).astype(dtype)
    return rng.integers(0, 2 if dtype.kind == "b" else 128, shape).astype(dtype)


def _parity(model: Model, data: Dataset, how: SessionOptions, outputs: NDArray[np.generic]) -> dict[str, Any] | None:
    """How the device's answers differ from those of the same runtime here; None where this host lacks the runtime."""
    n = min(PARITY, len(data))
    host = run.outputs_if_possible(model, {k: v[:n] for k, v in data.inputs.items()}, how)
    if host is None:
        return None
    mine, theirs = host[0].reshape(n, -1), outputs[:n].reshape(n, -1)
    same = int((mine.argmax(1) == theirs.argmax(1)).sum())
    largest = float(np.abs(mine.astype(np.float64) - theirs.astype(np.float64)).max(initial=0.0))
    return {"n": n, "same": same, "max_abs": largest}
