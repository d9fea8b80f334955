"""Channels rescaled for the least rounding noise of activations and weights together, as the samples show it.

A factor per channel moved from what makes a value to what reads it changes nothing but the rounding. The value's step
is the range of its widest channel, so channels of small range want to be made larger; then the weights that read them
get smaller and are rounded more coarsely beside the larger ones. SmoothQuant (Xiao et al., 2022) trades the one for
the other by a fixed rule; here both noises are written out, by squares of steps, and their sum is made least. It is a
sum of products that are convex in the logarithms of the factors, so there is one least value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.calibrate import ranges
from edgelathe.compress.graph.moves import array, is_depthwise, layer, name_of, number, set_constant
from edgelathe.compress.integer import tied
from edgelathe.compress.types import Note
from edgelathe.core import dataset
from edgelathe.model import onnx as onnx_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx_ir as ir

    from edgelathe.calibrate.statistics import Statistics
    from edgelathe.compress.graph.moves import Names
    from edgelathe.compress.integer.tied import Tied
    from edgelathe.core.dataset import Dataset

Array = NDArray[np.float64]
_SAMPLES = 64  # that ranges of channels are read from
_STEPS, _ENOUGH = 200, 1e-5  # of the descent; a gain below which it ends
_MOST = float(np.log(8.0))  # of a factor, either way: few samples say little of channels that hardly ever speak
_LEAST_GAIN = 0.01  # of the noise's logarithm


@dataclass(frozen=True, eq=False)
class Term:
    """Noise size * max(reach * s)^2 * sum(weight / s^2), summed over outputs; s the factors, or 1 / s.

    `size` [o], `reach` [o, channels], `weight` [channels]. `inverse`: of 1 / s.
    """

    size: Array
    reach: Array
    weight: Array
    inverse: bool


@dataclass(frozen=True, eq=False)
class Found:
    """Sets of tied values, and what samples and the graph say of them: enough for the factors of any bits."""

    sets: tuple[Tied, ...]
    seen: Mapping[str, Statistics]
    gain: Mapping[ir.Value, Array]

    def factors(self, of: Tied, bits: Callable[[ir.Node], int]) -> tuple[Array, float] | None:
        """Those of least noise [channels], and the logarithm of what it is divided by; None where too little is won.

        `bits`: of the weights of a layer.
        """
        terms = noise(of, self.seen, self.gain, bits)
        if terms is None:
            return None
        factors, gained = least(terms, of.channels)
        factors[dead(of, self.seen)] = 1.0  # samples say nothing of these
        return (factors, gained) if gained >= _LEAST_GAIN else None


def look(
    model: ir.Model, name: str, data: Dataset, allowed: Callable[[ir.Node], bool], wanted: Callable[[Tied], bool]
) -> Found:
    """The sets that may be rescaled, with ranges from a pass over some samples where there are any.

    Raises UserError where activations are not finite.
    """
    sets = tuple(t for t in tied.find(model.graph, allowed) if wanted(t))
    if not sets:
        return Found((), {}, {})
    looked: dict[str, int | None] = {name_of(v): None for v in model.graph.inputs}  # of bad values, the first is named
    for t in sets:
        looked |= dict.fromkeys(map(name_of, (*t.stored, *(n.inputs[0] for n in t.readers))), 1)
    some = dataset.take(data, dataset.spread(len(data), _SAMPLES))
    seen = ranges.collect(onnx_model.from_ir(model, name), some, looked)
    return Found(sets, seen, tied.gains(model.graph))


def rescale(
    model: ir.Model,
    name: str,
    names: Names,
    data: Dataset,
    allowed: Callable[[ir.Node], bool],
    bits: Callable[[ir.Node], int],
    wanted: Callable[[Tied], bool] = lambda _: True,
) -> tuple[Note, ...]:
    """Rescale in place what gains; a note per set of tied values.

    Args:
        model: in float, shapes inferred.
        name: of its file.
        names: of the graph.
        data: calibration samples.
        allowed: which nodes may be changed.
        bits: of the weights of a layer.
        wanted: which sets are looked at.

    Raises UserError where activations are not finite.
    """
    found = look(model, name, data, allowed, wanted)
    notes = []
    for t in found.sets:
        best = found.factors(t, bits)
        if best is None:
            continue
        factors, gained = best
        for node in t.makers:
            _divide_outputs(node, factors, names)
        for node in t.readers:
            w = array(node.inputs[1])
            assert w is not None
            set_constant(node, 1, scaled_inputs(node, w, factors).astype(np.float32), names)
        what = f"channels rescaled {factors.min():.2g} to {factors.max():.2g} times"
        notes.append(Note(layer(t.makers[0]), True, f"{what}, {10 * gained / np.log(10):.1f} dB less noise foreseen"))
    return tuple(notes)


def noise(
    of: Tied, seen: Mapping[str, Statistics], gain: Mapping[ir.Value, Array], bits: Callable[[ir.Node], int]
) -> list[Term] | None:
    """What rounding of the values and of the weights that read them adds to the output; None where nothing is known."""
    terms = []
    for value in of.stored:
        channels = seen[name_of(value)].channels
        if channels is None or not channels.count:
            return None
        reach = np.maximum(channels.high, 0) - np.minimum(channels.low, 0)
        weight = _each(gain.get(value), of.channels)
        terms.append(Term(np.full(1, 1 / 255**2), reach[None], weight, True))
    for node in of.readers:
        channels = seen[name_of(node.inputs[0])].channels
        if channels is None or not channels.count:
            return None
        w = tied.weights_of(node)
        if len(w) > 1:  # an output of its own for each channel, or few: its step follows the factor
            if not is_depthwise(node):
                return None
            continue
        size = _each(gain.get(node.outputs[0]), w.shape[1])
        square = (channels.variance + np.square(channels.mean)) * w.shape[3]
        half = 2.0 ** (bits(node) - 1) - 0.5
        terms.append(Term(size / half**2, np.abs(w[0]).max(axis=2), square, False))
    return terms if any(_size(t).sum() > 0 for t in terms) else None


def dead(of: Tied, seen: Mapping[str, Statistics]) -> NDArray[np.bool_]:
    """Which channels [channels] hold one number only on all samples, in some value."""
    found = np.zeros(of.channels, bool)
    for value in of.stored:
        channels = seen[name_of(value)].channels
        assert channels is not None
        found |= channels.low == channels.high
    return found


def least(terms: Sequence[Term], channels: int) -> tuple[Array, float]:
    """The factors [channels] of least noise, and the logarithm of what it is divided by; gradient descent.

    A factor that all channels share changes nothing: their geometric mean is 1, but for what keeps each within `_MOST`.
    """
    u = np.zeros(channels)
    start, slope = _noise(terms, u)
    now, size = start, 1.0
    for _ in range(_STEPS):
        after = np.clip(u - size * slope, -_MOST, _MOST)
        value, steeper = _noise(terms, after)
        if value > now:
            size /= 2
            if size < _ENOUGH:
                break
            continue
        gained, u, now, slope = now - value, after, value, steeper
        size *= 1.5
        if gained < _ENOUGH:
            break
    return np.exp(u - np.clip(u.mean(), u.max() - _MOST, u.min() + _MOST)), start - now


def _noise(terms: Sequence[Term], u: Array) -> tuple[float, Array]:
    """Logarithm of the noise at s = exp(u) and its gradient; the norm of order 8 stands for the largest."""
    total, slope = 0.0, np.zeros_like(u)
    for t in terms:
        e = np.exp(-u if t.inverse else u)
        top = np.maximum(t.reach.max(axis=1, keepdims=True), 1e-30)
        shares = t.reach / top * e
        for _ in range(3):
            shares = shares * shares
        sums = np.maximum(shares.sum(axis=1), 1e-300)
        size = t.size * np.square(top[:, 0]) * np.sqrt(np.sqrt(sums))
        weight = t.weight / np.square(e)
        total += float(size.sum() * weight.sum())
        own = 2 * (weight.sum() * ((size / sums) @ shares) - size.sum() * weight)
        slope += -own if t.inverse else own
    return float(np.log(total)), slope / total


def _each(gain: Array | None, channels: int) -> Array:
    """One for each channel; of what counts channels otherwise, the mean."""
    known = np.zeros(1) if gain is None else gain
    return np.broadcast_to(known if known.size == channels else known.mean(), channels)


def _size(t: Term) -> Array:
    return np.asarray(t.size * np.square(t.reach.max(axis=1)) * t.weight.sum(), np.float64)


def _divide_outputs(node: ir.Node, factors: Array, names: Names) -> None:
    w, bias = array(node.inputs[1]), array(node.inputs[2]) if len(node.inputs) > 2 else None
    assert w is not None
    first = node.op_type == "Conv" or number(node, "transB", 0)
    shape = [-1 if i == (0 if first else w.ndim - 1) else 1 for i in range(w.ndim)]
    set_constant(node, 1, (w / factors.reshape(shape)).astype(np.float32), names)
    if bias is not None:
        set_constant(node, 2, (bias / factors).astype(np.float32), names)


def scaled_inputs(node: ir.Node, weights: NDArray[Any], factors: Array) -> Array:
    """Weights, in the form that the node has them, times a factor for each channel that it reads."""
    if node.op_type == "Conv":
        groups = int(number(node, "group", 1))
        own = factors.reshape(groups, 1, weights.shape[1], *[1] * (weights.ndim - 2))
        return np.asarray((weights.reshape(groups, -1, *weights.shape[1:]) * own).reshape(weights.shape), np.float64)
    return np.asarray(weights * (factors[None] if number(node, "transB", 0) else factors[:, None]), np.float64)
