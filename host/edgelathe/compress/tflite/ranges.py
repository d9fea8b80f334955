"""Ranges of a float TFLite model's tensors: of activations from calibration samples, of weights from themselves.

The quantizer takes a range per tensor or channel; which range is best is decided here, by the rules of `calibrate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgelathe.calibrate import scales, statistics
from edgelathe.compress.tflite import statistics as tflite_statistics
from edgelathe.core.errors import UserError
from edgelathe.model import tflite

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgelathe.calibrate.statistics import Statistics
    from edgelathe.core.dataset import Dataset
    from edgelathe.model.types import Model

Floats = NDArray[np.float32]
_LEVELS = 256
_SHORT = 2**15 - 1  # the largest 16-bit integer that is used
_INPUT_VALUES = 1 << 18  # of each input that its grid is fitted to
_SHRINK = np.linspace(1.0, 0.3, 71)  # candidates for a clipped range, as shares of the full one


@dataclass(frozen=True)
class Rule:
    """How the range of an activation is chosen: a name of `scales.RULES`, and the share of `percentile` in %."""

    name: str = "auto"
    percentile: float = 99.99


def activations(
    model: Model, data: Dataset, bits: int, usual: Rule, own: Mapping[str, Rule] | None = None
) -> dict[str, tuple[float, float]]:
    """(low, high) of every float activation, by tensor name, from one pass over all samples.

    Args:
        model: float, one subgraph.
        data: samples bound to the model.
        bits: of the activations; 16 have room enough, nothing is clipped.
        usual: the rule of every tensor that is not among `own`.
        own: rules of single tensors, by name.

    Raises:
        UserError: a model with control flow, or samples that make NaN or infinity.
    """
    parsed = tflite.parse(model.data)
    if len(parsed.subgraphs) > 1:
        raise UserError(model.name, "has control flow (several subgraphs)", "use int8-dynamic or fp16")
    found = tflite_statistics.collect(model, data)
    names = {t: tensor.name for t, tensor in enumerate(parsed.main.tensors)}
    sums = {names[p.term]: names[p.clamped] for p in tflite_statistics.parts(parsed.main)}
    out = {}
    for name in names.values():
        if name not in found:
            continue
        s, rule = found[name], (own or {}).get(name, usual)
        if bits == 8:
            seen = found[tflite_statistics.seen(name)] if rule.name == "auto" and name in sums else None
            span = scales.seen(seen, found[sums[name]], _LEVELS) if seen else _span(s, rule)
            out[name] = _ends(
                _fitted(span, s, data.inputs[name]) if name in data.inputs else scales.affine(*span, True)
            )
        else:
            out[name] = (s.low, s.high) if s.low or s.high else (-float(_SHORT), float(_SHORT))
    return out


def _span(s: Statistics, rule: Rule) -> tuple[float, float]:
    return scales.RULES[rule.name](s, _LEVELS, rule.percentile)


def _fitted(span: tuple[float, float], s: Statistics, values: Floats) -> scales.Grid:
    """Of an input of the model: its values were few levels once, which a grid may hit."""
    return scales.fit(statistics.thin(values, _INPUT_VALUES), (span, (s.low, s.high)), signed=True)


def _ends(grid: scales.Grid) -> tuple[float, float]:
    """The reals that the first and last integer stand for, from which the quantizer finds the grid again."""
    return (grid.low - grid.zero) * grid.scale, (grid.high - grid.zero) * grid.scale


def weight_limit(w: Floats, axes: tuple[int, ...], bits: int, rule: str, least: Floats | None = None) -> Floats:
    """Largest magnitude to represent, per channel of `w` (float32; `axes` are reduced and kept as 1).

    `minmax`: the largest there is. `mse`: the share of it with the least squared rounding error, by search.
    `octav`: the fixed point of Sakr et al., "Optimal clipping and magnitude-aware differentiation" (2022), eq. 6.
    None is below `least`, which a bias may ask for. Channels of zeros get the limit of the widest one, 1 a step where
    all are zero: their scale is of no use, but a kernel divides by it.
    """
    limit = LIMITS[rule](w, axes, bits).astype(np.float32)
    widest = limit.max() if limit.size and limit.max() > 0 else np.float32(2 ** (bits - 1) - 1)
    limit = np.where(limit > 0, limit, widest).astype(np.float32)
    return limit if least is None else np.maximum(limit, least.reshape(limit.shape)).astype(np.float32)


def _largest(w: Floats, axes: tuple[int, ...], _: int) -> Floats:
    return np.asarray(np.abs(w).max(axis=axes, keepdims=True))


def _least_squares(w: Floats, axes: tuple[int, ...], bits: int) -> Floats:
    top, steps = _largest(w, axes, bits), 2 ** (bits - 1) - 1
    best, limit = np.full(top.shape, np.inf), top
    for share in _SHRINK:
        scale = np.maximum(top * share / steps, 1e-30)
        error = np.square(np.clip(np.rint(w / scale), -steps, steps) * scale - w).sum(axis=axes, keepdims=True)
        limit, best = np.where(error < best, top * share, limit), np.minimum(error, best)
    return np.asarray(limit)


def _octav(w: Floats, axes: tuple[int, ...], bits: int) -> Floats:
    size = np.abs(w)
    limit = size.mean(axis=axes, keepdims=True)
    for _ in range(20):
        out = size > limit
        inner = 4.0**-bits / 3 * (~out).sum(axis=axes, keepdims=True)
        limit = (size * out).sum(axis=axes, keepdims=True) / np.maximum(
            inner + out.sum(axis=axes, keepdims=True), 1e-30
        )
    return np.asarray(np.minimum(limit, _largest(w, axes, bits)))


LIMITS: Mapping[str, Callable[[Floats, tuple[int, ...], int], Floats]] = {
    "minmax": _largest,
    "mse": _least_squares,
    "octav": _octav,
}
