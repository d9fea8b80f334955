"""Differences of predictions: y of the float model, z in fixed point, on the same samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.core.errors import UserError, nearest
from edgelathe.stats import user_metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

Function = Callable[["NDArray[Any]"], "NDArray[Any]"]

#: f of the regression error f(y) - f(z).
FUNCTIONS: dict[str, Function] = {"identity": lambda v: v, "abs": np.abs, "square": np.square}


@dataclass(frozen=True)
class Classification:
    """e = y - z over answers: a sample counts where both name another class.

    Attributes:
        n: samples.
        changed: answers that differ.
        lost: right in float, wrong in fixed point; `won`: the reverse. None without labels.
        top1_change: accuracy in fixed point minus that in float, -1..1; None without labels.
    """

    n: int
    changed: int
    lost: int | None
    won: int | None
    top1_change: float | None

    def to_json(self) -> dict[str, Any]:
        """The object `error.classification`."""
        return {**asdict(self), "changed_share": self.changed / self.n}


@dataclass(frozen=True)
class Regression:
    """f(y) - f(z) over all values of the output: its mean, mean size, root mean square and largest size."""

    function: str
    mean: float
    mean_abs: float
    rmse: float
    max_abs: float

    def to_json(self) -> dict[str, Any]:
        """The object `error.regression`."""
        return asdict(self)


def classification(y: NDArray[Any], z: NDArray[Any], labels: NDArray[Any] | None) -> Classification:
    """Answers are the largest output of a sample. y, z [n, ...]; labels [n] classes, others count as none."""
    first, second = (v.reshape(len(v), -1).argmax(1) for v in (y, z))
    changed = int((first != second).sum())
    if labels is None or labels.ndim != 1:
        return Classification(len(y), changed, None, None, None)
    right, still = first == labels, second == labels
    lost, won = int((right & ~still).sum()), int((~right & still).sum())
    return Classification(len(y), changed, lost, won, (won - lost) / len(y))


def regression(y: NDArray[Any], z: NDArray[Any], function: str, folder: Path | None = None) -> Regression:
    """f(y) - f(z), f by its name in `FUNCTIONS` or a user's own as `module:function`. Raises UserError."""
    apply = find(function, folder)
    try:
        difference = np.asarray(apply(y.astype(np.float64)), np.float64) - np.asarray(apply(z.astype(np.float64)))
    except Exception as e:  # a user's function may fail in any way
        what = f"failed: {type(e).__name__}: {e}"
        raise UserError(f"function '{function}'", what, "it takes the outputs [n, ...] and returns numbers") from e
    size = np.abs(difference)
    if not size.size or not np.isfinite(size).all():
        raise UserError(f"function '{function}'", "gave NaN, infinity or nothing", "return finite numbers")
    rmse = float(np.sqrt(np.mean(np.square(difference))))
    return Regression(function, float(difference.mean()), float(size.mean()), rmse, float(size.max()))


def find(name: str, folder: Path | None = None) -> Function:
    """The function of that name. Raises UserError for an unknown one or one that cannot be imported."""
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    where = f"function '{name}'"
    module, colon, function = name.partition(":")
    if not colon:
        raise UserError(where, "no such function", f"{nearest(name, FUNCTIONS)}, or write your own as module:function")
    return user_metric.find(where, module, function, folder)  # type: ignore[return-value]  # of one array
