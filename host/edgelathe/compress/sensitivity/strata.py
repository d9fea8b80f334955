"""The noise that a change makes on all samples, where some of them were left out.

Samples that were run count themselves. For those that were left out stand others that were run unseen, at random, and
would have been left out by the same rule (poststratification; Cochran, Sampling Techniques, 5A.9). Behind a Softmax few
samples make most of the noise: those whose answers are near to each other. How much of an error reaches the output is
known there from the float model, to first order, so noise is compared to that (ratio estimate in each stratum, 6.10),
and the samples where most of it does are run whatever their margin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.sensitivity import screening
from edgelathe.compress.sensitivity.errors import Error

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.compress.sensitivity.screening import Screen

FEWEST = 10  # samples that may stand for those left out
_MOST = 512  # that are kept for it
_HEAVIEST = 1 / 16  # of the samples: those whose outputs an error reaches most


@dataclass(frozen=True, eq=False)
class Known:
    """What the float model tells of n samples.

    Attributes:
        answers: the best class of each sample, [n].
        margins: by how much each class is behind the answer, [n, classes].
        signal: summed squares of each value, by name.
        reach: how much of the square of an error in the scores is left in each value, up to a factor, by name: [n].
        heaviest: the samples of a value that an error reaches in some much more than in others; none without such.
    """

    answers: NDArray[np.intp]
    margins: NDArray[np.float32]
    signal: Mapping[str, float]
    reach: Mapping[str, NDArray[np.float64]]
    heaviest: NDArray[np.intp]

    @classmethod
    def of(cls, values: Mapping[str, NDArray[Any]], scores: str) -> Known:
        """From outputs and hidden values [n, classes], one of them the scores."""
        signal = {k: float(np.square(v, dtype=np.float64).sum()) for k, v in values.items()}
        reach = {k: np.ones(len(v)) if k == scores else reaching(v) for k, v in values.items()}
        most = [np.argsort(-r)[: round(_HEAVIEST * len(r))] for r in reach.values() if r.min() < r.max()]
        heaviest = np.concatenate(most) if most else np.zeros(0, np.intp)
        return cls(values[scores].argmax(axis=1), screening.margins(values[scores]), signal, reach, heaviest)


def reaching(values: NDArray[Any]) -> NDArray[np.float64]:
    """The squared norm of what a closing Softmax or Sigmoid does to small errors, [n]; 1 behind anything else.

    Softmax's derivative is diag(p) - p p', Sigmoid's diag(p (1 - p)): known from their values [n, classes] alone.
    """
    p = values.astype(np.float64)
    if p.min() < 0 or p.max() > 1:
        return np.ones(len(p))
    own, squares = np.square(p * (1 - p)).sum(axis=1), p * p
    if not np.allclose(p.sum(axis=1), 1, atol=1e-3):
        return np.asarray(own)
    return np.asarray(own + np.maximum(squares.sum(axis=1) ** 2 - (squares * squares).sum(axis=1), 0.0))


@dataclass
class Controls:
    """Samples that were run unseen, with the noise of one change on each of them, part by part."""

    known: list[Known] = field(default_factory=list)
    noise: list[Mapping[str, NDArray[np.float64]]] = field(default_factory=list)
    count: int = 0

    def add(self, known: Known, noise: Mapping[str, NDArray[np.float64]]) -> None:
        """Take in samples, all of which were run; of many the first ones do."""
        if self.count < _MOST:
            self.known.append(known)
            self.noise.append(noise)
            self.count += len(known.margins)

    def standing(self, screen: Screen, known: Known, left: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Which of them would have been left out, as these of the next samples are."""
        fine = screen.missed(np.concatenate([k.margins for k in self.known]))
        found = fine <= screen.missed(known.margins[left]).max(initial=0.0)
        for name, reach in known.reach.items():
            found &= np.concatenate([k.reach[name] for k in self.known]) <= reach[left].max(initial=0.0)
        return np.asarray(found)

    def errors(
        self, standing: NDArray[np.bool_], known: Known, left: NDArray[np.intp], ran: Mapping[str, NDArray[np.float64]]
    ) -> dict[str, tuple[Error]]:
        """Of the next samples, by name: `ran` is the noise of those that were run, `left` numbers the others."""
        found = {}
        for name, reach in known.reach.items():
            noise = float(np.concatenate([n[name] for n in self.noise])[standing].sum())
            base = float(np.concatenate([k.reach[name] for k in self.known])[standing].sum())
            times = float(reach[left].sum()) / base if base > 0 else len(left) / float(standing.sum())
            found[name] = (Error(known.signal[name], float(ran[name].sum()) + noise * times),)
        return found
