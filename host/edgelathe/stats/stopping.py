"""Stop evaluating a candidate once it is hopeless."""

from __future__ import annotations

import math
from typing import Literal

from edgelathe.stats.special import z

LOOKS = 10
"""At most so many looks at one evaluation; the error rate is controlled for this number."""

Decision = Literal["continue", "out"]


def looks(total: int, first: int = 50) -> tuple[int, ...]:
    """Numbers of samples after which to look: at most LOOKS, growing by a factor, the last is `total`.

    A hopeless candidate shows early, a near miss late: so looks are dense at the start, but `first` samples at least.
    """
    if total <= first:
        return (total,) if total > 0 else ()
    growth = (total / first) ** (1 / (LOOKS - 1))
    return tuple(sorted({min(total, math.ceil(first * growth**i)) for i in range(LOOKS - 1)} | {total}))


def decide(lost: int, won: int, n: int, total: int, limit: float, *, alpha: float = 0.05) -> Decision:
    """Whether a candidate's drop can still be at most `limit` (a fraction) after all `total` samples.

    `lost` and `won` are the changed answers in the first n samples, which must be in random order. `out` when the
    lower bound on the drop over all samples is above the limit, or when even winning every sample that is left could
    not mend it. The bound is that of `paired_drop`, for sampling n of `total` without replacement (Cochran, Sampling
    Techniques, 2.6: finite population correction), at level alpha / LOOKS: by Bonferroni's inequality a candidate
    whose whole drop keeps the limit is thrown out with probability at most alpha over all looks, however they are
    placed (Jennison and Turnbull, Group Sequential Methods, 2, give sharper boundaries for looks fixed in advance).
    """
    if not 0 <= lost + won <= n <= total:
        raise ValueError(f"{lost} lost and {won} won of {n} of {total}")
    if n == 0:
        return "continue"
    net, left = lost - won, total - n
    if net - left > limit * total + 1e-9:
        return "out"
    error = math.sqrt(lost + won - net**2 / n) / n * math.sqrt(left / max(1, total - 1))
    return "out" if left and net / n - z(alpha / LOOKS) * error - 1 / n > limit else "continue"
