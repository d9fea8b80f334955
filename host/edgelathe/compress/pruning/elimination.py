"""The order in which channels go: backward elimination with exact least-squares refits of the layers that read them.

Source: the block form of the optimal brain surgeon (Hassibi and Stork, 1993), as in ZipLM (Kurtic et al., 2023),
section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from edgelathe.compress.weights.repair import Matrix

_STEPS = 64  # a wide group loses several units at a time
_TRIALS = (0.2, 0.5, 0.85)  # shares of the removable units after which the refitted weights are kept
_RIDGE = 1e-4


@dataclass(frozen=True, eq=False)
class Reader:
    """A layer that reads units: M [o, f], second moments of its features [f, f], the unit of each feature (-1: none).

    `mean` [f] of the features where data told it, else None. `few`: fewer rows told the moments than there are
    features, so that a refit would seem to make up for anything.
    """

    m: Matrix
    moment: Matrix
    unit: NDArray[np.int64]
    mean: Matrix | None = None
    few: bool = False


@dataclass(frozen=True, eq=False)
class Order:
    """`units` in the order in which they go; `error` [n + 1]: squared error after k are gone, relative to the signal.

    The errors of several readers are added. `trials`: for some k, each reader's M refitted to what is left then.
    """

    units: NDArray[np.int64]
    error: NDArray[np.float64]
    trials: Mapping[int, list[Matrix]] = field(default_factory=dict)


def with_refit(readers: list[Reader], count: int, last: int) -> Order:
    """Remove units 0..count-1 one after another, always the one that costs least once the readers are refitted.

    Args:
        readers: their `moment` is a covariance where their bias can be refitted too.
        count: units there are.
        last: units that must remain; the rest of the order follows the costs at that point.
    """
    states = [_State.of(r, count) for r in readers]
    alive = np.ones(count, bool)
    order: list[int] = []
    error = [0.0]
    levels = {max(1, round(share * (count - last))) for share in _TRIALS}
    trials: dict[int, list[Matrix]] = {}
    while alive.sum() > last:
        cost = sum(s.costs() for s in states)
        assert not isinstance(cost, int)
        cost[~alive] = np.inf
        due = min((level - len(order) for level in levels if level > len(order)), default=count)
        take = max(1, min(count // _STEPS, int(alive.sum()) - last, due))
        gone = np.argsort(cost, kind="stable")[:take]
        for s in states:
            s.remove(gone)
        alive[gone] = False
        order += gone.tolist()
        total = max(error[-1], sum(s.lost for s in states))
        error += (error[-1] + (total - error[-1]) * np.arange(1, take + 1) / take).tolist()
        if len(order) in levels:
            trials[len(order)] = [s.m.copy() for s in states]
    return _finished(order, error, alive, states, trials)


def without_refit(readers: list[Reader], count: int) -> Order:
    """Units by the signal that their readers lose without them."""
    cost = np.zeros(count)
    for r in readers:
        energy = max(float(np.einsum("of,fg,og->", r.m, r.moment, r.m, optimize=True)), 1e-30)
        for u in range(count):
            f = np.flatnonzero(r.unit == u)
            cost[u] += (
                float(np.einsum("of,fg,og->", r.m[:, f], r.moment[np.ix_(f, f)], r.m[:, f], optimize=True)) / energy
            )
    units = np.argsort(cost, kind="stable")
    return Order(units, np.concatenate([[0.0], np.cumsum(cost[units])]))


@dataclass
class _State:
    m: Matrix
    inverse: Matrix
    blocks: list[NDArray[np.int64]]
    energy: float
    lost: float = 0.0

    @classmethod
    def of(cls, reader: Reader, count: int) -> _State:
        h = reader.moment + _RIDGE * max(float(np.trace(reader.moment)) / len(reader.moment), 1e-12) * np.eye(
            len(reader.m[0])
        )
        energy = max(float(np.einsum("of,fg,og->", reader.m, reader.moment, reader.m, optimize=True)), 1e-30)
        blocks = [np.flatnonzero(reader.unit == u) for u in range(count)]
        return cls(reader.m.copy(), np.linalg.inv(h), blocks, energy)

    def costs(self) -> NDArray[np.float64]:
        """Squared error that removing each unit adds, relative to the layer's signal."""
        out = np.zeros(len(self.blocks))
        sizes = np.array([len(b) for b in self.blocks])
        for size in np.unique(sizes[sizes > 0]):
            which = np.flatnonzero(sizes == size)
            index = np.stack([self.blocks[u] for u in which])
            inverse = self.inverse[index[:, :, None], index[:, None, :]]
            m = self.m[:, index].transpose(1, 2, 0)  # [units, size, o]
            inverse = inverse + 1e-9 * np.trace(inverse, axis1=1, axis2=2)[:, None, None] * np.eye(size)
            out[which] = np.einsum("uso,uso->u", m, np.linalg.solve(inverse, m)) / self.energy
        return out

    def remove(self, units: NDArray[np.int64]) -> None:
        """Take units out together: the other weights move to where the error is least."""
        b = np.concatenate([self.blocks[u] for u in units])
        if not len(b):
            return
        inverse = self.inverse[np.ix_(b, b)]
        inverse = inverse + 1e-9 * np.trace(inverse) * np.eye(len(b))
        gain = np.linalg.solve(inverse, self.inverse[b])  # [size, f]
        self.lost += float((self.m[:, b] * np.linalg.solve(inverse, self.m[:, b].T).T).sum()) / self.energy
        self.m -= self.m[:, b] @ gain
        self.inverse -= self.inverse[:, b] @ gain
        self.m[:, b] = 0.0
        # What is gone must not come back by rounding: an identity keeps later solves well posed.
        self.inverse[b, :] = 0.0
        self.inverse[:, b] = 0.0
        self.inverse[b, b] = 1.0
        for u in units:
            self.blocks[u] = b[:0]


def _finished(
    order: list[int],
    error: list[float],
    alive: NDArray[np.bool_],
    states: list[_State],
    trials: dict[int, list[Matrix]],
) -> Order:
    rest = np.flatnonzero(alive)
    cost = sum(s.costs() for s in states)
    assert not isinstance(cost, int)
    rest = rest[np.argsort(cost[rest], kind="stable")]
    tail = error[-1] + np.cumsum(cost[rest])
    return Order(np.array([*order, *rest], np.int64), np.array([*error, *tail]), trials)
