"""Few values that stand for many: discretize, count, keep the most useful.

A value v becomes the integer level round(v / step), clipped to the range; of the levels that occur, K stay, either the
most frequent ones, or those of least squared error, which in one dimension can be found exactly (Wang and Song,
Ckmeans.1d.dp, 2011).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Levels = NDArray[np.int64]

#: Levels on each side of zero where the step is not given: an int8 table holds them.
HALF = 127
# How much finer than K levels over the range the steps are that by=frequency tries: the most frequent levels of a fine
# step are all near zero, those of a coarse one reach far.
_FINER = 2.0 ** np.arange(0, 3.01, 0.25)
_TINY = 1e-30
_MOST = 2048  # places that k-means tells apart
#: Levels on each side of zero that are counted at most; what lies beyond is clipped.
LEVELS = (1 << 15) - 1


def distinct(values: NDArray[np.float32], k: int) -> NDArray[np.float32] | None:
    """The different values, ascending, where there are at most k; the first ones are looked at before all."""
    flat = values.reshape(-1)
    found = flat[:0]
    for part in (flat[: 16 * k], flat):
        found = np.unique(part)
        if len(found) > k:
            return None
    return np.asarray(found)


def choose(
    rows: Array, k: int, by: str, step: float | None, limit: float | None, half: int = HALF
) -> tuple[Levels, Array]:
    """Representatives for each row [r, n]: levels [r, k], ascending (some may be equal), and the step [r] of each row.

    The range is `limit`, else the row's largest magnitude. The step is the one given, else a `half`th of the range;
    for by=frequency one between a K/2-th and a 4K-th of it, that of least squared error over all rows.
    """
    reach = np.abs(rows).max(axis=1, initial=0.0) if limit is None else np.full(len(rows), limit)
    reach = np.where(reach > _TINY, reach, 1.0)
    if step is not None:
        return _select(rows, np.full(len(rows), step), reach, k, by)
    if by == "kmeans":
        return _select(rows, reach / half, reach, k, by)
    tried = [_select(rows, reach / max(1.0, k / 2 * r), reach, k, by) for r in _FINER]
    return min(tried, key=lambda t: squared_error(rows, *t))


def nearest(x: Array, levels: Array) -> NDArray[np.intp]:
    """Which level is next to each x [...]: of levels [k], ascending, or of its own [..., k]."""
    if levels.ndim == 1:
        return np.asarray(np.searchsorted((levels[1:] + levels[:-1]) / 2, x))
    return np.asarray(np.abs(x[..., None] - levels).argmin(axis=-1))


def squared_error(rows: Array, levels: Levels, steps: Array) -> float:
    """Sum over all rows of the squared distance to the row's nearest representative."""
    total = 0.0
    for row, own, step in zip(rows, levels, steps, strict=True):
        real = own * step
        total += float(np.square(row - real[nearest(row, real)]).sum())
    return total


def by_frequency(counts: Array, k: int) -> Levels:
    """The k places of the highest counts of each row [r, b], ascending; of equals the one nearest the middle."""
    far = np.abs(np.arange(counts.shape[1]) - counts.shape[1] // 2)
    order = np.lexsort((np.broadcast_to(far, counts.shape), -counts), axis=1)
    return np.asarray(np.sort(order[:, :k], axis=1), np.int64)


def by_kmeans(counts: Array, k: int) -> Array:
    """The k centres of least weighted squared error of counts [b] at the places 0 .. b - 1, ascending.

    Exact: D[q, j], the least error of q clusters for the places up to j, is the least over i of D[q - 1, i - 1] + the
    error of i .. j as one cluster, in k (b - k)**2 steps. Of more than `_MOST` places that occur, neighbours stay
    together.
    """
    there = np.flatnonzero(counts)
    if len(there) <= k:
        found = there if len(there) else np.zeros(1, np.int64)
        return np.concatenate([found, np.repeat(found[-1:], k - len(found))]).astype(np.float64)
    ends = np.unique(np.linspace(0, len(there), min(len(there), _MOST) + 1).astype(np.int64))
    n, s, q = (
        np.concatenate([[0.0], np.cumsum(counts[there] * there.astype(np.float64) ** p)])[ends] for p in range(3)
    )
    b = len(ends) - 1
    weight, total = n[1:, None] - n[None, :-1], s[1:, None] - s[None, :-1]  # [j, i]
    error = q[1:, None] - q[None, :-1] - total * total / np.where(weight > 0, weight, 1)
    error = np.where(weight > 0, np.maximum(error, 0), np.inf)
    free = b - k + 1  # ends that a cluster may have: each before and behind it takes one place at least
    least, first = error[:free, 0], np.zeros((k, b), np.int64)
    room, rows = np.empty((free, free)), np.arange(free)
    for cluster in range(1, k):
        own = slice(cluster, cluster + free)
        np.add(error[own, own], least, out=room)  # least: up to the place before
        found = room.argmin(axis=1)
        first[cluster, own], least = found + cluster, room[rows, found]
    cuts = [b]
    for cluster in range(k - 1, -1, -1):
        cuts.append(int(first[cluster][cuts[-1] - 1]))
    at = np.array(cuts[::-1])
    return np.asarray(np.diff(s[at]) / np.diff(n[at]))


def _select(rows: Array, steps: Array, reach: Array, k: int, by: str) -> tuple[Levels, Array]:
    """Levels [r, k] on a given step [r]."""
    most = int(min(np.ceil((reach / steps).max()), LEVELS))
    limit = np.minimum(np.floor(reach / steps + 0.5), most).astype(np.int64)[:, None]
    found = np.clip(np.rint(rows / steps[:, None]), -limit, limit).astype(np.int64) + most
    b = 2 * most + 1
    keys = (found + b * np.arange(len(rows))[:, None]).reshape(-1)
    counts = np.bincount(keys, minlength=b * len(rows)).reshape(len(rows), b).astype(np.float64)
    if by == "frequency":
        more = max(0, k - b + 1) // 2
        kept = by_frequency(np.pad(counts, ((0, 0), (more, more))), k) - more - most
        return np.clip(kept, -limit, limit), steps
    centres = np.stack([by_kmeans(own, k) for own in counts])
    return np.rint(centres).astype(np.int64) - most, steps
