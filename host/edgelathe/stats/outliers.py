"""Samples far above the rest: counted and placed, never dropped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgelathe.stats.special import binomial_above

At = Literal["none", "first", "spread", "clustered"]

FAR = 14.826
"""So many median absolute deviations above the median is far: 10 standard deviations of a normal distribution."""

LEAST = 0.05
"""Closer to the median than this part of it nothing is far: a very quiet series has no outliers of a microsecond."""


@dataclass(frozen=True)
class Outliers:
    """How many samples lie far above the median of all.

    Attributes:
        n: how many; `share` of all.
        share: n over all samples.
        worst_ms: the largest sample that is far, None where there is none.
        at: `first`: more than half in the first block; `clustered`: in fewer blocks than chance puts them (1%);
            `spread`: else. `none`: there are none.
        blocks: how many blocks hold one.
        of_blocks: how many blocks there are.
    """

    n: int
    share: float
    worst_ms: float | None
    at: At
    blocks: int
    of_blocks: int

    def __str__(self) -> str:
        if not self.n:
            return "no outliers"
        count = f"{self.n} outlier{'s' if self.n > 1 else ''} ({self.share:.1%})"
        most = "all" if self.blocks == 1 else "most"
        where = {
            "first": f"{most} in the first block",
            "clustered": f"in {self.blocks} of {self.of_blocks} blocks",
            "spread": "spread over the run",
        }
        return f"{count}, {where.get(self.at, '')}, the worst {self.worst_ms:.3g} ms"

    def to_json(self) -> dict[str, Any]:
        """`n`, `share`, `worst_ms` (null: none), `at`, `blocks`."""
        return {"n": self.n, "share": self.share, "worst_ms": self.worst_ms, "at": self.at, "blocks": self.blocks}


def outliers(blocks_ns: Sequence[NDArray[np.generic]]) -> Outliers:
    """Outliers among blocks of nanoseconds in the order they were taken.

    Far: by Iglewicz and Hoaglin's modified z-score (How to Detect and Handle Outliers, 1993) at hyperfine's limit, FAR,
    as latencies are skew; above only, and at least LEAST of the median away. Raises ValueError without samples.
    """
    blocks = [np.asarray(b, np.float64) for b in blocks_ns if len(b)]
    if not blocks:
        raise ValueError("no samples")
    values = np.concatenate(blocks)
    middle = float(np.median(values))
    spread = float(np.median(np.abs(values - middle)))
    limit = middle + max(FAR * spread, LEAST * middle)
    counts = [int((b > limit).sum()) for b in blocks]
    n, held = sum(counts), sum(map(bool, counts))
    worst = float(values.max()) / 1e6 if n else None
    return Outliers(n, n / len(values), worst, _place(counts, [len(b) for b in blocks]), held, len(blocks))


def _place(counts: Sequence[int], sizes: Sequence[int]) -> At:
    n, total = sum(counts), sum(sizes)
    if not n:
        return "none"
    if counts[0] > n / 2 and (len(counts) == 1 or binomial_above(counts[0], n, sizes[0] / total) < 0.05):
        return "first" if len(counts) > 1 else "spread"
    if n < 3 or len(counts) < 4:
        return "spread"
    # mean and variance of the number of empty blocks (Feller, vol. 1, IV.2), each outlier falling by the blocks' sizes
    missed = [(1 - s / total) ** n for s in sizes]
    expected = sum(missed)
    pairs = sum((1 - (a + b) / total) ** n for i, a in enumerate(sizes) for b in sizes[:i])
    variance = expected + 2 * pairs - expected**2
    empty = sum(c == 0 for c in counts)
    return "clustered" if empty - expected - 0.5 > 2.33 * math.sqrt(max(variance, 1e-12)) else "spread"
