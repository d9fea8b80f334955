"""Ranges of a float TFLite model's tensors, from calibration samples (activations) and from the weights themselves.

The quantizer takes a range per tensor or channel; which range is best is decided here, so that every rule is at
hand for every operator.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.errors import UserError
from edgelathe.model import run, tflite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from edgelathe.core.dataset import Dataset
    from edgelathe.model.types import Model

Floats = NDArray[np.float32]
_BINS = 2048
_SOME = 4096  # values of a tensor that one run adds to its histogram
_SHRINK = np.linspace(1.0, 0.3, 71)  # candidates for a clipped range, as shares of the full one


@dataclass
class Range:
    """Smallest and largest value of a tensor, and a histogram between the two once both are known."""

    low: float = np.inf
    high: float = -np.inf
    counts: NDArray[np.float64] = field(default_factory=lambda: np.zeros(_BINS))

    def widen(self, values: Floats) -> None:
        """Take in more values."""
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    def count(self, values: Floats) -> None:
        """Fill the histogram; only after every value was seen by `widen`."""
        some = values.reshape(-1)[:: 1 + values.size // _SOME]
        place = (some - self.low) * (_BINS / max(self.high - self.low, 1e-30))
        self.counts += np.bincount(np.clip(place, 0, _BINS - 1).astype(np.int64), minlength=_BINS)


def activations(model: Model, data: Dataset, bits: int, rule: str) -> dict[str, tuple[float, float]]:
    """(low, high) of every float activation, by tensor name, over all samples.

    Args:
        model: float, one subgraph.
        data: samples bound to the model.
        bits: of the activations.
        rule: `minmax` takes all values in; every other clips where that lowers the squared rounding error (8 bits
            only: 16 have room enough).

    Raises:
        UserError: a model with control flow, or samples that make NaN or infinity.
    """
    if len(tflite.parse(model.data).subgraphs) > 1:
        raise UserError(model.name, "has control flow (several subgraphs)", "use int8-dynamic or fp16")
    ranges: dict[str, Range] = {}
    for name, values in _tensors(model, data):
        ranges.setdefault(name, Range()).widen(values)
    for name, r in ranges.items():
        if not np.isfinite([r.low, r.high]).all():
            raise UserError(data.name, f"tensor '{name}' is not finite on these samples", "check the preprocessing")
    if rule != "minmax" and bits == 8:
        for name, values in _tensors(model, data):
            ranges[name].count(values)
        return {name: _clip(r, bits) for name, r in ranges.items()}
    return {name: (r.low, r.high) for name, r in ranges.items()}


def weight_limit(w: Floats, axes: tuple[int, ...], bits: int, rule: str) -> Floats:
    """Largest magnitude to represent, per channel of `w` (float32; `axes` are reduced and kept as 1).

    `minmax`: the largest there is. `mse`: the share of it with the least squared rounding error, by search.
    `octav`: the fixed point of Sakr et al., "Optimal clipping and magnitude-aware differentiation" (2022), eq. 6.
    """
    return LIMITS[rule](w, axes, bits).astype(np.float32)


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


def _clip(r: Range, bits: int) -> tuple[float, float]:
    """The share of the range with the least squared error over its histogram, rounding as a uniform quantizer does."""
    centres = r.low + (np.arange(_BINS) + 0.5) * (r.high - r.low) / _BINS
    best, found = np.inf, (r.low, r.high)
    for share in _SHRINK:
        low, high = min(r.low * share, 0.0), max(r.high * share, 0.0)
        scale = max(high - low, 1e-30) / (2**bits - 1)
        error = float(r.counts @ np.square(np.clip(np.rint(centres / scale) * scale, low, high) - centres))
        if error < best:
            best, found = error, (r.low * share, r.high * share)
    return found


def _tensors(model: Model, data: Dataset) -> Iterator[tuple[str, Floats]]:
    """Every float activation of every run, by name. The plain kernels compute each tensor; delegates fuse some away."""
    interpreter = _interpreter(model)
    inputs = interpreter.get_input_details()
    batch = run.batch_size(model.signature)
    details = [
        d for d in interpreter.get_tensor_details() if d["dtype"] == np.float32 and d["name"] and all(d["shape"])
    ]
    for start in range(0, len(data) - batch + 1, batch):
        for want, have in zip(model.signature.inputs, inputs, strict=True):
            interpreter.set_tensor(have["index"], data.inputs[want.name][start : start + batch])
        interpreter.invoke()
        for d in details:
            try:
                values = interpreter.get_tensor(d["index"])
            except ValueError:  # scratch memory of a kernel
                continue
            yield d["name"], values


def _interpreter(model: Model) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that keeping all tensors takes memory
        interpreter = Interpreter(
            model_content=model.data,
            num_threads=1,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
    interpreter.allocate_tensors()
    return interpreter
