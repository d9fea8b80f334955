"""Numbers as people read them: with a unit, their uncertainty, and no digit that it does not support."""

from __future__ import annotations

import math
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SHARES = frozenset({"top1", "top5", "balanced", "f1", "auroc", "agreement"})  # metrics that are fractions, shown in %
TITLES = {"top1": "top-1", "top5": "top-5", "balanced": "balanced accuracy", "f1": "F1", "auroc": "AUROC"} | {
    m: m.upper() for m in ("mae", "rmse")
}
DASH = "-"


def time_unit(values_ms: Sequence[float | None]) -> tuple[str, float]:
    """The unit that suits all of these times, and how many of it are in a millisecond."""
    known = [v for v in values_ms if v]
    largest = max(known, default=1.0)
    return ("us", 1000.0) if largest < 1 else ("ms", 1.0) if largest < 10_000 else ("s", 0.001)


def duration(ms: float | None) -> str:
    """A time with its unit, to three digits: `61.2 us`, `3.12 ms`, `41 s`, `12 min`."""
    if ms is None:
        return DASH
    if abs(ms) >= 600_000:
        return f"{ms / 60_000:.0f} min"
    unit, factor = time_unit([abs(ms)])
    return f"{digits(ms * factor, 3)} {unit}"


def decimals(uncertainty: float) -> int:
    """Decimal places at which an uncertainty has one digit, or two where the first is a 1."""
    if not math.isfinite(uncertainty) or uncertainty <= 0:
        return 0
    digit, _, place = f"{uncertainty:.1e}".partition("e")
    return max(0, -int(place) + (digit.startswith("1") and digit != "1.0"))


def digits(value: float, n: int) -> str:
    """`value` to `n` significant digits, without an exponent and never with fewer than its whole part."""
    if not math.isfinite(value):
        return "?"
    if value == 0:
        return "0"
    places = n - 1 - int(f"{value:.{n - 1}e}".partition("e")[2])  # the exponent after rounding
    return f"{value:,.{max(0, places)}f}"


def plus_minus(value: float, low: float | None, high: float | None) -> str:
    """`61 ± 1`, to the digit that the interval supports; `61 [60, ?]` where the samples bound one side only."""
    ends = [e for e in (low, high) if e is not None and math.isfinite(e)]
    if not ends:
        return digits(value, 3)
    reach = max(abs(e - value) for e in ends)
    places = decimals(reach) if reach > 0 else max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    if len(ends) == 2:
        return f"{_zero(value, places)} ± {reach:,.{places}f}"
    return f"{_zero(value, places)} {bracket(low, high, places)}"


def bracket(low: float | None, high: float | None, places: int) -> str:
    """`[3.04, 3.06]`; an end that the samples do not support is `?`."""
    ends = ["?" if e is None or not math.isfinite(e) else _zero(e, places) for e in (low, high)]
    return f"[{ends[0]}, {ends[1]}]"


def size(n: float | None) -> str:
    """Bytes in powers of 1000, to three digits: `940 B`, `34.7 kB`, `140 kB`, `4.13 MB`."""
    if n is None:
        return DASH
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= factor * 0.9995:
            return f"{digits(n / factor, 3)} {unit}"
    return f"{n:.0f} B"


def count(n: float | None) -> str:
    """A number of things: `980`, `34 k`, `0.9 M`, `1.2 G`."""
    if n is None:
        return DASH
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= factor * (0.5 if unit != "k" else 1):
            scaled = n / factor
            return f"{scaled:.1f} {unit}" if scaled < 10 else f"{scaled:,.0f} {unit}"
    return f"{n:.0f}"


def several(n: int, what: str) -> str:
    """`1 outlier`, `4,210 outliers`."""
    return f"{n:,} {what}{'s' * (n != 1)}"


def times(ratio: float | None) -> str:
    """A ratio: `0.31x`, `1.6x`, `12x`."""
    if ratio is None:
        return DASH
    return f"{ratio:.2f}x" if abs(ratio) < 1 else f"{ratio:.1f}x" if abs(ratio) < 10 else f"{ratio:,.0f}x"


def share(value: float | None) -> str:
    """A fraction in percent: `87.8 %`."""
    return DASH if value is None else f"{value * 100:.1f} %"


def rare(value: float) -> str:
    """The fraction of a few among many in percent, to the digits that so few support: `0.02%`, `1.2%`."""
    percent = value * 100
    return f"{digits(percent, 1 if percent < 1 else 2)}%"


def metric(name: str) -> str:
    """A metric's name for people: `top-1`; of `module:function` the function."""
    return TITLES.get(name, name.rpartition(":")[2])


def score(name: str, value: float | None) -> str:
    """A metric's value: percent for shares, else four digits in its own unit."""
    if value is None:
        return DASH
    return share(value) if name in SHARES else digits(value, 4)


def drop(name: str, value: float | None, low: float | None = None, high: float | None = None) -> str:
    """A loss of accuracy with its interval: in points for shares (`0.1 ± 0.3 pt`), else in the metric's own unit."""
    if value is None:
        return DASH
    if name not in SHARES:
        return plus_minus(value, low, high)
    scaled = [None if v is None else v * 100 for v in (value, low, high)]
    ends = [e for e in scaled[1:] if e is not None and math.isfinite(e)]
    text = _zero(scaled[0] or 0.0, 1)
    return f"{text} ± {max(abs(e - value * 100) for e in ends):.1f} pt" if len(ends) == 2 else f"{text} pt"


def quantity(name: str, accuracy_metric: str, value: float | None) -> str:
    """The value of a budget metric with its unit, for any metric of a budget expression."""
    if value is None:
        return "unknown"
    if name == "accuracy.drop":
        return f"{value * 100:.2f} pt" if accuracy_metric in SHARES else digits(value, 4)
    if name == "accuracy":
        return score(accuracy_metric, value)
    return _QUANTITIES[name.partition(".")[0]](value)


FORMATS: Mapping[str, str] = {"onnx": "ONNX", "tflite": "TFLite"}

_QUANTITIES: Mapping[str, Callable[[float], str]] = {
    "latency": duration,
    "load": duration,
    "size": size,
    "memory": size,
    "throughput": lambda v: f"{digits(v, 3)} /s",
    "energy": lambda v: f"{digits(v, 3)} mJ",
}


def when(iso: str | None) -> str:
    """A time in UTC, to the minute: `2026-11-03 10:00`."""
    return DASH if iso is None else iso[:16].replace("T", " ")


def base(path: str) -> str:
    """The last part of a path; a name without folders is left as it is."""
    return PurePath(path).name or path


def short(paths: Sequence[str]) -> dict[str, str]:
    """Each path as its shortest end that no other shares: every fit calls its model `model.onnx`."""
    out = {}
    for path in paths:
        parts = PurePath(path).parts
        others = [PurePath(p).parts for p in paths if p != path]
        n = next((n for n in range(1, len(parts)) if all(o[-n:] != parts[-n:] for o in others)), len(parts))
        out[path] = str(PurePath(*parts[-n:])) if parts else path
    return out


def _zero(value: float, places: int) -> str:
    """Fixed point, without the sign of a value that rounds to zero."""
    text = f"{value:,.{places}f}"
    return text.lstrip("-") if not text.strip("-0.,") else text
