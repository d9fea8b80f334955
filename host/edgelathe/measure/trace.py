"""The document of `trace`: time per operator of a model on a device, and of two models side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edgelathe.core import dataset
from edgelathe.core.errors import UserError
from edgelathe.measure.inputs import generated
from edgelathe.measure.trace_compare import CONVERSIONS, compare
from edgelathe.measure.trace_engine import by_layers
from edgelathe.measure.trace_plan import TracePlan
from edgelathe.measure.trace_prefixes import by_prefixes
from edgelathe.measure.trace_profiler import profile
from edgelathe.report import units

if TYPE_CHECKING:
    from edgelathe.core.dataset import Dataset
    from edgelathe.core.device import SessionOptions
    from edgelathe.device.open import Device
    from edgelathe.measure.trace_rows import Trace
    from edgelathe.model.types import Model

Tick = Callable[[str, float], None]

#: Share of a call below which what a model pays for float parts and conversions is told in its rows only.
_WORTH = 0.01
#: Providers that hand their kernels to a GPU and go on.
_LAUNCHING = frozenset(f"{name}ExecutionProvider" for name in ("CUDA", "ROCM", "MIGraphX", "Dml", "WebGpu"))
#: How operators are timed, by the runtime.
METHODS = {
    "onnxruntime": profile,
    "tensorrt": by_layers,
    "ai-edge-litert": by_prefixes,
    "tflite-runtime": by_prefixes,
}


def trace_document(
    device: Device, models: Sequence[tuple[str, Model]], options: Sequence[SessionOptions], data: Dataset | None,
    plan: TracePlan | None = None, *, remarks: Sequence[str] = (), tick: Tick = lambda what, part: None,
) -> dict[str, Any]:  # fmt: skip
    """Time per operator of one model, or of two, before and after: `edgelathe.trace/1`.

    Models that are timed by the same method take turns; `layers` compares them by the layers of the first.

    Args:
        device: an open one.
        models: names (as the user gave them) and models, one or two.
        options: how each runs.
        data: samples to run on, as loaded; None: random ones that fit the inputs.
        plan: how long to measure.
        remarks: warnings that hold for every model.
        tick: told of progress.

    Raises:
        UserError: more than two models, the data or shapes do not fit one, or its runtime has no way to be traced.
        ModelFailure: the device cannot run one.
    """
    plan = plan or TracePlan()
    if len(models) > 2:
        raise UserError("trace", f"{len(models)} models", "give one, or two to compare")
    for how in options:
        if how.runtime not in METHODS:
            raise UserError("trace", f"{how.runtime} tells no time per operator", "choose from " + ", ".join(METHODS))
    made = generated(models, plan.shapes, plan.seed) if data is None else []
    fed = (
        [arrays for arrays, _ in made]
        if data is None
        else [dataset.bind(data, m.signature, n).inputs for n, m in models]
    )
    guessed = dict.fromkeys(text for _, said in made for text in said)
    traces: dict[int, Trace] = {}
    for method in dict.fromkeys(METHODS[how.runtime] for how in options):
        mine = [i for i, how in enumerate(options) if METHODS[how.runtime] is method]
        found = method(
            device, [models[i] for i in mine], [options[i] for i in mine], [fed[i] for i in mine], plan,
            lambda part: tick("time per operator", part),
        )  # fmt: skip
        traces.update(zip(mine, found, strict=True))
    done = [traces[i] for i in range(len(models))]
    layers = compare(done[0], done[1]) if len(done) == 2 else []
    return {
        "schema": "edgelathe.trace/1", "device": device.probe.to_json(),
        "models": [t.to_json(device.probe.cores, emulated=device.probe.emulated) for t in done],
        "layers": layers, "warnings": [*remarks, *guessed, *_remarks(done, layers)],
    }  # fmt: skip


def _remarks(traces: Sequence[Trace], layers: Sequence[dict[str, Any]]) -> list[str]:
    """What a reader must know of how the times came about, and what the second model pays for."""
    out = []
    names = units.short([t.name for t in traces])
    cut = [t for t in traces if t.method == "prefixes"]
    if cut:
        out.append(
            f"{', '.join(names[t.name] for t in cut)}: {cut[0].options.runtime} tells nobody what its profiler sees; "
            "times are differences between the model cut off after one operator and after the next: the first row "
            "holds the cost of a call too, and what is fused across a cut is counted apart"
        )
    taken = [
        f"{names[t.name]}: {t.unit_ms * sum(r.cost for r in t.rows) / sum(r.runs for r in t.rows) * 1000:.1f} us"
        for t in traces
        if t.unit_ms > 0
    ]
    if taken:
        out.append(
            f"{', '.join(taken)} of each kernel's time on average are taken as the profiler's own, so that all add up "
            "to an unprofiled call; times of a few us are uncertain by as much"
        )
    launched = [
        names[t.name] for t in traces if t.method == "profiler" and any(r.provider in _LAUNCHING for r in t.rows)
    ]
    if launched:
        out.append(
            f"{', '.join(launched)}: kernels on a GPU run after they were launched, and the profiler sees the launch; "
            "their time is in the rows that wait for them (copies to the host, the end of the call)"
        )
    if len({METHODS[t.options.runtime] for t in traces}) > 1:
        out.append("the two models were traced in different ways and not in turns: small differences mean nothing")
    for mark in (" stays in ", " fell back to "):
        hit = [line for line in layers if any(mark in n for n in line["notes"])]
        ms = sum(line["b"]["ms"] for line in hit)
        if hit and ms >= _WORTH * traces[1].total.ms:
            what = list(dict.fromkeys(n for line in hit for n in line["notes"] if mark in n))
            out.append(f"{names[traces[1].name]}: {'; '.join(what)}: {ms * 1000:.3g} us")
    added = [line for line in layers if not line["layers"] and line["op"] in CONVERSIONS and line["difference_ms"] > 0]
    ms = sum(line["difference_ms"] for line in added)
    if added and ms >= _WORTH * traces[1].total.ms:
        ops = ", ".join(line["op"] for line in added)
        out.append(f"{names[traces[1].name]}: conversions take {ms * 1000:.3g} us more ({ops})")
    return out
