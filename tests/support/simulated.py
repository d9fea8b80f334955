"""Simulated latencies and answers, with the truth known: what intervals and verdicts are checked against."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from edgelathe.stats import stopping

Blocks = list[NDArray[np.float64]]
_normal = NormalDist()


def autoregressive(rng: np.random.Generator, n: int, rho: float) -> NDArray[np.float64]:
    """[n] standard normals of which neighbours correlate by `rho`."""
    noise = rng.normal(size=n) * math.sqrt(1 - rho * rho)
    noise[0] = rng.normal()
    for i in range(1, n):
        noise[i] += rho * noise[i - 1]
    return noise


def turns(rng: np.random.Generator, pairs: int, ratio: float = 1.0, noise: str = "quiet") -> tuple[Blocks, Blocks]:
    """Block medians in ns of two models in turns, in random order within each pair; one value a block.

    quiet: 0.5% from block to block. busy: 2% with half of it correlated over time (rho 0.9 from one block to the next),
    and every twelfth block slowed by a third on average. placed: busy, and each of the two processes has a level of its
    own that changes slowly (1%, rho 0.8 from one round to the next), as where a neighbour shares its core.
    """
    n = 2 * pairs
    if noise == "quiet":
        level = rng.normal(0, 0.005, n)
    else:
        level = 0.014 * autoregressive(rng, n, 0.9) + rng.normal(0, 0.014, n)
        level += (rng.random(n) < 1 / 12) * rng.exponential(0.33, n)
    first = rng.random(pairs) < 0.5  # a comes first
    log_a, log_b = np.where(first, level[::2], level[1::2]), np.where(first, level[1::2], level[::2]) + math.log(ratio)
    if noise == "placed":
        log_a = log_a + 0.01 * autoregressive(rng, pairs, 0.8)
        log_b = log_b + 0.01 * autoregressive(rng, pairs, 0.8)
    return [np.array([v]) for v in 1e6 * np.exp(log_a)], [np.array([v]) for v in 1e6 * np.exp(log_b)]


KINDS = ("independent", "correlated 0.5", "correlated 0.9", "shared by block", "drifting", "two modes by call",
         "two modes by block", "two modes, sticky")  # fmt: skip
PART = 0.3  # of the time in the slow mode
LATER = 0.1  # how much slower a drifting series ends


def latencies(rng: np.random.Generator, kind: str, blocks: int, size: int) -> NDArray[np.float64]:
    """[blocks, size] latencies in ms of one of KINDS, log-normal with a spread of 5% around their level.

    correlated: AR(1) from call to call. shared by block: a fifth of the variance. drifting: 10% slower at the end,
    evenly. two modes: 30% of the time a third slower, drawn per call, per block, or per block with a chance of 0.6 to
    stay as it was.
    """
    noise, level = rng.normal(size=(blocks, size)), np.ones((blocks, 1))
    if kind.startswith("correlated"):
        noise = autoregressive(rng, blocks * size, float(kind.split()[1])).reshape(blocks, size)
    elif kind == "shared by block":
        noise = math.sqrt(0.2) * rng.normal(size=(blocks, 1)) + math.sqrt(0.8) * noise
    elif kind == "drifting":
        level = 1 + LATER * ((np.arange(blocks * size) + 0.5) / (blocks * size)).reshape(blocks, size)
    elif kind == "two modes by call":
        level = np.where(rng.random((blocks, size)) < PART, 4 / 3, 1.0)
    elif kind == "two modes by block":
        level = np.where(rng.random((blocks, 1)) < PART, 4 / 3, 1.0)
    elif kind == "two modes, sticky":
        slow = rng.random(blocks) < PART
        for i, stays in enumerate(rng.random(blocks) < 0.6):
            if stays and i:
                slow[i] = slow[i - 1]
        level = np.where(slow, 4 / 3, 1.0)[:, None]
    elif kind != "independent":
        raise ValueError(kind)
    return level * np.exp(0.05 * noise)


@lru_cache
def true_quantile(kind: str, q: float) -> float:
    """Quantile q of what `latencies` draws from: over time, where the level changes with it."""
    levels, weights = np.ones(1), np.ones(1)
    if kind == "drifting":
        levels = 1 + LATER * (np.arange(2000) + 0.5) / 2000
        weights = np.full(2000, 1 / 2000)
    elif kind.startswith("two modes"):
        levels, weights = np.array([1.0, 4 / 3]), np.array([1 - PART, PART])
    low, high = 0.5, 3.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        below = sum(w * _normal.cdf(math.log(middle / v) / 0.05) for v, w in zip(levels, weights, strict=True))
        low, high = (middle, high) if below < q else (low, middle)
    return high


def answers(rng: np.random.Generator, lost: int, won: int, total: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many of the first 1, 2, ... of `total` samples in random order were lost, and won."""
    order = rng.permutation(total)
    return np.cumsum(order < lost), np.cumsum((order >= lost) & (order < lost + won))


def ended(order: tuple[NDArray[np.int64], NDArray[np.int64]], total: int, limit: float, prove: bool) -> tuple[str, int]:
    """What `stopping.decide` says first of `answers`, and after how many samples; "continue" where it never does."""
    lost, won = order
    for n in stopping.looks(total):
        said = stopping.decide(int(lost[n - 1]), int(won[n - 1]), n, total, limit, prove=prove)
        if said != "continue":
            return said, n
    return "continue", total
