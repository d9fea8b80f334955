"""`edgelathe.sensitivity/1` on a terminal, worst layer first, and as one HTML file with a plot that loads nothing."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from edgelathe import __version__
from edgelathe.core import files
from edgelathe.report import tables, units

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_NAME = 44
ROW, LEFT, RIGHT, TOP, BOTTOM, WIDTH = 26, 250, 24, 12, 34, 700  # of the plot, in units of its viewBox
SIGNS = ("circle", "square", "triangle", "diamond")  # one a width: nothing is told by colour alone


def sensitivity(document: Mapping[str, Any]) -> RenderableType:
    """SQNR and loss at each width, layer by layer, and what keeping the worst layers in float is worth."""
    widths, metric = document["options"]["widths"], document["metric"]
    headings = [h for bits in widths for h in (f">{bits} bits, dB", f">loss at {bits}")]
    made = tables.table("  layer", "op", ">of MACs", ">float", *headings)
    for layer in document["layers"]:
        cells = [c for w in layer["widths"] for c in (f"{w['sqnr_db']:.1f}", loss(metric, w))]
        made.add_row(
            Text(f"  {short(layer['layer'])}"), Text(layer["op"]), units.share(layer["macs_share"]),
            units.size(layer["float_bytes"]), *cells,
        )  # fmt: skip
    lines = [Text(words(k, metric)) for k in document["keep"]]
    left = [Text(f"! {s['layer']}: left out, {s['why']}", "yellow") for s in document["skipped"]]
    return Group(Text(head(document), "bold"), made, *lines, *left)


def head(document: Mapping[str, Any]) -> str:
    """The float model's accuracy, and on what."""
    base = document["baseline"]
    what = f"{units.metric(document['metric'])} {units.score(document['metric'], base['value'])}"
    said = what if document["labels"] else "no labels: loss is disagreement with the float model"
    return f"{units.base(document['model']['path'])}   {said} · {document['n']:,} samples · each layer rounded alone"


def loss(metric: str, width: Mapping[str, Any]) -> str:
    """What one width costs in the metric."""
    accuracy = width["accuracy"]
    return "NaN" if accuracy is None else units.drop(metric, accuracy["drop"])


def words(kept: Mapping[str, Any], metric: str) -> str:
    """One line: which layers to keep, at what price, for what."""
    names = ", ".join(short(n) for n in kept["layers"])
    before, after = (_state(kept[k], metric) for k in ("all", "kept"))
    share = "" if kept["macs_share"] is None else f" and {units.share(kept['macs_share'])} of the MACs in float"
    price = f"{units.size(kept['extra_bytes'])} more weights{share}"
    return f"{kept['bits']} bits: all layers {before}; with {names} in float {after}, for {price}"


def _state(together: Mapping[str, Any], metric: str) -> str:
    if together["accuracy"] is None:
        return "give NaN"
    a = together["accuracy"]
    drop = units.drop(metric, a["drop"], a["drop_low"], a["drop_high"])
    return f"lose {drop} ({together['sqnr_db']:.1f} dB, weights {units.size(together['bytes'])})"


def short(name: str, most: int = _NAME) -> str:
    """A layer's name; of names that converters join from many the end, which tells them apart."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


@dataclass(frozen=True)
class Point:
    """One layer at one width in the plot; `title` is read aloud and shown on hovering."""

    x: float
    y: float
    sign: str
    title: str


def points(document: Mapping[str, Any]) -> Iterator[Point]:
    """SQNR from left (worst) to right, a row a layer."""
    high = top_db(document)
    for row, layer in enumerate(document["layers"]):
        for sign, w in zip(_signs(document), layer["widths"], strict=True):
            title = f"{layer['layer']}, {w['bits']} bits: {w['sqnr_db']:.1f} dB, loss {loss(document['metric'], w)}"
            yield Point(across(w["sqnr_db"], high), TOP + ROW * (row + 0.5), sign, title)


def across(db: float, high: float) -> float:
    """Where a value in dB lies between 0 and the end of the axis."""
    return round(LEFT + (WIDTH - LEFT - RIGHT) * min(max(db, 0.0), high) / high, 1)


def top_db(document: Mapping[str, Any]) -> float:
    """The end of the axis: the next ten dB, at most 100."""
    most = max((w["sqnr_db"] for layer in document["layers"] for w in layer["widths"]), default=0.0)
    return min(100.0, max(10.0, 10 * -(-most // 10)))


def html(document: Mapping[str, Any]) -> str:
    """The report as one file."""
    from jinja2 import Environment, StrictUndefined

    template = resources.files("edgelathe.report").joinpath("sensitivity.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    high = top_db(document)
    step = 10 if high <= 60 else 20
    return environment.from_string(template).render(
        d=document,
        head=head(document),
        points=list(points(document)),
        names=[(TOP + ROW * (i + 0.65), short(la["layer"], 32)) for i, la in enumerate(document["layers"])],
        ticks=[(across(db, high), db) for db in range(0, int(high) + 1, step)],
        legend=list(zip(_signs(document), document["options"]["widths"], strict=True)),
        height=TOP + BOTTOM + ROW * len(document["layers"]),
        bottom=TOP + ROW * len(document["layers"]),
        area={"width": WIDTH, "left": LEFT, "top": TOP, "right": WIDTH - RIGHT},
        kept=[words(k, document["metric"]) for k in document["keep"]],
        loss=lambda w: loss(document["metric"], w),
        u=units,
        version=__version__,
    )


def write(document: Mapping[str, Any], path: Path) -> None:
    """Write the report, whole or not at all. Raises UserError where the file cannot be written."""
    files.write(path, html(document))


def _signs(document: Mapping[str, Any]) -> Sequence[str]:
    return [SIGNS[i % len(SIGNS)] for i in range(len(document["options"]["widths"]))]
