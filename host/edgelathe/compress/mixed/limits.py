"""What `mixed` may choose from and how far it may go, as written in a recipe: widths, sizes, drops."""

from __future__ import annotations

import math
import re

from edgelathe.core.budget import UNITS
from edgelathe.core.errors import UserError

HALF, FLOAT = 16, 32  # widths that are no integers: float16 in the file, and float32
WIDTHS = (2, 3, 4, 5, 6, 7, 8, HALF, FLOAT)
_NUMBER = r"(\d+\.?\d*|\.\d+)"


def widths(text: str) -> tuple[int, ...]:
    """`4/8/float` as (4, 8, 32), fewest bits first. Raises UserError for anything but 2 to 8, 16 and float."""
    known = {str(w): w for w in WIDTHS} | {"float": FLOAT}
    words = [w.strip() for w in text.split("/")]
    for word in words:
        if word not in known:
            raise UserError("mixed: widths", f"'{word}' is no width", "choose from 2 to 8, 16 and float, as 4/8/float")
    return tuple(sorted({known[w] for w in words}))


def size(text: str) -> tuple[float, str]:
    """A number above 0 and its unit: `x` (times float32), `bits` (for each weight) or `B`, 1 at least.

    Raises UserError.
    """
    found = re.fullmatch(_NUMBER + r"([A-Za-z]*)", text.strip())
    unit = {"bit": "bits"}.get(found[2], found[2]) if found else ""
    value = float(found[1]) if found else 0.0
    if value <= 0 or (value < 1 and unit not in ("x", "bits")) or unit not in ("x", "bits", *UNITS["bytes"]):
        raise UserError("mixed: size", f"'{text}' is no size", "write it as 0.2x, 5bits or 80kB")
    if unit == "bits" and not min(WIDTHS) <= value <= FLOAT:
        raise UserError("mixed: size", f"'{text}' for each weight", "give 2 to 32 bits")
    return (value, unit) if unit in ("x", "bits") else (value * UNITS["bytes"][unit], "B")


def held(size_: str | None, drop_: str | None, cost_: str | None) -> str | None:
    """The drop that a step is to keep: the one given, 1% where no limit is, None beside another limit.

    Raises UserError for what is no size, drop or cost, and for a drop beside another limit.
    """
    given = {k: v for k, v in (("size", size_), ("drop", drop_), ("cost", cost_)) if v is not None}
    if len(given) > 1 and drop_ is not None:
        what = " and ".join(f"{k}={v}" for k, v in given.items())
        raise UserError("mixed", what, "give drop alone, or size and cost without it")
    if cost_ is not None:
        cost(cost_)
    if size_ is not None:
        size(size_)
    if size_ is not None or cost_ is not None:
        return None
    drop(drop_ or "1%")
    return drop_ or "1%"


def cost(text: str) -> float:
    """A share of bit operations above 0, as 0.6 for `0.6x`. Raises UserError."""
    found = re.fullmatch(_NUMBER + "x", text.strip())
    if found is None or float(found[1]) <= 0:
        raise UserError("mixed: cost", f"'{text}' is no share of bit operations", "write it as 0.6x")
    return float(found[1])


def operations(bits: int) -> int:
    """Bit operations of one multiply-accumulate: weight bits x activation bits; no integers: in float32."""
    return 8 * bits if bits <= 8 else FLOAT * FLOAT


def drop(text: str) -> float:
    """A share, as 0.01 for `1%`, or a number in the unit of a metric that is none. Raises UserError."""
    found = re.fullmatch(_NUMBER + "(%?)", text.strip())
    if found is None:
        raise UserError("mixed: drop", f"'{text}' is no drop", "write it as 1%, or 0.5 for a metric that is an error")
    return float(found[1]) * (0.01 if found[2] else 1.0)


def word(bits: int) -> str:
    """A width as a user reads it."""
    return {FLOAT: "float", HALF: "float16"}.get(bits, f"{bits} bits")


def share(part: float) -> str:
    """A share as a recipe has it, rounded up: it can be given."""
    return f"{math.ceil(part * 1000) / 1000:.3f}x"


def decibels(loss: float) -> str:
    """Noise over signal as a user reads it."""
    return f"{max(-200.0, min(200.0, -10 * math.log10(loss))):.1f} dB" if loss > 0 else "exact"
