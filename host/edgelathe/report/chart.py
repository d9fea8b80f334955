"""The picture of a fit: size against latency, with intervals. Geometry only; the template draws it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgelathe.report import units, view

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 520, 340
LEFT, RIGHT, TOP, BOTTOM = 58, 32, 16, 48
LINE = 18  # height of a label


@dataclass(frozen=True)
class Point:
    """A measured candidate in the drawing's coordinates; `low` and `high` are the ends of the p50 interval."""

    number: int
    name: str
    drop: str
    x: float
    y: float
    low: float
    high: float
    label_y: float
    label_left: bool
    kind: str


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where, and its text."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Everything to draw. `x_limit` and `y_limit` are where the budget ends, if it limits size or p50."""

    points: tuple[Point, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    x_limit: float | None
    y_limit: float | None
    y_title: str


def chart(document: Mapping[str, Any]) -> Chart | None:
    """The chart of a fit document; None while nothing is measured."""
    rows = view.rows(document)
    shown = [
        (row, c)
        for row, c in zip(rows, view.candidates(document), strict=True)
        if c["latency_ms"] and c["bytes"] is not None and c["accuracy"]
    ]
    if not shown:
        return None
    highs = [_interval(c)[1] for _, c in shown]
    unit, factor = units.time_unit(highs)
    limits = {line["metric"]: line["limit"] for line in document["budget"]}
    x_max = _nice(max(c["bytes"] for _, c in shown) * 1.08)
    y_max = _nice(max(highs) * factor * 1.08)

    def x(n: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * n / x_max, 1)

    def y(ms: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * ms * factor / y_max, 1)

    placed = [(row, c, x(c["bytes"]), y(c["latency_ms"]["p50"])) for row, c in shown]
    labels = _spread([(at_x, at_y) for _, _, at_x, at_y in placed])
    points = tuple(
        Point(
            number=row.number, name=row.name, drop=_drop(c), x=at_x, y=at_y, low=y(low), high=y(high),
            label_y=label, label_left=at_x > WIDTH * 0.72, kind=_kind(row),
        )
        for (row, c, at_x, at_y), label in zip(placed, labels, strict=True)
        for low, high in [_interval(c)]
    )  # fmt: skip
    size, p50 = limits.get("size"), limits.get("latency.p50")
    return Chart(
        points,
        tuple(Tick(x(v), units.size(v)) for v in _ticks(x_max)),
        tuple(Tick(y(v / factor), f"{v:g}") for v in _ticks(y_max)),
        x(size) if size is not None and size <= x_max else None,
        y(p50) if p50 is not None and p50 * factor <= y_max else None,
        f"p50 in {unit}",
    )


def _interval(c: Mapping[str, Any]) -> tuple[float, float]:
    p50 = c["latency_ms"]["p50"]
    low, high = c["latency_ms"].get("p50_ci", (p50, p50))
    return (p50 if low is None else low), (p50 if high is None else high)


def _drop(c: Mapping[str, Any]) -> str:
    a = c["accuracy"]
    return units.score(a["metric"], a["value"]) if a["drop"] is None else f"drop {units.drop(a['metric'], a['drop'])}"


def _kind(row: view.Row) -> str:
    if row.chosen:
        return "chosen"
    return "baseline" if row.number == 0 else "pareto" if row.pareto else "other"


def _nice(top: float) -> float:
    """The next end of an axis: 1, 1.5, 2, 3, 4, 5, 6, 8 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(top))
    return next(m * power for m in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if m * power >= top)


def _ticks(top: float) -> list[float]:
    return [top * i / 4 for i in range(5)]


def _spread(places: Sequence[tuple[float, float]]) -> list[float]:
    """Heights for labels so that those of neighbouring points do not cover each other; upper ones keep their place."""
    heights = [0.0] * len(places)
    done: list[tuple[float, float]] = []
    for i in sorted(range(len(places)), key=lambda i: (places[i][1], places[i][0])):
        x, y = places[i]
        for other_x, other_y in sorted(done, key=lambda d: d[1]):
            if abs(other_x - x) < 130 and abs(other_y - y) < LINE:
                y = other_y + LINE
        heights[i] = round(y, 1)
        done.append((x, y))
    return heights
