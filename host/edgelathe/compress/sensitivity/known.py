"""What is known of one layer at one width while samples are still run, and when that is enough."""

from __future__ import annotations

import math
import tempfile
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgelathe.compress.sensitivity import screening, strata
from edgelathe.compress.sensitivity.errors import EXACT_DB, Answer, joined
from edgelathe.compress.sensitivity.screening import Screen
from edgelathe.compress.sensitivity.strata import Controls, Known
from edgelathe.compress.sensitivity.table import Width

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from edgelathe.core.result import Accuracy

Key = tuple[str, int]  # a layer, and the number of its width

# An early end: with the SQNR known to so many dB (before a closing Softmax, behind which few samples make most of the
# error), and the drop to 1.5 points or a fifth of itself.
_REACH_DB, _REACH, _REACH_SHARE = 0.5, 0.015, 0.2
_EARLIEST = 128  # samples, run unseen, that this is judged by at least


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
        self._n, self._screen, self._controls = 0, Screen(), Controls()
        self._standing: NDArray[np.bool_] | None = None  # those of the controls that stand for what is left out next
        self._parts: list[Answer] = []  # of samples that were run unseen
        self._rest: list[Answer] = []  # of the others
        self.settled = False

    def restart(self) -> None:
        """Forget all, and leave out no sample any more."""
        self._screened = False
        self._begin()

    def rows(self, known: Known | None) -> NDArray[np.intp] | None:
        """Which of the next samples are to be run, by what the float model tells of them; None: all."""
        screened = self._screened and not (self._early and self._n < _EARLIEST)
        rows = self._screen.rows(known.margins) if known is not None and screened else None
        if rows is None or known is None:
            return None
        n = len(known.margins)
        left = screening.others(np.concatenate([rows, known.heaviest]), n)
        if not screening.is_worth(n - len(left), n):
            return None
        self._standing = self._controls.standing(self._screen, known, left)
        return screening.others(left, n) if self._standing.sum() >= strata.FEWEST else None

    def holds(self, margin: NDArray[np.float32] | None) -> bool:
        """Whether samples were rightly left out, by all that is known; `margin`: of all samples, None: none was."""
        return margin is None or self._screen.holds(margin[: self._n])

    def add(self, answer: Answer, rows: NDArray[np.intp] | None, known: Known | None) -> None:
        """Take in what the next samples answer; `rows`: which of them were run, None: all."""
        n = len(answer.first)
        self.outputs[self._n : self._n + n] = answer.first
        self._n += n
        self._screen.add(n, answer.gains, rows)
        if rows is None:
            self._parts.append(Answer(answer.first[:0], answer.errors))
            if known is not None and answer.noise is not None:
                self._controls.add(known, answer.noise)
        else:
            assert known is not None
            assert self._standing is not None
            assert answer.noise is not None
            errors = self._controls.errors(self._standing, known, screening.others(rows, n), answer.noise)
            self._rest.append(Answer(answer.first[:0], errors))
        self.settled = self._early and self._n < len(self.outputs) and self._is_settled()

    def turned(self, known: Known) -> NDArray[np.bool_]:
        """Which of the last samples have another answer than the float model's."""
        n = len(known.answers)
        answers = np.asarray(self.outputs[self._n - n : self._n]).reshape(n, -1).argmax(axis=1)
        return np.asarray(answers != known.answers)

    def left(self) -> NDArray[np.bool_]:
        """Which of the last samples were left out."""
        return self._screen.left[-1]

    def amend(self, answer: Answer, rows: NDArray[np.intp]) -> None:
        """Take in what those of the last samples answer that were left out and run after all.

        In the noise others stand for them still: chosen by their answers, they are no sample of any stratum.
        """
        n = len(answer.first)
        self.outputs[self._n - n : self._n][rows] = answer.first[rows]
        self._screen.amend(answer.gains, rows)

    def _is_settled(self) -> bool:
        """Whether error and loss are known well enough to rank by, and to plan with."""
        names, accuracy = self._judge.hidden or self._judge.outputs, self._accuracy()
        if self._n < _EARLIEST or (names and joined(self._parts).reach_db(names) > _REACH_DB) or accuracy is None:
            return False
        drop, low, high = accuracy.drop, accuracy.drop_low, accuracy.drop_high
        if drop is None or low is None or high is None:
            return False
        return max(drop - low, high - drop) <= max(_REACH * max(1.0, abs(accuracy.value)), _REACH_SHARE * abs(drop))

    def _accuracy(self) -> Accuracy | None:
        return self._judge.accuracy(np.asarray(self.outputs[: self._n]))

    def width(self, bits: int, activations: int | None, weights_db: float, size: int) -> Width:
        """The entry of the table, with the signal to noise of the weights and what they take."""
        answer = joined([*self._parts, *self._rest])
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
            self._screen.ran,
        )


def suspects(
    found: Mapping[Key, Found], keys: Collection[Key], widths: Sequence[int], known: Known | None
) -> dict[Key, NDArray[np.intp]]:
    """Which of the last samples were left out of a change though another one with as many bits or more turned them.

    `keys`: layer and number of its width, of the changes that the samples were run with.
    """
    if known is None:
        return {}
    turned: dict[int, NDArray[np.bool_]] = {}
    for key in keys:
        bits = widths[key[1]]
        turned[bits] = found[key].turned(known) | turned.get(bits, np.zeros(len(known.answers), np.bool_))
    wide = {bits: np.logical_or.reduce([t for b, t in turned.items() if b >= bits]) for bits in turned}
    rows = {key: np.flatnonzero(found[key].left() & wide[widths[key[1]]]) for key in keys}
    return {key: some for key, some in rows.items() if len(some)}


def store(rows: int, samples: int, like: NDArray[Any], most: int) -> NDArray[Any]:
    """Room for the outputs [rows, samples, ...] of every width of every layer; on disk above `most` bytes."""
    shape = (rows, samples, *like.shape[1:])
    if math.prod(shape) * like.dtype.itemsize <= most:
        return np.empty(shape, like.dtype)
    with tempfile.TemporaryFile() as file:  # lives as long as the mapping
        return np.memmap(file, like.dtype, "w+", shape=shape)
