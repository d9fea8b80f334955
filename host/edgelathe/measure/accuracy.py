"""The document of `eval`: accuracies of models on a device, and parity with this host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.core import dataset
from edgelathe.core.dataset import Dataset
from edgelathe.core.device import SessionOptions
from edgelathe.device.open import Device
from edgelathe.measure.interleave import evaluate
from edgelathe.model import run
from edgelathe.model.types import Model
from edgelathe.stats import metrics

#: Samples whose answers are compared between host and device.
PARITY = 200

Tick = Callable[[str, float], None]


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
