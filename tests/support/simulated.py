"""Simulated latencies, with the truth known: what intervals and verdicts are checked against."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Blocks = list[NDArray[np.float64]]


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
