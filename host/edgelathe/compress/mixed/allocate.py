"""Which form each layer takes: the least loss within limits; and the ways from fewest bytes to most.

Losses of layers are taken to add up, as the errors that independent roundings leave at the output do (Zhou et al.,
Adaptive Quantization for Deep Neural Network, 2018, 3).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_UNITS = 1 << 17  # steps that the amount to give away is counted in, at most
_CELLS = 160  # of each amount under two limits, in which one allocation is kept
Picks = tuple[int, ...]


@dataclass(frozen=True)
class Choice:
    """One form of a layer: `bits` of its weights, what they take, and the `loss`, in any unit that adds up.

    Attributes:
        bits: of a weight.
        bytes: of all its weights in the file.
        loss: what it adds to the model's.
        operations: bit operations of one sample, 0 where nobody asks for them.
    """

    bits: int
    bytes: int
    loss: float
    operations: int = 0


@dataclass(frozen=True)
class Room:
    """What layers may take in all; None: any number."""

    bytes: int | None = None
    operations: int | None = None

    @property
    def open(self) -> bool:
        """Whether it has no limit."""
        return self.bytes is None and self.operations is None

    def without(self, taken: Choice) -> Room:
        """What is left beside a form; below 0 where it takes more than there is."""
        b, o = self.bytes, self.operations
        return Room(None if b is None else b - taken.bytes, None if o is None else o - taken.operations)

    def holds(self, taken: Choice) -> bool:
        """Whether a form, or a sum of several, fits."""
        return not any(left is not None and left < 0 for left in vars(self.without(taken)).values())


Layer = Sequence[Choice]


def total(layers: Sequence[Layer], picks: Picks) -> Choice:
    """What an allocation takes and loses; `bits` are none of a layer."""
    chosen = [layer[i] for layer, i in zip(layers, picks, strict=True)]
    operations = sum(c.operations for c in chosen)
    return Choice(0, sum(c.bytes for c in chosen), math.fsum(c.loss for c in chosen), operations)


def best(layers: Sequence[Layer], room: Room) -> Picks | None:
    """The index of each layer's choice: least total loss in the room, of equals that which takes least first.

    None where nothing fits. Exact under one limit (`_knapsack`), near the best under both (`_both`).
    """
    losses = [[c.loss for c in layer] for layer in layers]
    if room.bytes is not None and room.operations is not None:
        return _both(layers, room)
    name = "operations" if room.operations is not None else "bytes"
    amounts = [[getattr(c, name) for c in layer] for layer in layers]
    limit = room.bytes if room.operations is None else room.operations
    picks = _knapsack(amounts, losses, sum(map(max, amounts)) if limit is None else limit)
    return None if picks is None else _filled(layers, picks, room)  # what coarse units left over


def _both(layers: Sequence[Layer], room: Room) -> Picks | None:
    """Under both limits: layer after layer, of all allocations so far that take about as much the one of least loss.

    Amounts are exact, so limits are kept; what is lost is that of about equal amounts one is kept. What is left over is
    filled by changes of one or two layers.
    """
    least = fewest(layers, room.bytes or 0)
    if least is None or not room.holds(total(layers, least)):
        return None
    lost, used, back = np.zeros(1), np.zeros((2, 1), np.int64), []
    extra = [np.array([[c.bytes for c in la], [c.operations for c in la]], np.int64) for la in layers]
    low = [e.min(axis=1, keepdims=True) for e in extra]
    spare = np.array([[room.bytes], [room.operations]], np.int64) - sum(low)
    for layer, e, smallest in zip(layers, extra, low, strict=True):
        more = (used[:, :, None] + (e - smallest)[:, None]).reshape(2, -1)
        loss = (lost[:, None] + np.array([c.loss for c in layer])).reshape(-1)
        fits = np.flatnonzero((more <= spare).all(axis=0))
        cell = np.array([_CELLS, 1]) @ (more[:, fits] * _CELLS // (spare + 1))
        order = np.lexsort((more[1, fits], more[0, fits], loss[fits], cell))
        new = np.diff(cell[order], prepend=-1) != 0
        kept = fits[order[new]]
        lost, used = loss[kept], more[:, kept]
        back.append((kept // len(layer), kept % len(layer)))
    picks = least
    if len(lost):
        at, out = int(np.lexsort((used[1], used[0], lost))[0]), []
        for parent, choice in reversed(back):
            out.append(int(choice[at]))
            at = int(parent[at])
        picks = tuple(reversed(out))
    return _filled(layers, picks, room)


def fewest(layers: Sequence[Layer], limit: int) -> Picks | None:
    """The choices of the fewest operations in so many bytes."""
    amounts = [[c.bytes for c in layer] for layer in layers]
    return _knapsack(amounts, [[float(c.operations) for c in layer] for layer in layers], limit)


def _filled(layers: Sequence[Layer], picks: Picks, room: Room) -> Picks:
    """An allocation from which no change of one or two layers loses less within the room."""
    while True:
        moves = [
            (at, i, Choice(0, c.bytes - was.bytes, c.loss - was.loss, c.operations - was.operations))
            for at, layer in enumerate(layers)
            for was in (layer[picks[at]],)
            for i, c in enumerate(layer)
            if i != picks[at]
        ]
        changed = dict(_change(moves, room.without(total(layers, picks))))
        if not changed:
            return picks
        picks = tuple(changed.get(at, i) for at, i in enumerate(picks))


def _change(moves: Sequence[tuple[int, int, Choice]], left: Room) -> tuple[tuple[int, int], ...]:
    """The move, or pair of them, that fits and lowers the loss most: (layer, choice) of each; () where none does."""
    both = [(-1, -1, Choice(0, 0, 0.0)), *moves]  # the first one: only the other moves
    at = np.array([layer for layer, _, _ in both])
    with np.errstate(invalid="ignore"):  # infinite losses, of which one comes and one goes
        lost = np.add.outer(*[np.array([c.loss for *_, c in both])] * 2)
    may = (lost < 0) & np.less.outer(at, at)
    for name, most in vars(left).items():
        if most is not None:
            may &= np.add.outer(*[np.array([getattr(c, name) for *_, c in both], np.int64)] * 2) <= most
    least = np.min(lost, where=may, initial=np.inf)
    found = [tuple(both[i][:2] for i in pair if i) for pair in np.argwhere(may & (lost == least))]
    return min(found, default=())


def _knapsack(amounts: Sequence[Sequence[int]], losses: Sequence[Sequence[float]], limit: int) -> Picks | None:
    """The index of each layer's choice: least total loss with amounts of `limit` in all; None where nothing fits.

    The multiple-choice knapsack problem, by dynamic programming over amounts (Kellerer, Pferschy and Pisinger, Knapsack
    Problems, 2004, 11.5). Exact while the amounts above the smallest fit `_UNITS` times their common divisor; else each
    choice is counted up to a whole unit, so that the limit is kept and at most a unit a layer is left over.
    """
    least = [min(row) for row in amounts]
    spare = limit - sum(least)
    if spare < 0:
        return None
    extra = [[b - low for b in row] for row, low in zip(amounts, least, strict=True)]
    spare = min(spare, sum(map(max, extra)))
    step = math.gcd(*(e for row in extra for e in row)) or 1
    step *= max(1, math.ceil(spare / step / _UNITS))
    room = spare // step
    lowest, picks = np.zeros(room + 1), np.zeros((len(amounts), room + 1), np.uint8)
    for at, (lost, row) in enumerate(zip(losses, extra, strict=True)):
        order = sorted(range(len(row)), key=lambda i: (row[i], lost[i]))
        costs = np.full((len(row), room + 1), np.inf)
        for place, i in enumerate(order):
            units = -(-row[i] // step)
            if units <= room:
                costs[place, units:] = lowest[: room + 1 - units] + lost[i]
        places = np.argmin(costs, axis=0)
        lowest = np.take_along_axis(costs, places[None], axis=0)[0]
        picks[at] = np.asarray(order, np.uint8)[places]
    out: list[int] = []
    left = room
    for at in range(len(amounts) - 1, -1, -1):
        out.append(int(picks[at, left]))
        left -= -(-extra[at][out[-1]] // step)
    return tuple(reversed(out))


def path(layers: Sequence[Layer]) -> list[Picks]:
    """Allocations of ever more bytes and less loss, those that are best for some price of a byte.

    One layer a step goes to its next choice on the lower convex hull of loss against bytes, the one that wins most a
    byte first (Shoham and Gersho, Efficient Bit Allocation for an Arbitrary Set of Quantizers, 1988). From the
    smallest choices to those of least loss.
    """
    hulls = [_hull(layer) for layer in layers]
    steps = []
    for at, (layer, hull) in enumerate(zip(layers, hulls, strict=True)):
        for place, (i, j) in enumerate(itertools.pairwise(hull)):
            steps.append((-_gain(layer[i], layer[j]), at, place, j))
    now = [hull[0] for hull in hulls]
    out = [tuple(now)]
    for _, at, _, j in sorted(steps):
        now[at] = j
        out.append(tuple(now))
    return out


def _hull(layer: Layer) -> list[int]:
    """Choices from the smallest on, each of which wins less a byte than the one before."""
    out: list[int] = []
    for j in sorted(range(len(layer)), key=lambda i: (layer[i].bytes, layer[i].loss)):
        if out and layer[j].loss >= layer[out[-1]].loss:
            continue
        while len(out) > 1 and _gain(layer[out[-1]], layer[j]) >= _gain(layer[out[-2]], layer[out[-1]]):
            out.pop()
        out.append(j)
    return out


def _gain(a: Choice, b: Choice) -> float:
    """Loss won by each byte from a to b, which is larger."""
    return (a.loss - b.loss) / (b.bytes - a.bytes)
