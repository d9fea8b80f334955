"""`edgelathe.simulate/1` on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from edgelathe.report import tables, units

Doc = Mapping[str, Any]


def simulation(document: Doc) -> RenderableType:
    """Both metrics, the differences of answers, and a line a layer; the worst layer is named."""
    name, metric = units.metric(document["metric"]), document["metric"]
    both = [f"{label} {units.score(metric, document[label])}" for label in ("float", "simulated")]
    of = f"n={document['samples']:,}; against the {document['against'].removeprefix('the ')}"
    lines = [Text(f"{name}: {both[0]}, {both[1]} ({of})", "bold")]
    lines += [Text(f"  {line}") for line in (_output(document["error"]), *_answers(document["error"]))]
    shown = tables.table(">op", ">bits", ">SQNR", ">cosine", ">clipped", ">overflows", "layer")
    for layer in document["layers"]:
        shown.add_row(*(Text(cell) for cell in _row(layer)))
    return Group(*lines, Text(), shown, *_worst(document["layers"]))


def _output(error: Doc) -> str:
    return f"output: SQNR {_db(error['sqnr_db'])}, cosine {_number(error['cosine'])}, MSE {_number(error['mse'])}"


def _answers(error: Doc) -> list[str]:
    lines = []
    if c := error["classification"]:
        sides = "" if c["lost"] is None else f": {c['lost']} lost, {c['won']} won"
        lines.append(f"answers: {c['changed']:,} of {c['n']:,} changed{sides}")
    if r := error["regression"]:
        figures = f"mean {r['mean']:.4g}, size {r['mean_abs']:.4g}, RMSE {r['rmse']:.4g}, largest {r['max_abs']:.4g}"
        lines.append(f"f(y) - f(z), f = {r['function']}: {figures}")
    return lines


def _row(layer: Doc) -> tuple[str, ...]:
    bits = "float" if layer["bits"] is None else str(layer["bits"])
    clipped = f"{layer['clipped'] * 100:.2f} %" if layer["clipped"] else units.DASH
    overflows = f"{layer['overflows']:,}" if layer["overflows"] else units.DASH
    return layer["op"], bits, _db(layer["sqnr_db"]), _number(layer["cosine"], 6), clipped, overflows, layer["name"]


def _worst(layers: list[Doc]) -> list[Text]:
    """The integer layer that is furthest from float, where there is one."""
    known = [layer for layer in layers if layer["sqnr_db"] is not None and layer["bits"] is not None]
    if not known:
        return []
    worst = min(known, key=lambda layer: float(layer["sqnr_db"]))
    return [Text(f"furthest from float: {worst['name']}, {_db(worst['sqnr_db'])}")]


def _db(value: float | None) -> str:
    return units.DASH if value is None else f"{value:.1f} dB"


def _number(value: float | None, digits: int = 4) -> str:
    return units.DASH if value is None else f"{value:.{digits}g}"
