"""Statistics that a graph computes itself: each tensor leaves a few numbers, and its memory is free for the next one.

Beside the model run reductions (range, mean and mean square, per channel where asked) and a strided cut of the values
for the histogram. What leaves the runtime is kilobytes a tensor, and none has to stay in memory until the sample ends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.calibrate import histogram
from edgelathe.calibrate.statistics import COUNTED, Channels, Statistics, stride

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

OPSET = 11  # the lowest whose Slice takes steps, and that all models here have
_AXES_AS_INPUT = 18  # the opset from which reductions take their axes as an input


@dataclass(frozen=True)
class Probe:
    """What is asked of one float32 tensor: its `shape` of one run, none of it 0, and the axis that counts channels."""

    tensor: str
    shape: tuple[int, ...]
    axis: int | None

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the graph's outputs that tell of it: low, high, mean, some values, mean square of channels."""
        kinds = ("low", "high", "mean", "some", *(() if self.axis is None else ("square",)))
        return tuple(f"{self.tensor}:{kind}" for kind in kinds)

    @property
    def rows(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shape of at most 3 axes that it is looked at in, and which of them are reduced."""
        if self.axis is None:
            return (-1,), (0,)
        before, channels = math.prod(self.shape[: self.axis]), self.shape[self.axis]
        after = math.prod(self.shape[self.axis + 1 :])
        if before == 1:  # fewer axes are what the quick kernels are for
            return (channels, after), (1,)
        return ((before, channels), (0,)) if after == 1 else ((before, channels, after), (0, 2))


def beside(probes: Sequence[Probe], opset: int) -> onnx.GraphProto:
    """The nodes, constants and outputs of these probes, to be merged into the model's graph."""
    import onnx

    made = onnx.GraphProto()
    constants: dict[tuple[int, ...], str] = {}

    def constant(*values: int) -> str:
        if values not in constants:
            constants[values] = f"probe:{','.join(map(str, values))}"
            made.initializer.append(onnx.numpy_helper.from_array(np.array(values, np.int64), constants[values]))
        return constants[values]

    def node(op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        made.node.append(onnx.helper.make_node(op, inputs, [output], **attributes))
        return output

    def reduced(op: str, source: str, axes: tuple[int, ...], output: str) -> None:
        if opset >= _AXES_AS_INPUT:
            node(op, [source, constant(*axes)], output, keepdims=0)
        else:
            node(op, [source], output, axes=axes, keepdims=0)

    for p in probes:
        low, high, mean, some, *square = p.outputs
        shape, axes = p.rows
        flat = node("Reshape", [p.tensor, constant(-1)], f"{p.tensor}:flat")
        rows = flat if p.axis is None else node("Reshape", [p.tensor, constant(*shape)], f"{p.tensor}:rows")
        reduced("ReduceMin", rows, axes, low)
        reduced("ReduceMax", rows, axes, high)
        reduced("ReduceMean", rows, axes, mean)
        if square:
            reduced("ReduceSumSquare", rows, axes, square[0])
        size = math.prod(p.shape)
        step = stride(size, COUNTED)
        node("Slice", [flat, constant(0), constant(size), constant(0), constant(step)], some)
        made.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in p.outputs)
    return made


def read(probe: Probe, found: Mapping[str, NDArray[np.float32]]) -> Statistics:
    """Statistics of one run from its outputs by name. Raises ValueError where the tensor is not finite."""
    low, high, mean, some, *square = (found[name] for name in probe.outputs)
    # Reductions may skip NaN on their way to the least and the largest, a mean does not.
    if not (np.isfinite(low).all() and np.isfinite(high).all()) or np.isnan(mean).any():
        raise ValueError(f"tensor '{probe.tensor}' is not finite")
    channels = None if probe.axis is None else _channels(probe, low, high, mean, square[0])
    counted = histogram.extend(histogram.EMPTY, some)
    return Statistics(probe.tensor, float(low.min()), float(high.max()), counted, probe.shape, channels, 1)


def _channels(probe: Probe, low: Any, high: Any, mean: Any, square: Any) -> Channels:
    """Moments in float64; where float32 could not hold the sum, the largest that the range allows (Popoviciu, 1935)."""
    assert probe.axis is not None
    count = math.prod(probe.shape) // probe.shape[probe.axis]
    low, high, mean, square = (np.asarray(v, np.float64) for v in (low, high, mean, square))
    mean = np.clip(mean, low, high)
    with np.errstate(invalid="ignore"):
        m2 = np.where(np.isfinite(square), np.maximum(square - count * mean**2, 0), count * (high - low) ** 2 / 4)
    return Channels(probe.axis, count, mean, m2, low, high)
