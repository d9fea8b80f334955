"""The document of `bench`: latencies of models on a device, in turns."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from edgelathe.core import dataset
from edgelathe.core.dataset import Dataset
from edgelathe.core.device import SessionOptions
from edgelathe.device.open import Device
from edgelathe.measure.inputs import random_inputs
from edgelathe.measure.interleave import BenchPlan, bench
from edgelathe.model.types import Model
from edgelathe.stats import latency, ratio

Tick = Callable[[str, float], None]


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
