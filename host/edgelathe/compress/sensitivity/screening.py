"""Which samples need not be run again: those whose answer is further ahead than a change was ever seen to move answers.

A changed layer turns an answer only where another class gains more on it than it was ahead by. How much they gain is
known from the samples that were run; the rest need running only where the margin is within `_FACTOR` times the most of
that. This is evidence and no proof, so what was left out is looked at again once more is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST = 128  # samples that are run before any is left out
_FACTOR = 2.0  # of the largest gain seen: margins below it are run
_WORTH = 0.9  # where so many have to be run, all are


def margins(scores: NDArray[Any]) -> NDArray[np.float64]:
    """By how much the best of scores [n, classes] is ahead of the next, [n]."""
    best = np.partition(scores.astype(np.float64), -2, axis=1)
    return np.asarray(best[:, -1] - best[:, -2])


def gain(want: NDArray[Any], have: NDArray[Any]) -> float:
    """The most by which a class gained on the answer of `want` [n, classes]; infinite where scores are not finite."""
    moved = have.astype(np.float64) - want
    ahead = np.take_along_axis(moved, want.argmax(axis=1)[:, None], axis=1)
    most = float((moved - ahead).max(initial=0.0))
    return most if math.isfinite(most) else math.inf


@dataclass
class Screen:
    """What is known of one change: samples that were run, the largest gain on them, the least margin left out."""

    ran: int = 0
    gain: float = 0.0
    left: float = math.inf

    def add(self, count: int, most: float) -> None:
        """Take in so many samples that were run, and the largest gain on them."""
        self.ran, self.gain = self.ran + count, max(self.gain, most)

    def rows(self, margin: NDArray[np.float64]) -> NDArray[np.intp] | None:
        """Which of the next samples, of these margins [n], are to be run; None: all."""
        if self.ran < LEAST:
            return None
        wanted = margin <= _FACTOR * self.gain
        if wanted.mean() > _WORTH:
            return None
        self.left = min(self.left, float(margin[~wanted].min()))
        return np.flatnonzero(wanted)

    @property
    def holds(self) -> bool:
        """Whether no sample that was left out is within the largest gain seen by now."""
        return self.gain < self.left
