"""Outputs of a data set on a device, piece by piece: neither its memory nor its disk need hold all samples."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Array = NDArray[np.generic]
Arrays = dict[str, Array]

#: Bytes of the samples that are sent at a time.
PIECE = 32 << 20

#: Bytes up to which all samples stay on the device: the next model finds them there.
STAYS = 256 << 20


class Inferable(Protocol):
    """What `evaluate` takes of a session."""

    def infer(self, first: int, count: int) -> list[Array]:
        """Outputs of `count` samples."""


class Feedable(Inferable, Protocol):
    """What `stream` takes of a session."""

    def feed(self, arrays: Mapping[str, Array]) -> int:
        """The samples that it runs on from now on."""


def pieces(inputs: Mapping[str, Array], batch: int = 1, size: int = PIECE) -> Iterator[tuple[int, Arrays]]:
    """(first sample, arrays) of about `size` bytes each, in multiples of `batch`; small data whole, as they are."""
    n = len(next(iter(inputs.values())))
    each = max(1, sum(a.nbytes for a in inputs.values()) // n)
    count = max(batch, size // each // batch * batch)
    if count >= n:
        yield 0, dict(inputs)
        return
    for first in range(0, n, count):
        yield first, {name: a[first : first + count] for name, a in inputs.items()}


def stream(
    session: Feedable,
    inputs: Mapping[str, Array],
    *,
    batch: int = 1,
    first: int = 0,
    forget: Callable[[Arrays], None] | None = None,
    size: int = PIECE,
) -> Iterator[list[Array]]:
    """Outputs of all samples from `first` on, in blocks, an array per output.

    Args:
        session: an open one; it is fed by this.
        inputs: an array [n, ...] per model input.
        batch: the model's fixed batch; blocks are multiples of it.
        first: samples before it are done already.
        forget: told each piece that the device need not keep, when there are more than STAYS bytes.
        size: bytes of a piece.
    """
    large = sum(a.nbytes for a in inputs.values()) > STAYS
    for at, arrays in pieces(inputs, batch, size):
        n = len(next(iter(arrays.values())))
        if at + n <= first:
            continue
        session.feed(arrays)
        yield from evaluate(session, n, batch=batch, first=max(0, first - at))
        if large and forget:
            forget(arrays)


def evaluate(
    session: Inferable,
    n: int,
    *,
    block: int | None = None,
    batch: int = 1,
    first: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[list[Array]]:
    """Outputs of samples `first` to n, an array per output and block: a caller can show progress and stop early.

    Blocks hold `block` samples; where it is None as many as take about half a second, in multiples of `batch`.
    """
    at, size = first, block or batch
    while at < n:
        count, begun = min(size, n - at), clock()
        yield session.infer(at, count)
        at += count
        if block is None:
            seconds = max(clock() - begun, 1e-3)
            wanted = int(min(4 * size, size * 0.5 / seconds))  # grows fourfold at most: the first call is the slowest
            size = max(batch, min(wanted, 4096) // batch * batch)
