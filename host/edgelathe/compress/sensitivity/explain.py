"""Why a compressed model answers differently: its layers against the float model's, worst first, and what to try."""

from __future__ import annotations

import collections
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.forward import partial
from edgelathe.compress.sensitivity import matched
from edgelathe.compress.sensitivity.passes import EXACT_DB, Error
from edgelathe.core import dataset
from edgelathe.core.errors import UserError
from edgelathe.model import cut_onnx, run
from edgelathe.model import onnx as onnx_model
from edgelathe.model.fixed.onnx_saturate import saturating
from edgelathe.stats import metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.compress.sensitivity.matched import Match
    from edgelathe.core.dataset import Dataset
    from edgelathe.core.result import Accuracy
    from edgelathe.model.types import Model

SAMPLES = 64
_CHUNK = 4  # all layers' outputs of both models are held for so many samples
_BAD_DB, _CLIPPED, _UNLIKE = 20.0, 0.01, 8.0  # from where on a figure is named as a cause
_GOOD_DB, _KEPT = 40.0, 3  # what 8 bits leave of a first layer; layers that are proposed to stay in float
_RESCALED, _ALIKE = 0.2, 0.9  # equalization: a channel is another by 2**0.2 at least, but the same up to that factor
_REDUCE = "int8(reduce=auto)"
_SHARED = "mixed(size={}bits,widths=2/3/4/5/6/8)"
EXACT = "session.x64quantprecision"


@dataclass(frozen=True)
class LayerFound:
    """One layer of the compressed model against the float one.

    Attributes:
        layer, op: as in the float model.
        sqnr_db: signal to noise of its output, factors that equalization gave to channels taken out; 200: equal.
        fall_db: how much worse that is than what the layers before it have: large where an error begins.
        channel_db: the same for its middle channel: low where wide channels hide what narrow ones lost.
        clipped: share of its values beyond the range of its grid, None where it has none.
        channel_ratio: largest |value| of its widest channel over that of the middle one, in the float model.
        weight_ratio: the same for weights that share one scale, else None.
        dead: channels that are constant in the float model.
        lost: channels that are constant now and were not.
        saturating: share of output channels that can saturate where products are added in 16 bits.
        overflow: whether values are not finite that were.
        bits: of its weights in the file, where they have fewer than 8; else None.
        causes: in words.
        tries: what to try, but for keeping it in float.
    """

    layer: str
    op: str
    sqnr_db: float
    fall_db: float
    channel_db: float
    clipped: float | None
    channel_ratio: float
    weight_ratio: float | None
    dead: int
    lost: int
    saturating: float
    overflow: bool
    bits: int | None
    causes: tuple[str, ...]
    tries: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """An entry of `layers` of an explanation."""
        plain = {k: round(v, 6) if isinstance(v, float) else v for k, v in vars(self).items() if k != "tries"}
        return plain | {"causes": list(self.causes)}


@dataclass(frozen=True)
class Explanation:
    """What became of a model: `layers` worst first.

    Attributes:
        n: samples that it is seen on.
        sqnr_db: at the first output; None where it is not finite, or has another shape.
        accuracy: with its drop, None where outputs are NaN or the samples have no labels and it has no answers.
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
        bad = [la for la in self.layers if la.sqnr_db < _BAD_DB]
        named = bad or [la for la in self.layers if la.causes] or self.layers  # all sound: what a kernel may do to them
        worst = [f"{names[la.layer]} ({', '.join((f'{la.sqnr_db:.1f} dB', *la.causes))})" for la in named[:count]]
        tries = [functools.reduce(lambda t, n: t.replace(f"'{n}'", f"'{names[n]}'"), names, t) for t in self.tries]
        said = f"worst layers: {', '.join(worst)}" if worst else ""
        return "; ".join(filter(None, (said, f"try {', or '.join(tries[:count])}" if tries else "")))


def explain(
    before: Model, after: Model, data: Dataset, config: Mapping[str, str] | None = None, *, samples: int = SAMPLES,
    layers: bool = True,
) -> Explanation:  # fmt: skip
    """Compare a compressed model with the float one that it was made from.

    Args:
        before: the float model.
        after: what became of it.
        data: samples bound to it.
        config: session entries that the new model wants: with exact products nothing saturates.
        samples: so many are looked at, spread evenly over the data.
        layers: whether to look inside; without, the outputs alone are compared.

    Values inside are those of float arithmetic on rounded numbers; what a kernel with 16-bit sums would do is a bound
    from the weights. TFLite models, and pairs of different formats, are compared at the output only.

    Raises UserError where a model does not run on the samples.
    """
    count = min(samples, len(data))
    some = dataset.take(data, np.arange(count) * len(data) // max(count, 1))
    found: tuple[LayerFound, ...] = ()
    if layers and before.format == after.format == "onnx" and before.signature.inputs == after.signature.inputs:
        found = _layers(before, after, some, dict(config or {}))
    want, have = (run.outputs(m, some.inputs)[0] for m in (before, after))
    metric = metrics.load_metric(data.metric, Path(data.name).parent)
    accuracy, chance = _score(metric, want, have, some.labels)
    same = want.shape == have.shape
    flat = [v.reshape(len(v), -1) for v in (want, have)]
    changed = int((flat[0].argmax(1) != flat[1].argmax(1)).sum()) if metric.classes and same else None
    finite = same and bool(np.isfinite(have).all())
    return Explanation(
        len(some), Error.of(want, have).db if finite else None, accuracy, changed, chance, found, _tries(found)
    )


def _score(
    metric: metrics.Metric, want: NDArray[Any], have: NDArray[Any], labels: NDArray[Any] | None
) -> tuple[Accuracy | None, bool]:
    if want.shape != have.shape:
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
    fixed = any(i.shape and i.shape[0] for i in before.signature.inputs)
    chunks = partial.Chunks(data, run.batch_size(before.signature) if fixed else 1)
    if not fixed and partial.chunks_of(before, data).size > 1:
        chunks = partial.Chunks(data, min(_CHUNK, len(data)))
    float_ = _capture(before, [p.before for p in pairs])
    new = _capture(after, [n for p in pairs for n in (p.after, p.raw) if n])
    seen = {p.layer: _Seen(p) for p in pairs}
    for at in range(len(chunks)):
        feed, n = chunks.feed(at), chunks.count(at)
        f, a = float_(feed), new(feed)
        for p in pairs:
            seen[p.layer].add(f[p.before], a[p.after], a[p.raw] if p.raw else None, n)
    narrow = {} if config.get(EXACT) == "1" else _narrow(after)
    db = {name: s.db for name, s in seen.items() if s.comparable}
    found = []
    for p in pairs:
        if p.layer in db:
            start = min((db[s] for s in p.sources if s in db), default=_GOOD_DB)
            found.append(seen[p.layer].found(min(start, _GOOD_DB) - db[p.layer], narrow.get(p.layer, 0.0)))
    return tuple(sorted(found, key=lambda la: la.sqnr_db))


def _tries(layers: Sequence[LayerFound]) -> tuple[str, ...]:
    """What mends most of the layers first, then to give those where the error begins more bits, or keep them in float.

    Where some have few bits, about the same bytes shared out by `mixed` are an answer too. Sums that may saturate, on
    some machines, come last where rounding alone explains the loss.
    """
    bad = [la for la in layers if min(la.sqnr_db, la.channel_db) < _BAD_DB]
    counts = collections.Counter(t for la in layers for t in la.tries)
    mends = sorted(counts, key=lambda t: (bool(bad) and t == _REDUCE, -counts[t]))
    begin = sorted((la for la in bad if la.fall_db > 0), key=lambda la: -la.fall_db)[:_KEPT]
    shared = [_SHARED.format(min(b for la in bad if (b := la.bits)))] if any(la.bits for la in bad) else []
    return (*mends, *(f"{_wider(la)} for layer '{la.layer}'" for la in begin), *shared)


def _wider(layer: LayerFound) -> str:
    """The next thing to do for a layer itself: twice the bits, at most 8, then float."""
    return f"weights = {min(2 * layer.bits, 8)}" if layer.bits else "skip = true"


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


class _Seen:
    """Sums over the samples of one layer in both models, channel by channel."""

    def __init__(self, match: Match) -> None:
        self._match, self.comparable = match, True
        self._sums = np.zeros((3, 0))  # of f*f, f*a and a*a
        self._ends: NDArray[Any] | None = None  # least and greatest of f and of a
        self._clipped = self._count = 0
        self._overflow = False

    def add(self, f: NDArray[Any], a: NDArray[Any], raw: NDArray[Any] | None, n: int) -> None:
        if f.size != a.size or a.dtype.kind != "f" or len(f) < n or f.ndim < 2:
            self.comparable = False  # pruned, or computed in integers
            return
        f, a = (_by_channel(v.reshape(f.shape)[:n].astype(np.float64), self._match.axis) for v in (f, a))
        if not np.isfinite(a).all():
            self._overflow |= bool(np.isfinite(f).all())
            a = np.nan_to_num(a, nan=0.0, posinf=0.0, neginf=0.0)
        sums = np.stack([(f * f).sum(1), (f * a).sum(1), (a * a).sum(1)])
        self._sums = sums if not self._sums.size else self._sums + sums
        ends = np.stack([f.min(1), f.max(1), a.min(1), a.max(1)])
        if self._ends is not None:
            least, most = np.minimum(ends, self._ends), np.maximum(ends, self._ends)
            ends = np.stack([least[0], most[1], least[2], most[3]])
        self._ends = ends
        span, (low, high) = self._match.span, self._match.clamp
        if span is not None and raw is not None:
            x = raw[:n]
            if low is not None or high is not None:
                x = np.clip(x, low, high)
            self._clipped += int(np.count_nonzero((x < span.low) | (x > span.high)))
            self._count += x.size

    @property
    def db(self) -> float:
        return -EXACT_DB if self._overflow else Error(float(self._sums[0].sum()), float(self._noise.sum())).db

    def found(self, fall: float, saturating: float) -> LayerFound:
        assert self._ends is not None
        f_low, f_high, a_low, a_high = self._ends
        dead, now = f_low == f_high, a_low == a_high
        db = self.db
        middle = float(
            np.median([Error(float(s), float(n)).db for s, n in zip(self._sums[0], self._noise, strict=True)])
        )
        clipped = self._clipped / self._count if self._count else None
        ratio = matched.spread(np.maximum(np.abs(f_low), np.abs(f_high)))
        lost = int((now & ~dead).sum())
        causes, tries = _advice(self._match, min(db, middle), clipped, ratio, lost, saturating, overflow=self._overflow)
        return LayerFound(
            self._match.layer, self._match.op, db, fall, middle, clipped, ratio, self._match.weight_ratio,
            int(dead.sum()), lost, saturating, self._overflow, self._match.bits, causes, tries,
        )  # fmt: skip

    @property
    def _noise(self) -> NDArray[np.float64]:
        """Of each channel; one that is the float one but for a factor has that taken out: equalization's, no error."""
        ff, fa, aa = self._sums
        with np.errstate(divide="ignore", invalid="ignore"):
            factor, alike = fa / aa, fa * fa / (ff * aa)
            moved = (fa > 0) & (np.abs(np.log2(factor)) > _RESCALED) & (alike > _ALIKE)
            noise = np.where(moved, ff - fa * fa / aa, ff - 2 * fa + aa)
        return np.asarray(np.maximum(noise, 0.0))


def _advice(
    of: Match, db: float, clipped: float | None, ratio: float, lost: int, saturating: float, *, overflow: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Causes in words and what to try, the likeliest first."""
    found: list[tuple[str, str]] = []
    if overflow:
        found.append(("values overflow", "bf16"))
    if saturating:
        share = f"{saturating:.0%} of its channels can saturate in 16-bit sums (x86 without VNNI)"
        found.append((share, _REDUCE))
    if of.weight_ratio is not None and of.weight_ratio > _UNLIKE and db < _BAD_DB:
        found.append((f"weights of channels {of.weight_ratio:.0f}x apart share a scale", "int8(per_channel=true)"))
    if clipped is not None and clipped > _CLIPPED:
        found.append((f"{clipped:.1%} of its values clipped", "int8(scale=minmax) or scale=percentile"))
    if ratio > _UNLIKE and db < _BAD_DB:
        found.append((f"its widest channel is {ratio:.0f}x the middle one", "int8(equalize=always)"))
    if lost:
        found.append((f"{lost} channels became constant", ""))
    return tuple(cause for cause, _ in found), tuple(dict.fromkeys(t for _, t in found if t))


def brief(name: str, most: int = 40) -> str:
    """The end of a long name, which tells it apart: converters join those of all that they folded."""
    return name if len(name) <= most else f"...{name[3 - most :]}"


def _by_channel(values: NDArray[Any], axis: int) -> NDArray[Any]:
    """[channels, everything else]."""
    moved = np.moveaxis(values, axis, 0)
    return moved.reshape(len(moved), -1)
