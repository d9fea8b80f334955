"""What is known of one layer at one width while samples are still run, and when that is enough."""

from __future__ import annotations

import math
import tempfile
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgelathe.compress.sensitivity import screening
from edgelathe.compress.sensitivity.errors import EXACT_DB, Answer, joined
from edgelathe.compress.sensitivity.screening import Screen
from edgelathe.compress.sensitivity.table import Width

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.core.result import Accuracy

# An early end: with the SQNR known to so many dB (before a closing Softmax, behind which few samples make most of the
# error), and the drop to 1.5 points or a fifth of itself.
_REACH_DB, _REACH, _REACH_SHARE = 0.5, 0.015, 0.2


class Judge(Protocol):
    """Scores a changed model on the first samples."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the model's outputs of real numbers."""

    @property
    def hidden(self) -> tuple[str, ...]:
        """Names of what goes into closing operators (Softmax, Sigmoid)."""

    def accuracy(self, outputs: NDArray[Any]) -> Accuracy | None:
        """In pairs with the float model; None where outputs are NaN."""

    def changed(self, outputs: NDArray[Any]) -> int | None:
        """How many answers are not the float model's; None where there are none."""


class Found:
    """What is known of one layer at one width so far."""

    def __init__(self, judge: Judge, outputs: NDArray[Any], early: bool) -> None:
        """`outputs`: room for the first output of all samples [n, ...]."""
        self._judge, self._early, self._screened = judge, early, True
        self.outputs = outputs
        self._begin()

    def _begin(self) -> None:
        self._n, self._sampled, self._screen = 0, 0, Screen()
        self._parts: list[Answer] = []
        self.settled = False

    def restart(self) -> None:
        """Forget all, and leave out no sample any more."""
        self._screened = False
        self._begin()

    def rows(self, margin: NDArray[np.float32] | None) -> NDArray[np.intp] | None:
        """Which of the next samples are to be run, by the margins of the float model's answers; None: all."""
        return self._screen.rows(margin) if margin is not None and self._screened else None

    def holds(self, margin: NDArray[np.float32] | None) -> bool:
        """Whether samples were rightly left out, by all that is known; `margin`: of all samples, None: none was."""
        return margin is None or self._screen.holds(margin[: self._n])

    def add(self, answer: Answer, rows: NDArray[np.intp] | None) -> None:
        """Take in what the next samples answer; `rows`: which of them were run, None: all."""
        n = len(answer.first)
        self.outputs[self._n : self._n + n] = answer.first
        self._n += n
        self._screen.add(n, answer.gains, rows)
        if rows is None:  # of some, chosen by their margin, errors would tell another story
            self._sampled += n
            self._parts.append(Answer(answer.first[:0], answer.errors))
        self.settled = self._early and self._n < len(self.outputs) and self._is_settled()

    def _is_settled(self) -> bool:
        """Whether error and loss are known well enough to rank by, and to plan with."""
        names, accuracy = self._judge.hidden or self._judge.outputs, self._accuracy()
        if self._n < screening.LEAST or (names and joined(self._parts).reach_db(names) > _REACH_DB) or accuracy is None:
            return False
        drop, low, high = accuracy.drop, accuracy.drop_low, accuracy.drop_high
        if drop is None or low is None or high is None:
            return False
        return max(drop - low, high - drop) <= max(_REACH * max(1.0, abs(accuracy.value)), _REACH_SHARE * abs(drop))

    def _accuracy(self) -> Accuracy | None:
        return self._judge.accuracy(np.asarray(self.outputs[: self._n]))

    def width(self, bits: int, activations: int | None, weights_db: float, size: int) -> Width:
        """The entry of the table, with the signal to noise of the weights and what they take."""
        answer = joined(self._parts)
        output = answer.db(self._judge.outputs)
        return Width(
            bits,
            activations,
            EXACT_DB if output is None else output,
            answer.db(self._judge.hidden),
            weights_db,
            self._accuracy(),
            self._judge.changed(np.asarray(self.outputs[: self._n])),
            size,
            self._n,
            self._sampled,
        )


def store(rows: int, samples: int, like: NDArray[Any], most: int) -> NDArray[Any]:
    """Room for the outputs [rows, samples, ...] of every width of every layer; on disk above `most` bytes."""
    shape = (rows, samples, *like.shape[1:])
    if math.prod(shape) * like.dtype.itemsize <= most:
        return np.empty(shape, like.dtype)
    with tempfile.TemporaryFile() as file:  # lives as long as the mapping
        return np.memmap(file, like.dtype, "w+", shape=shape)
