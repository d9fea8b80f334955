"""How far a changed model's values are from the float model's: summed squares, in dB."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

EXACT_DB = 200.0  # stands for "no difference"


@dataclass(frozen=True)
class Error:
    """Summed squares of values and of their errors."""

    signal: float = 0.0
    noise: float = 0.0

    def __add__(self, other: Error) -> Error:
        return Error(self.signal + other.signal, self.noise + other.noise)

    @classmethod
    def of(cls, want: NDArray[Any], have: NDArray[Any]) -> Error:
        """Of one array against another of its shape, summed in float64."""
        a, b = want.astype(np.float64), have.astype(np.float64)
        return cls(float(np.vdot(a, a)), float(np.vdot(a - b, a - b)))

    @property
    def db(self) -> float:
        """Signal to noise in dB, within ±`EXACT_DB`; values that are not finite are as bad as can be."""
        if self.noise == 0:
            return EXACT_DB
        if not math.isfinite(self.noise) or self.signal == 0:
            return -EXACT_DB
        return max(-EXACT_DB, min(EXACT_DB, 10 * math.log10(self.signal / self.noise)))


@dataclass(frozen=True, eq=False)
class Answer:
    """What a changed model gives on some samples: its first output [n, ...], and errors by name, chunk by chunk.

    `gains`: what each class gained on the float model's answer (`screening`), [n, classes]; None without classes.
    `noise`: squared errors of each of these samples, by name; None without classes.
    """

    first: NDArray[Any]
    errors: Mapping[str, tuple[Error, ...]]
    gains: NDArray[np.float32] | None = None
    noise: Mapping[str, NDArray[np.float64]] | None = None

    def db(self, names: Sequence[str]) -> float | None:
        """The worst of these values; None for none."""
        return min((sum(self.errors[n], Error()).db for n in names), default=None)

    def reach_db(self, names: Sequence[str]) -> float:
        """How far the worst `db` may be off at 95%, the chunks taken for a sample of such; infinite for one chunk.

        Ratio estimator, its variance by linearization (Cochran, Sampling Techniques, 6.3).
        """
        name = min(names, key=lambda n: sum(self.errors[n], Error()).db)
        parts, total = self.errors[name], sum(self.errors[name], Error())
        if len(parts) < 2 or not math.isfinite(total.noise):
            return math.inf
        if total.noise == 0 or total.signal == 0:
            return 0.0
        ratio = total.noise / total.signal
        squares = sum((p.noise - ratio * p.signal) ** 2 for p in parts)
        error = math.sqrt(squares * len(parts) / (len(parts) - 1)) / total.signal
        return 1.96 * error / ratio * 10 / math.log(10)


def each(want: NDArray[Any], have: NDArray[Any]) -> NDArray[np.float64]:
    """The squared error of each sample [n] of values [n, ...]."""
    off = (have.astype(np.float64) - want.astype(np.float64)).reshape(len(want), math.prod(want.shape[1:]))
    return np.asarray(np.einsum("ij,ij->i", off, off))


def joined(parts: Sequence[Answer]) -> Answer:
    """One answer from those on parts of the samples."""
    errors = {n: tuple(e for p in parts for e in p.errors[n]) for n in parts[0].errors}
    gains = [p.gains for p in parts if p.gains is not None]
    noise = [p.noise for p in parts if p.noise is not None]
    return Answer(
        np.concatenate([p.first for p in parts]),
        errors,
        np.concatenate(gains) if gains else None,
        {n: np.concatenate([p[n] for p in noise]) for n in noise[0]} if noise else None,
    )
