"""What the simulator computes with: grids, values on them, the arithmetic of a target, what a layer answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Reals = NDArray[np.float32]
Overflow = Literal["wrap", "saturate"]
Rounding = Literal["double", "single", "float"]
Kernels = Literal["reference", "optimized"]


@dataclass(frozen=True, eq=False)
class Grid:
    """The numbers that integers stand for: real = scale * (integer - zero point).

    Attributes:
        scales: float64, of shape [1], or [channels] along `axis`; with `block`, of the data's rank.
        zero_points: int64, of the shape of `scales`.
        bits: of an integer, 2 to 64.
        signed: two's complement, else from 0.
        axis: which axis of the data has a scale each; None: one for all.
        block: so many neighbours along `axis` share a scale (blockwise weights); 0: not blockwise.
    """

    scales: NDArray[np.float64]
    zero_points: Integers
    bits: int
    signed: bool = True
    axis: int | None = None
    block: int = 0

    @classmethod
    def of(cls, scale: float, zero_point: int = 0, bits: int = 8, *, signed: bool = True) -> Grid:
        """One scale and zero point for a whole tensor."""
        return cls(np.array([scale], np.float64), np.array([zero_point], np.int64), bits, signed)

    @property
    def low(self) -> int:
        """The smallest integer."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """The largest integer."""
        return (1 << (self.bits - int(self.signed))) - 1

    @property
    def scale(self) -> float:
        """The scale of a grid that has one."""
        return float(self.scales.reshape(-1)[0])

    @property
    def zero_point(self) -> int:
        """The zero point of a grid that has one."""
        return int(self.zero_points.reshape(-1)[0])

    def spread(self, array: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
        """`scales` or `zero_points` in a form that broadcasts against data of `shape`."""
        if self.axis is None:
            return array.reshape(-1)[:1].reshape([1] * len(shape))
        if self.block:
            return np.repeat(array, self.block, axis=self.axis)[
                tuple(slice(0, d) if a == self.axis else slice(None) for a, d in enumerate(shape))
            ]
        return array.reshape([-1 if a == self.axis else 1 for a in range(len(shape))])

    def quantize(self, real: NDArray[Any]) -> Integers:
        """The nearest integers, ties to even, clamped: for weights and inputs. Kernels round in ways of their own."""
        scales, zeros = (self.spread(a, real.shape) for a in (self.scales, self.zero_points))
        nearest: Integers = np.clip(np.rint(real / scales) + zeros, self.low, self.high).astype(np.int64)
        return nearest

    def dequantize(self, data: NDArray[Any]) -> Reals:
        """The real numbers, (integer - zero point) * scale in float32, as TFLite and ONNX Runtime compute them."""
        scales, zeros = (self.spread(a, data.shape) for a in (self.scales, self.zero_points))
        if self.bits > 16:
            wide: Reals = (data - zeros).astype(np.float32) * scales.astype(np.float32)
            return wide
        real: Reals = data.astype(np.float32)  # exact, and so is the difference
        real -= zeros.astype(np.float32)
        real *= scales.astype(np.float32)
        return real


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the simulated model: integers of any numpy integer type on a grid, or as they are where it has none.

    Without a grid `data` may also be float32 (an operator that the model computes in float), bool or indices.
    """

    data: NDArray[Any]
    grid: Grid | None = None

    @property
    def real(self) -> NDArray[Any]:
        """The numbers that it stands for."""
        return self.data if self.grid is None else self.grid.dequantize(self.data)


@dataclass(frozen=True)
class Arithmetic:
    """The arithmetic of the target.

    Attributes:
        accumulator: bits of the sums of products, 32 or 64.
        wide: the same where activations have more than 8 bits.
        overflow: what a sum outside of them becomes. It is judged on the finished sum of a layer.
        kernels: `reference` rounds by multiplier and shift as TFLite's reference kernels do, `optimized` as the kernels
            that a runtime takes by default.
        rounding: of the requantization: twice (`double`) or once (`single`) by multiplier and shift, or by a float
            factor; None: that of the format's kernels.
    """

    accumulator: int = 32
    wide: int = 64
    overflow: Overflow = "wrap"
    kernels: Kernels = "reference"
    rounding: Rounding | None = None


@dataclass(frozen=True)
class Bits:
    """Bit widths asked for, 2 to 16; None: those of the model."""

    weights: int | None = None
    activations: int | None = None

    @property
    def any(self) -> bool:
        """Whether the model is to be quantized anew."""
        return self.weights is not None or self.activations is not None


@dataclass(frozen=True, eq=False)
class Answer:
    """What one layer answered for one chunk of samples.

    Attributes:
        layer: its name, as `inspect` and recipes call it.
        op: as the format calls it.
        simulated: its first output in fixed point, [n, ...].
        exact: the same output in float32, of the float model or of the same graph without rounding; None: unknown.
        clipped: how many values lay outside of the output's grid; those cut off by an activation do not count.
        overflows: how many sums of products did not fit the accumulator.
    """

    layer: str
    op: str
    simulated: Value
    exact: NDArray[Any] | None
    clipped: int = 0
    overflows: int = 0


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a model answered for one chunk: one array a model output, in the signature's order.

    `simulated` as integers or float32 as the model gives them, `exact` in float32.
    """

    simulated: tuple[Value, ...]
    exact: tuple[NDArray[Any], ...]


Watch = Callable[[Answer], None]


class Program(Protocol):
    """A model made ready to be simulated; one module a format makes them (`tflite.program`, `qdq.program`)."""

    @property
    def batch(self) -> int | None:
        """The fixed batch of the model; None where samples may be put together freely."""

    def run(self, inputs: Mapping[str, NDArray[Any]], watch: Watch) -> Outputs:
        """One chunk of n samples: every layer's answer goes to `watch` in the order of computing, none is kept."""


@dataclass(frozen=True)
class LayerError:
    """How far a layer in fixed point is from float, over all samples.

    Attributes:
        mse: mean squared error, in the output's unit squared.
        sqnr_db: 10 log10 of signal over error energy; None: no error, or no signal.
        cosine: of the angle between both, over all samples; None where one of them is zero.
        clipped: share of values outside of the output's grid.
        overflows: sums of products that did not fit the accumulator.
        bits: of the output's integers; None: it is computed in float.
    """

    name: str
    op: str
    mse: float | None
    sqnr_db: float | None
    cosine: float | None
    clipped: float
    overflows: int
    bits: int | None
