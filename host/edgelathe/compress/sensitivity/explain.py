"""Why a compressed model answers differently: its layers against the float model's, worst first, and what to try."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.forward import partial
from edgelathe.compress.sensitivity import matched
from edgelathe.compress.sensitivity.errors import Error
from edgelathe.compress.sensitivity.seen import BAD_DB, REDUCE, LayerFound, Seen, ranked
from edgelathe.core import dataset
from edgelathe.core.dataset_bind import check_answer
from edgelathe.core.errors import UserError
from edgelathe.model import cut_onnx, run
from edgelathe.model import onnx as onnx_model
from edgelathe.model.fixed.onnx_saturate import saturating
from edgelathe.stats import metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.core.dataset import Dataset
    from edgelathe.core.result import Accuracy
    from edgelathe.model.types import Model

SAMPLES = 64
_CHUNK = 4  # all layers' outputs of both models are held for so many samples
_KEPT = 3  # layers that are proposed to stay in float
_SHARED = "mixed(size={}bits,widths=2/3/4/5/6/8)"
EXACT = "session.x64quantprecision"


#: From a float model, what became of it and samples to its layers, worst first.
Inside = Callable[["Model", "Model", "Dataset"], tuple[LayerFound, ...]]


@dataclass(frozen=True)
class Explanation:
    """What became of a model: `layers` worst first.

    Attributes:
        n: samples that it is seen on.
        sqnr_db: at the first output; None where it is not finite, or has another shape.
        accuracy: with its drop, None where outputs are NaN, or the samples have no labels and the metric needs them.
        changed: answers that are not the float model's.
        chance: whether it is no better than an answer that does not look at the input.
        layers: those that both models have.
        tries: what to try, the most promising first.
    """

    n: int
    sqnr_db: float | None
    accuracy: Accuracy | None
    changed: int | None
    chance: bool
    layers: tuple[LayerFound, ...]
    tries: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """`explain` of a step in `edgelathe.compress/1`."""
        return {
            "n": self.n,
            "sqnr_db": None if self.sqnr_db is None else round(self.sqnr_db, 6),
            "accuracy": self.accuracy.to_json() if self.accuracy else None,
            "changed": self.changed,
            "chance": self.chance,
            "layers": [la.to_json() for la in self.layers],
            "tries": list(self.tries),
        }

    def sentence(self, count: int = 3) -> str:
        """The worst layers, their causes and what to try, in one line; "" where there is nothing to say."""
        names = {la.layer: brief(la.layer) for la in self.layers}
        bad = [la for la in self.layers if la.sqnr_db < BAD_DB]
        named = bad or [la for la in self.layers if la.causes] or self.layers  # all sound: what a kernel may do to them
        worst = [f"{names[la.layer]} ({', '.join((f'{la.sqnr_db:.1f} dB', *la.causes))})" for la in named[:count]]
        tries = [functools.reduce(lambda t, n: t.replace(f"'{n}'", f"'{names[n]}'"), names, t) for t in self.tries]
        said = f"worst layers: {', '.join(worst)}" if worst else ""
        return "; ".join(filter(None, (said, f"try {', or '.join(tries[:count])}" if tries else "")))


def explain(
    before: Model, after: Model, data: Dataset, config: Mapping[str, str] | None = None, *, samples: int = SAMPLES,
    layers: bool = True, inside: Inside | None = None,
) -> Explanation:  # fmt: skip
    """Compare a compressed model with the float one that it was made from.

    Args:
        before: the float model.
        after: what became of it.
        data: samples bound to it.
        config: session entries that the new model wants: with exact products nothing saturates.
        samples: so many are looked at, spread evenly over the data.
        layers: whether to look inside; without, the outputs alone are compared.
        inside: how to look inside two models of another format than ONNX; None: not at all.

    Values inside are those of float arithmetic on rounded numbers; what a kernel with 16-bit sums would do is a bound
    from the weights. Pairs of different formats, or with other inputs, are compared at the output only.

    Raises UserError where a model does not run on the samples, or its first output is no array of numbers.
    """
    check_answer(before.signature.outputs[0], before.name)
    count = min(samples, len(data))
    some = dataset.take(data, np.arange(count) * len(data) // max(count, 1))
    found: tuple[LayerFound, ...] = ()
    if layers and before.format == after.format and before.signature.inputs == after.signature.inputs:
        if before.format == "onnx":
            found = _layers(before, after, some, dict(config or {}))
        elif inside is not None:
            found = inside(before, after, some)
    want, have = (run.outputs(m, some.inputs)[0] for m in (before, after))
    metric = metrics.load_metric(data.metric, Path(data.name).parent)
    accuracy, chance = _score(metric, want, have, some.labels)
    same = want.shape == have.shape
    flat = [v.reshape(len(v), -1) for v in (want, have)]
    classes = metric.classes and not needs_labels(metric, want, data.labels)
    changed = int((flat[0].argmax(1) != flat[1].argmax(1)).sum()) if classes and same else None
    finite = same and bool(np.isfinite(have).all())
    return Explanation(
        len(some),
        Error.of(want, have).db if finite else None,
        accuracy,
        changed,
        chance,
        found,
        _tries(found, mixed=before.format == "onnx"),
    )


def needs_labels(metric: metrics.Metric, outputs: NDArray[Any], labels: NDArray[Any] | None) -> bool:
    """Whether a metric says nothing without labels: it counts classes and there is one number a sample, or it ranks."""
    return metric.classes and labels is None and (metric.name == "auroc" or outputs.size == len(outputs))


def _score(
    metric: metrics.Metric, want: NDArray[Any], have: NDArray[Any], labels: NDArray[Any] | None
) -> tuple[Accuracy | None, bool]:
    if want.shape != have.shape or needs_labels(metric, want, labels):
        return None, False
    try:
        accuracy, value, drop = metrics.compare_accuracy(metric, want, have, labels)
    except metrics.OutputError:
        return None, True
    wanted = metrics.targets(metric, labels, want)
    level = metrics.chance(metric, wanted, have.reshape(len(have), -1).shape[1])
    return accuracy, metrics.fell_to_chance(metric, value, drop, level)


def _layers(before: Model, after: Model, data: Dataset, config: Mapping[str, str]) -> tuple[LayerFound, ...]:
    pairs = list(matched.matches(onnx_model.to_ir(before).graph, onnx_model.to_ir(after).graph))
    if not pairs:
        return ()
    fixed = run.has_fixed_batch(before.signature)
    chunks = partial.Chunks(data, run.batch_size(before.signature) if fixed else 1)
    if not fixed and partial.chunks_of(before, data).size > 1:
        chunks = partial.Chunks(data, min(_CHUNK, len(data)))
    float_ = _capture(before, [p.before for p in pairs])
    new = _capture(after, [n for p in pairs for n in (p.after, p.raw) if n])
    seen = {p.layer: Seen(p) for p in pairs}
    for at in range(len(chunks)):
        feed, n = chunks.feed(at), chunks.count(at)
        f, a = float_(feed), new(feed)
        for p in pairs:
            seen[p.layer].add(f[p.before], a[p.after], a[p.raw] if p.raw else None, n)
    narrow = {} if config.get(EXACT) == "1" else _narrow(after)
    return ranked(seen, narrow)


def _tries(layers: Sequence[LayerFound], *, mixed: bool) -> tuple[str, ...]:
    """What mends most of the layers first, then to give those where the error begins more bits, or keep them in float.

    Where some have few bits, about the same bytes shared out by `mixed`, where the format has it, are an answer too.
    Sums that may saturate, on some machines, come last where rounding alone explains the loss.
    """
    bad = [la for la in layers if min(la.sqnr_db, la.channel_db) < BAD_DB]
    counts = collections.Counter(t for la in layers for t in la.tries)
    mends = sorted(counts, key=lambda t: (bool(bad) and t == REDUCE, -counts[t]))
    begin = sorted((la for la in bad if la.fall_db > 0), key=lambda la: -la.fall_db)[:_KEPT]
    shared = [_SHARED.format(min(b for la in bad if (b := la.bits)))] if mixed and any(la.bits for la in bad) else []
    return (*mends, *(f"{la.more} for layer '{la.layer}'" for la in begin), *shared)


def _capture(model: Model, names: Sequence[str]) -> Any:
    names = list(dict.fromkeys(names))
    part = cut_onnx.upto(onnx_model.to_proto(model), names)
    call = partial.session(partial.serialized(part), model.name)
    read = [i.name for i in part.graph.input]
    return lambda feed: dict(zip(names, call({k: feed[k] for k in read if k in feed}), strict=True))


def _narrow(after: Model) -> dict[str, float]:
    """Share of channels that can saturate, by layer; empty where the model is none that the simulator takes."""
    try:
        return {n.layer: n.channels for n in saturating(after)}
    except UserError:
        return {}


def brief(name: str, most: int = 40) -> str:
    """The end of a long name, which tells it apart: converters join those of all that they folded."""
    return name if len(name) <= most else f"...{name[3 - most :]}"
