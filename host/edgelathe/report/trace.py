"""`edgelathe.trace/1` on a terminal: where the time of a call goes, and what changed between two models."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from edgelathe.report import tables, units
from edgelathe.report.layout import Fitted, Layout, shortened

Doc = Mapping[str, Any]

TOP = 20
_STYLES = {"faster": "green", "slower": "red"}
_OWN = {"runtime": "runtime's own", "added": "added"}
_NAME = 46


def trace(document: Doc, top: int | None = TOP) -> RenderableType:
    """The rows that take the most time, with shares and what they add up to; of two models, side by side by layer."""
    names = units.short([m["model"] for m in document["models"]])
    parts: list[RenderableType] = []
    for model in document["models"]:
        parts += _head(names[model["model"]], model)
    if document["layers"]:
        parts.append(_compared(document, top))
    else:
        parts += [_single(model, top) for model in document["models"]]
    parts += tables.warning_lines([{"warnings": document["warnings"]}, *document["models"]])
    return Group(*parts)


def _head(name: str, model: Doc) -> list[Text]:
    total = units.plus_minus(*_scaled((model["total_ms"], model["low"], model["high"])))
    line = f"{name}   {total} {_unit(model['total_ms'])[0]} a call"
    if model["profiled_ms"] is not None:
        line += f" · {units.duration(model['profiled_ms'])} with the profiler ({units.times(model['overhead'])})"
    line += f" · operators {units.duration(model['operators_ms'])} as measured, by {model['method']}"
    trust = model["grade"]
    said = f" · trust {trust['letter']}" + "".join(f", {r}" for r in trust["reasons"][:1])
    return [Text(line, "bold"), Text(f"  {tables.session_line(model)}{said}", "dim")]


def _single(model: Doc, top: int | None) -> RenderableType:
    unit, factor = _unit(model["total_ms"])
    rows = sorted(model["rows"], key=lambda r: -r["ms"])
    shown = rows[:top]
    columns = {
        ">op": [_op(row) for row in shown],
        ">kernel": [_differs(row["kernel"], row["op"]) for row in shown],
        ">type": [row["dtype"] or "" for row in shown],
        ">provider": [_provider(row["provider"]) for row in shown],
        f">{unit}": [_time(row, factor) for row in shown],
        ">share": [units.share(row["share"]) for row in shown],
        ">sum": [units.share(part) for part in itertools.accumulate(row["share"] for row in shown)],
    }
    mine = _provider(model["options"]["provider"])
    plain = {">provider": {"", mine}, ">kernel": {""}}  # what the line above says, and nothing
    fewer = {k: v for k, v in columns.items() if not set(v) <= plain.get(k, set())}

    def made(columns: Mapping[str, Sequence[str]], most: int, gap: int = 3) -> RenderableType:
        table = tables.table(">  layer", *columns, gap=gap)
        for row, *cells in zip(shown, *columns.values(), strict=True):
            table.add_row(Text(f"  {_layers(row, most)}"), *map(Text, cells))
        return table

    narrow = {k: v for k, v in fewer.items() if k != ">sum"}
    layouts: list[Layout] = [
        lambda most: made(columns, most),
        lambda most: made(fewer, most),
        lambda most: made(fewer, most, gap=2),
        lambda most: made(narrow, most, gap=2),
    ]
    return Group(Fitted([_layers(row) for row in shown], *layouts, most=_NAME), *_rest(rows, top, lambda r: r["ms"]))


def _compared(document: Doc, top: int | None) -> RenderableType:
    a, b = document["models"]
    unit, factor = _unit(max(a["total_ms"], b["total_ms"]))
    lines = sorted(document["layers"], key=lambda x: -max(_ms(x["a"]), _ms(x["b"])))
    shown = lines[:top]

    def made(most: int, *, ops: bool, gap: int = 3) -> RenderableType:
        headings = [">op"] if ops else []
        table = tables.table(
            ">  layer", *headings, f">before, {unit}", f">after, {unit}", ">ratio", ">", "after", gap=gap
        )
        for line in shown:
            table.add_row(
                Text(f"  {_layers(line, most)}"), *([Text(_op(line))] if ops else []),
                *(units.DASH if line[k] is None else f"{line[k]['ms'] * factor:.1f}" for k in "ab"),
                units.times(line["ratio"]), Text(line["verdict"], _STYLES.get(line["verdict"], "")), Text(_after(line)),
            )  # fmt: skip
        table.add_row(
            Text("  all"), *([""] if ops else []), f"{a['total_ms'] * factor:.1f}", f"{b['total_ms'] * factor:.1f}",
            units.times(b["total_ms"] / a["total_ms"]), "", "", style="bold",
        )  # fmt: skip
        return table

    layouts: list[Layout] = [
        lambda most: made(most, ops=True),
        lambda most: made(most, ops=False),
        lambda most: made(most, ops=False, gap=2),
    ]
    return Group(
        Fitted([_layers(line) for line in shown], *layouts, most=_NAME), *_rest(lines, top, lambda x: _ms(x["b"]))
    )


def _after(line: Doc) -> str:
    """What ran in the second model, or what is to be noted of it."""
    if line["notes"] or not line["b"]:
        return ", ".join(line["notes"])
    return " ".join([*line["b"]["kernels"], *line["b"]["dtypes"]])


def _rest(rows: Sequence[Doc], top: int | None, ms: Callable[[Doc], float]) -> Iterable[Text]:
    left = rows[top:] if top is not None else []
    if left:
        yield Text(f"  and {len(left)} more, {units.duration(sum(map(ms, left)))} together; --all shows them", "dim")


def _layers(row: Doc, most: int = _NAME) -> str:
    """The layer that a row is known by, and how many more it covers; of the runtime's own rows what they are."""
    if not row["layers"]:
        return shortened(_OWN.get(row["kind"]) or str(row["op"]), most)
    more = f" +{len(row['layers']) - 1}" if len(row["layers"]) > 1 else ""
    return shortened(str(row["layer"]), most - len(more)) + more


def _op(row: Doc) -> str:
    """Its operator; empty where the name says what it is."""
    return str(row["op"]) if row["layers"] or row["kind"] in _OWN else ""


def _time(row: Doc, factor: float) -> str:
    return units.plus_minus(*_scaled((row["ms"], row["low"], row["high"]), factor))


def _scaled(values: Sequence[float | None], factor: float | None = None) -> tuple[float, float | None, float | None]:
    by = _unit(values[0] or 0.0)[1] if factor is None else factor
    value, low, high = (None if v is None else v * by for v in values)
    return value or 0.0, low, high


def _unit(ms: float) -> tuple[str, float]:
    return ("us", 1000.0) if ms < 1 else ("ms", 1.0)


def _differs(kernel: str | None, op: str) -> str:
    return "" if kernel in (None, op) else str(kernel)


def _provider(name: str | None) -> str:
    return (name or "").removesuffix("ExecutionProvider")


def _ms(half: Doc | None) -> float:
    return 0.0 if half is None else float(half["ms"])
