"""Durations as users write them: `33ms`, `2s`, `10min`."""

from __future__ import annotations

import math
import re

from edgelathe.core.errors import UserError

UNITS_MS = {"us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1e3, "min": 60e3, "h": 3600e3}
_TEXT = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(\S*)\s*")


def milliseconds(text: str, where: str, *, bare: str = "", zero: bool = False) -> float:
    """A duration in ms. `bare` is the unit of a number without one; where there is none such a number is refused.

    `where` names the option. Raises UserError for what is no duration, for a negative one, and for 0 without `zero`.
    """
    parts = _TEXT.fullmatch(text)
    mend = "write a number and a unit, as in 33ms, 2s or 10min"
    if not parts:
        raise UserError(where, f"'{text}' is no duration", mend)
    number, unit = float(parts[1]), parts[2] or bare
    if unit not in UNITS_MS:
        what = f"'{text}' has no unit" if not unit else f"no unit '{unit}' of time"
        raise UserError(where, what, mend)
    value = number * UNITS_MS[unit]
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise UserError(where, f"'{text}' is not a time above 0", mend)
    return value
