"""Errors of fixed point against float: sums over chunks for each layer, and the differences of predictions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.model.fixed.types import Answer, LayerError

if TYPE_CHECKING:
    from numpy.typing import NDArray


_BLOCK = 1 << 15  # numbers that stay in a processor's cache


@dataclass
class Sums:
    """Running sums of one pair of tensors, in float64, so that it does not matter how samples are cut in chunks."""

    count: int = 0
    signal: float = 0.0
    simulated: float = 0.0
    noise: float = 0.0
    product: float = 0.0

    def add(self, exact: NDArray[Any], simulated: NDArray[Any]) -> None:
        """Take up one chunk. Both of one shape."""
        if exact.shape != simulated.shape:
            raise ValueError(f"{exact.shape} against {simulated.shape}")
        x, y = exact.reshape(-1), simulated.reshape(-1)
        for start in range(0, x.size, _BLOCK):
            a, b = (v[start : start + _BLOCK].astype(np.float64) for v in (x, y))
            self.count += a.size
            self.signal += float(a @ a)
            self.simulated += float(b @ b)
            self.product += float(a @ b)
            b -= a
            self.noise += float(b @ b)

    @property
    def mse(self) -> float | None:
        """Mean squared error; None before the first value."""
        return self.noise / self.count if self.count else None

    @property
    def sqnr_db(self) -> float | None:
        """Signal to quantization noise, 10 log10(sum x^2 / sum e^2); None where one of them is zero."""
        return 10 * math.log10(self.signal / self.noise) if self.signal > 0 and self.noise > 0 else None

    @property
    def cosine(self) -> float | None:
        """Cosine of the angle between both; None where one of them is zero."""
        norm = math.sqrt(self.signal) * math.sqrt(self.simulated)
        return self.product / norm if norm > 0 else None


class Layers:
    """The errors of all layers, gathered chunk by chunk in the order in which they run."""

    def __init__(self) -> None:
        self._sums: dict[str, Sums] = {}
        self._counts: dict[str, tuple[str, int, int, int, int | None]] = {}

    def watch(self, answer: Answer, filled: tuple[int, int] | None = None) -> None:
        """Take up what one layer answered, whatever its axes.

        `filled`: only the first so many samples of a fixed batch of so many count, the others fill it up.
        """
        sums, simulated = self._sums.setdefault(answer.layer, Sums()), answer.simulated
        if answer.exact is not None:
            exact, real = answer.exact, simulated.real
            if filled is not None and exact.shape[:1] == filled[1:]:
                exact, real = exact[: filled[0]], real[: filled[0]]
            sums.add(exact, real)
        grid = simulated.grid
        _, values, clipped, overflows, _ = self._counts.get(answer.layer, ("", 0, 0, 0, None))
        self._counts[answer.layer] = (
            answer.op,
            values + simulated.data.size,
            clipped + answer.clipped,
            overflows + answer.overflows,
            grid.bits if grid else None,
        )

    def errors(self) -> tuple[LayerError, ...]:
        """One record a layer."""
        return tuple(
            LayerError(name, op, s.mse, s.sqnr_db, s.cosine, clipped / max(1, values), overflows, bits)
            for (name, s), (op, values, clipped, overflows, bits) in zip(
                self._sums.items(), self._counts.values(), strict=True
            )
        )
