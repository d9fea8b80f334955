"""Inner values of a block of samples, in memory that the next block takes over.

New memory costs a page fault for each 4 kB, which takes longer than writing these does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from edgelathe.compress.forward.partial import Arrays


class Inner:
    """The values of so many chunks at most.

    Attributes:
        chunks: of each chunk by name, until another block's are put there.
        even: whether all chunks that were ever put here have values of the same shapes.
    """

    def __init__(self, like: Arrays, count: int) -> None:
        """`like`: the values of one chunk."""
        self._all = {k: np.empty((count, *v.shape), v.dtype) for k, v in like.items()}
        self.chunks: list[Arrays] = [{} for _ in range(count)]
        self.even = True

    def put(self, at: int, got: Arrays) -> None:
        """Take in the values of a chunk; one of another shape is kept as it is."""
        for name, value in got.items():
            place = self._all[name][at]
            fits = value.shape == place.shape
            if fits:
                place[...] = value
            self.chunks[at][name] = place if fits else value
            self.even = self.even and fits

    def real(self, name: str, counts: Sequence[int]) -> NDArray[Any]:
        """One value of the first chunks, so many samples of each, [n, ...]."""
        return np.concatenate([self.chunks[at][name][:n] for at, n in enumerate(counts)])

    def rows(self, names: Iterable[str], rows: NDArray[np.intp]) -> Arrays:
        """Some samples of values that are even, and have their samples along the first axis."""
        return {k: (v := self._all[k]).reshape(-1, *v.shape[2:])[rows] for k in names}
