"""What is known of one layer at one width while samples are still run, and when that is enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.graph.moves import array
from edgelathe.compress.sensitivity import screening
from edgelathe.compress.sensitivity.errors import EXACT_DB, Answer, Error, joined
from edgelathe.compress.sensitivity.screening import Screen
from edgelathe.compress.sensitivity.table import Width

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgelathe.compress.integer.weighted import Weighted
    from edgelathe.compress.sensitivity.reference import Change
    from edgelathe.compress.sensitivity.scene import Scene
    from edgelathe.core.result import Accuracy

# An early end: with the SQNR known to so many dB (before a closing Softmax, behind which few samples make most of the
# error), and the drop to 1.5 points or a fifth of itself.
_REACH_DB, _REACH, _REACH_SHARE = 0.5, 0.015, 0.2


class Found:
    """What is known of one layer at one width so far."""

    def __init__(self, scene: Scene, outputs: NDArray[Any], early: bool) -> None:
        """`outputs`: room for the first output of all samples [n, ...]."""
        self._scene, self._early, self._screened = scene, early, True
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
        names, accuracy = self._scene.float.hidden or self._scene.float.outputs, self._accuracy()
        if self._n < screening.LEAST or (names and joined(self._parts).reach_db(names) > _REACH_DB) or accuracy is None:
            return False
        drop, low, high = accuracy.drop, accuracy.drop_low, accuracy.drop_high
        if drop is None or low is None or high is None:
            return False
        return max(drop - low, high - drop) <= max(_REACH * max(1.0, abs(accuracy.value)), _REACH_SHARE * abs(drop))

    def _accuracy(self) -> Accuracy | None:
        return self._scene.accuracy(np.asarray(self.outputs[: self._n]))

    def width(self, layer: Weighted, bits: int, activations: int | None, change: Change) -> Width:
        """The entry of the table. Raises AssertionError for a layer without constant weights."""
        w, answer = array(layer.node.inputs[1]), joined(self._parts)
        assert w is not None
        output = answer.db(self._scene.float.outputs)
        return Width(
            bits,
            activations,
            EXACT_DB if output is None else output,
            answer.db(self._scene.float.hidden),
            Error.of(w, change.constants[layer.weight]).db,
            self._accuracy(),
            self._scene.changed(np.asarray(self.outputs[: self._n])),
            layer.bytes(bits),
            self._n,
            self._sampled,
        )
