"""Samples set aside: what is fitted to some of the samples is taken over only where it holds on others."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.compress.forward import partial
from edgelathe.core import dataset
from edgelathe.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from edgelathe.compress.forward.partial import Chunks
    from edgelathe.core.dataset import Dataset
    from edgelathe.model.types import Model

FOLDS = 4
HELD = FOLDS - 1  # the fold that no fit sees; the others also judge each other
FEWEST = 8  # different samples, two a fold
_CHUNK = 16  # samples that run at once where the model's batch is open


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples in chunks, and the fold of each [n]."""

    data: Dataset
    chunks: Chunks
    fold: NDArray[np.int64]

    @classmethod
    def of(cls, data: Dataset, model: Model, most: int, step: str) -> Samples:
        """At most so many of the samples, spread evenly, in chunks that the model takes.

        Raises UserError, naming the `step`, where there are none, or fewer than `FEWEST` differ.
        """
        rows = dataset.spread(len(data), most)
        some = dataset.take(data, rows)
        return cls(some, partial.chunks_of(model, some, _CHUNK), folds(some, step))

    @property
    def held(self) -> Chunks:
        """Those that no fit sees."""
        return partial.Chunks(dataset.take(self.data, np.flatnonzero(self.fold == HELD)), self.chunks.size)

    @property
    def held_count(self) -> int:
        """How many these are."""
        return int(np.count_nonzero(self.fold == HELD))

    @property
    def feeds(self) -> list[Mapping[str, NDArray[Any]]]:
        """Inputs by name, chunk by chunk."""
        return [self.chunks.feed(at) for at in range(len(self.chunks))]


def folds(data: Dataset, step: str) -> NDArray[np.int64]:
    """The fold 0..FOLDS-1 of each sample [n]: by its hash, so equal samples share one and the order plays no part.

    Raises UserError, naming the `step`, where fewer than `FEWEST` samples differ.
    """
    seen = []
    for i in range(len(data)):
        found = hashlib.sha256()
        for name in sorted(data.inputs):
            found.update(np.ascontiguousarray(data.inputs[name][i]).tobytes())
        seen.append(found.digest())
    rank = {digest: i for i, digest in enumerate(sorted(set(seen)))}
    if len(rank) < FEWEST:
        what = f"{len(rank)} different {'sample is' if len(rank) == 1 else 'samples are'} too few to hold some out"
        raise UserError(f"{data.name}: {step}", what, f"give at least {FEWEST}")
    return np.array([rank[digest] % FOLDS for digest in seen], np.int64)


def gains(error: NDArray[np.float64], fold: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which channels lose error on samples outside of the fit when their mean is taken away.

    Args:
        error: [n, channels].
        fold: of each sample; those of `HELD` are left out.

    The mean of the other folds is taken from one fold after the other: with it, d, a channel's squared error there
    changes by d^2 - 2 d m per sample, m the fold's own mean.
    """
    change = np.zeros(error.shape[1])
    for k in range(HELD):
        own, others = fold == k, (fold != k) & (fold != HELD)
        d, m = error[others].mean(axis=0), error[own].mean(axis=0)
        change += np.count_nonzero(own) * (d * d - 2 * d * m)
    return change < 0
