"""Runs of a TFLite model on samples, and which of them are set aside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.corrections import held_out
from edgelathe.compress.tflite.frontier import feeds
from edgelathe.core import dataset
from edgelathe.core.dataset import Dataset
from edgelathe.model import run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from edgelathe.model.types import Model


@dataclass(frozen=True, eq=False)
class Runs:
    """Inputs of each run by tensor, of a compressed file and of the float one; the fold of each run [n].

    `held`: the samples of the runs that no fit sees.
    """

    mine: Sequence[Mapping[int, NDArray[Any]]]
    theirs: Sequence[Mapping[int, NDArray[Any]]]
    fold: NDArray[np.int64]
    held: Dataset

    @classmethod
    def of(cls, mine: Model, theirs: Model, data: Dataset, most: int, step: str) -> Runs:
        """Runs of at most so many samples, spread evenly.

        Raises UserError, naming the `step`, where too few of them differ.
        """
        rows = dataset.spread(len(data), most)
        ours, wanted = list(feeds(mine, data, rows)), list(feeds(theirs, data, rows))
        stacked = {str(t): np.stack([inputs[t] for inputs in wanted]) for t in wanted[0]}
        fold, batch = held_out.folds(Dataset(data.name, stacked), step), run.batch_size(mine.signature)
        held = [rows[i * batch : (i + 1) * batch] for i in np.flatnonzero(fold == held_out.HELD)]
        return cls(ours, wanted, fold, dataset.take(data, np.concatenate(held)))
