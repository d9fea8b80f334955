"""Samples, labels and how they are scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Dataset:
    """Preprocessed samples in memory, as the model takes them.

    Attributes:
        name: the path that the user gave, for messages.
        inputs: an array [n, ...] per model input; before `bind` the only input may be called "".
        labels: [n] int64 classes, or [n, ...] float targets; None: agreement with the uncompressed model counts.
        metric: `top1 top5 balanced f1 auroc mae rmse cosine` or `module:function`.
    """

    name: str
    inputs: Mapping[str, NDArray[np.generic]]
    labels: NDArray[np.generic] | None = None
    metric: str = "top1"

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))
