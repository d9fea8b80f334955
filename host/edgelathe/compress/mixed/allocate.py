"""Which form each layer takes: the least loss in so many bytes, exactly; and the ways from fewest bytes to most.

Losses of layers are taken to add up, as the errors that independent roundings leave at the output do (Zhou et al.,
Adaptive Quantization for Deep Neural Network, 2018, 3).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_UNITS = 1 << 17  # steps that the bytes to give away are counted in, at most
Picks = tuple[int, ...]


@dataclass(frozen=True)
class Choice:
    """One form of a layer: `bits` of its weights, the `bytes` they take, and the `loss`, in any unit that adds up."""

    bits: int
    bytes: int
    loss: float


Layer = Sequence[Choice]


def total(layers: Sequence[Layer], picks: Picks) -> tuple[int, float]:
    """Bytes and loss of an allocation."""
    chosen = [layer[i] for layer, i in zip(layers, picks, strict=True)]
    return sum(c.bytes for c in chosen), math.fsum(c.loss for c in chosen)


def best(layers: Sequence[Layer], budget: int) -> Picks | None:
    """The index of each layer's choice: least total loss in `budget` bytes, of equals that with fewer bytes first.

    None where even the smallest choices are too large. The multiple-choice knapsack problem, by dynamic programming
    over bytes (Kellerer, Pferschy and Pisinger, Knapsack Problems, 2004, 11.5). Exact while the bytes above the
    smallest fit `_UNITS` times their common divisor; else each choice is counted up to a whole unit, so that the
    budget is kept and at most a unit a layer is left over.
    """
    least = [min(c.bytes for c in layer) for layer in layers]
    spare = budget - sum(least)
    if spare < 0:
        return None
    extra = [[c.bytes - low for c in layer] for layer, low in zip(layers, least, strict=True)]
    spare = min(spare, sum(map(max, extra)))
    step = math.gcd(*(e for row in extra for e in row)) or 1
    step *= max(1, math.ceil(spare / step / _UNITS))
    room = spare // step
    lowest, picks = np.zeros(room + 1), np.zeros((len(layers), room + 1), np.uint8)
    for at, (layer, row) in enumerate(zip(layers, extra, strict=True)):
        order = sorted(range(len(layer)), key=lambda i: (row[i], layer[i].loss))
        costs = np.full((len(layer), room + 1), np.inf)
        for place, i in enumerate(order):
            units = -(-row[i] // step)
            if units <= room:
                costs[place, units:] = lowest[: room + 1 - units] + layer[i].loss
        places = np.argmin(costs, axis=0)
        lowest = np.take_along_axis(costs, places[None], axis=0)[0]
        picks[at] = np.asarray(order, np.uint8)[places]
    out: list[int] = []
    left = room
    for at in range(len(layers) - 1, -1, -1):
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
