"""Which samples need not be run again: those whose answer is further ahead than a change is likely to move answers.

A changed layer turns an answer only where another class gains more on it than it was behind by. How much classes gain
is known from the samples that were run, the first of which are taken at random; how likely larger gains are is read off
their tail, taken for exponential (peaks over a threshold; Coles, Statistical Modeling of Extreme Values, 4.2, at shape
0, which is on the safe side of tails that end or fall faster). Samples are left out while a thousandth of an answer in
1,000 is expected to be missed with them. This is evidence and no proof, so it is asked again once more is known. Some
samples gain much whichever layer is rounded: those that one turned are run for the others too (`known.suspects`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST = 64  # samples that are run before any is left out
_MISSED = 1e-6  # answers missed, of each sample: expected when it is left out,
_DOUBTED = 1e-5  # and from where on it is not
_TAIL, _FEWEST, _MOST = 0.05, 20, 4096  # the share of gains that is their tail, and how many at least and at most
_ERRORS = 3  # standard errors that the mean of the tail is raised by: gains of one sample's classes hang together
_WORTH = 0.9  # where so many have to be run, all are


def margins(scores: NDArray[Any]) -> NDArray[np.float32]:
    """By how much each class of scores [n, classes] is behind the best, [n, classes]; infinite for the best itself."""
    values, best = scores.astype(np.float32), (np.arange(len(scores)), scores.argmax(axis=1))
    behind = values[best][:, None] - values
    behind[best] = np.inf
    return np.asarray(behind)


def gains(want: NDArray[Any], have: NDArray[Any]) -> NDArray[np.float32]:
    """By how much each class gained on the answer of `want` [n, classes]; infinite where scores are not finite."""
    moved = have.astype(np.float32) - want.astype(np.float32)
    answer = np.arange(len(want)), want.argmax(axis=1)
    ahead = moved - moved[answer][:, None]
    ahead[~np.isfinite(ahead)] = np.inf
    ahead[answer] = -np.inf
    return np.asarray(ahead)


def others(rows: NDArray[np.intp], samples: int) -> NDArray[np.intp]:
    """The numbers below `samples` that are not among the rows, ascending."""
    rest = np.ones(samples, np.bool_)
    rest[rows] = False
    return np.flatnonzero(rest)


def is_worth(ran: int, samples: int) -> bool:
    """Whether so few have to be run that it pays to leave the others out."""
    return ran <= _WORTH * samples


@dataclass
class Screen:
    """What is known of one change.

    Attributes:
        ran: samples that were run.
        top: the largest gains on these, descending.
        left: whether each sample so far was left out, part by part.
    """

    ran: int = 0
    top: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    left: list[NDArray[np.bool_]] = field(default_factory=list)

    def add(self, samples: int, gained: NDArray[np.float32] | None, rows: NDArray[np.intp] | None) -> None:
        """Take in the next so many samples, of which `rows` were run (None: all), and the gains on those."""
        left = np.zeros(samples, np.bool_)
        if rows is not None:
            left[:] = True
            left[rows] = False
        self.left.append(left)
        self.ran += samples if rows is None else len(rows)
        self._take(gained)

    def _take(self, gained: NDArray[np.float32] | None) -> None:
        if gained is not None:
            both = np.concatenate([self.top, gained.reshape(-1)])
            self.top = np.sort(both)[::-1][:_MOST]

    def amend(self, gained: NDArray[np.float32] | None, rows: NDArray[np.intp]) -> None:
        """Take in those of the last samples that were left out and run after all."""
        self.left[-1][rows] = False
        self.ran += len(rows)
        self._take(gained)

    def rows(self, behind: NDArray[np.float32]) -> NDArray[np.intp] | None:
        """Which of the next samples, with `margins` [n, classes], are to be run; None: all."""
        if self.ran < LEAST:
            return None
        missed = self.missed(behind)
        safest = np.argsort(missed)
        out = safest[np.cumsum(missed[safest]) <= _MISSED * len(behind)]
        return others(out, len(behind)) if is_worth(len(behind) - len(out), len(behind)) else None

    def missed(self, behind: NDArray[np.float32]) -> NDArray[np.float64]:
        """How many answers, 0 to 1, leaving each sample out is expected to miss."""
        values = self.ran * (behind.shape[1] - 1)
        count = min(max(_FEWEST, math.ceil(_TAIL * values)), len(self.top) - 1)
        if count < 1 or not np.isfinite(self.top[: count + 1]).all():
            return np.ones(len(behind))
        tail = self.top[: count + 1].astype(np.float64)
        start = tail[-1]
        mean = float((tail[:-1] - start).mean()) * (1 + _ERRORS / math.sqrt(count))
        beyond = np.maximum(behind - start, 0.0) / max(mean, 1e-30)
        each = np.where(behind <= start, 1.0, count / values * np.exp(-beyond))
        return np.asarray(np.minimum(each.sum(axis=1), 1.0))

    def holds(self, behind: NDArray[np.float32]) -> bool:
        """Whether samples were rightly left out, by all that is known; `behind`: margins of all of them."""
        left = np.concatenate(self.left)
        return not left.any() or float(self.missed(behind[left]).sum()) <= _DOUBTED * len(left)
