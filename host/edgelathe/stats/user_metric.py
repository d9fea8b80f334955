"""A user's own metric: a function on the host, named `module:function`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgelathe.stats.paired import Weighted

Array = NDArray[np.generic]


def find(
    where: str, module_name: str, function_name: str, folder: Path | None = None
) -> Callable[[Array, Array], object]:
    """The function, imported with `folder` (that of the dataset) and the current one on the path.

    Raises UserError starting with `where`.
    """
    before = sys.path[:]
    sys.path[:0] = [str(p.resolve()) for p in (folder, Path.cwd()) if p is not None]
    try:
        module = importlib.import_module(module_name)
    except Exception as e:  # a user's module may fail in any way while it is imported
        what = f"cannot be imported: {type(e).__name__}: {e}"
        raise UserError(where, what, "check the module's name and folder") from e
    finally:
        sys.path[:] = before
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UserError(where, f"module {module_name} has no function '{function_name}'", "write module:function")
    return function  # type: ignore[no-any-return]  # getattr of a module is Any


def resampling(where: str, function: Callable[[Array, Array], object]) -> Callable[[Array, Array], Weighted]:
    """`prepare` for a function of samples: every resample is a call. Raises UserError where it returns no number."""

    def call(outputs: Array, labels: Array) -> float:
        try:
            value = function(outputs, labels)
            return float(value)  # type: ignore[arg-type]  # whatever it returned: that it is a number is checked here
        except UserError:
            raise
        except Exception as e:
            raise UserError(
                where, f"failed: {type(e).__name__}: {e}", "it takes (outputs, labels) and returns a number"
            ) from e

    def prepare(outputs: Array, labels: Array) -> Weighted:
        def weighted(weights: NDArray[np.float64]) -> NDArray[np.float64]:
            rows = (np.repeat(np.arange(len(outputs)), row.astype(np.int64)) for row in weights)
            return np.array([call(outputs[i], labels[i]) for i in rows])

        if not np.isfinite(call(outputs, labels)):
            raise UserError(where, "returned NaN or infinity", "return a finite number")
        return weighted

    return prepare
