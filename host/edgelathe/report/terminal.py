"""Documents as people read them on a terminal. Pure functions: a document in, a rich renderable out."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.text import Text

from edgelathe.report import tables, view
from edgelathe.report.benchmark import benchmark
from edgelathe.report.evaluation import evaluation
from edgelathe.report.layout import Fitted, broken
from edgelathe.report.sensitivity import sensitivity
from edgelathe.report.simulation import simulation
from edgelathe.report.tables import (
    comparison,
    compressed,
    details,
    devices,
    doctor,
    inspection,
    probe,
    problems,
    profiles,
    rollout,
    runs,
)
from edgelathe.report.trace import trace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PLAIN = str.maketrans({"✓": "ok", "✗": "no", "±": "+-", "·": "-", "×": "x", "…": "...", "–": "-", "µ": "u"})


class _Plain(io.TextIOBase):
    """A stream for terminals without Unicode: signs become ASCII ones instead of breaking the output."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]  # the base class has it as a plain attribute
        return self._stream.encoding

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def flush(self) -> None:
        self._stream.flush()

    def write(self, text: str) -> int:
        plain = text.translate(PLAIN).encode(self.encoding, "replace").decode(self.encoding)
        return self._stream.write(plain)


def console(stream: TextIO | None = None) -> Console:
    """A console for answers (default: stdout). Off a terminal lines are not cut; without Unicode signs are ASCII."""
    out = stream or sys.stdout
    wide = "utf" in (getattr(out, "encoding", None) or "utf-8").lower()
    target: Any = out if wide else _Plain(out)
    return Console(file=target, highlight=False, markup=False, width=None if out.isatty() else 10_000)


def fit(document: Mapping[str, Any], judged: view.Judged | None = None) -> RenderableType:
    """All of `edgelathe.fit/1`: what was asked, the candidates, the decision and how to deploy."""
    about = tables.grid([Text(a, "bold"), Text(b)] for a, b in view.facts(document))
    parts: list[RenderableType] = [about, Text(), candidates(document, judged), Text()]
    parts.append(Text(view.decision(document), "bold"))
    if document["met"] is False:
        parts += [
            Text(f"  {view.MARKS[line['verdict']]} {tables.budget_line(line, document)}") for line in document["budget"]
        ]
    best = view.chosen(document)
    if best:
        parts.append(Text(f"holds for {view.session(best, document['device'])}"))
    parts += [Text(f"! {w}", "yellow") for w in view.warnings(document)]
    return Group(*parts)


def text(shown: RenderableType, encoding: str = "utf-8") -> str:
    """What `console` prints off a terminal, in characters of `encoding`; no blanks at the ends of lines."""
    buffer = io.StringIO()
    console(buffer).print(shown)
    lines = "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())
    return lines if "utf" in encoding.lower() else lines.translate(PLAIN).encode(encoding, "replace").decode(encoding)


def candidates(document: Mapping[str, Any], judged: view.Judged | None = None) -> RenderableType:
    """The table of candidates: figures with their uncertainty, verdicts as signs, an arrow at the chosen one."""
    rows = view.rows(document, judged)
    headings = [f">{c.heading}" for c in view.columns(document)]

    def made(most: int, gap: int = 3) -> RenderableType:
        table = tables.table(">  candidate", *headings, "", gap=gap)
        for row in rows:
            name = broken(row.name, most).replace("\n", "\n  ")
            style = "bold" if row.chosen else "dim" if row.note else ""
            table.add_row(Text(f"  {name}"), *map(_cell, row.cells), Text(_place(row, document)), style=style)
        return table

    notes = [Text(f"  {row.name} {row.note}", "dim") for row in rows if row.note and row.note != row.status]
    return Group(Fitted([row.name for row in rows], made, lambda most: made(most, gap=2)), *notes)


def _place(row: view.Row, document: Mapping[str, Any]) -> str:
    """What stands behind a row."""
    if row.chosen:
        return "<- chosen" if document["met"] else "<- closest"
    return row.status if row.note else ""


def files(folder: Path | str, written: list[Path]) -> RenderableType:
    """Where the results are."""
    names = {p.name for p in written}
    line = f"wrote {folder}: {', '.join(p.name for p in written)}"
    return Text(f"{line}\nopen {Path(folder) / 'report.html'}" if "report.html" in names else line)


def render(document: Mapping[str, Any]) -> RenderableType:
    """Any document of edgelathe, by its `schema`; one without a view of its own is shown field by field."""
    return VIEWS.get(str(document["schema"]), details)(document)


VIEWS: dict[str, Callable[[Mapping[str, Any]], RenderableType]] = {
    "edgelathe.fit/1": fit,
    "edgelathe.bench/1": benchmark,
    "edgelathe.eval/1": evaluation,
    "edgelathe.trace/1": trace,
    "edgelathe.simulate/1": simulation,
    "edgelathe.sensitivity/1": sensitivity,
    "edgelathe.compress/1": compressed,
    "edgelathe.inspect/1": inspection,
    "edgelathe.runs/1": runs,
    "edgelathe.probe/1": probe,
    "edgelathe.devices/1": devices,
    "edgelathe.doctor/1": doctor,
    "edgelathe.profiles/1": profiles,
    "edgelathe.rollout/1": rollout,
    "edgelathe.comparison/1": comparison,
    "edgelathe.check/1": problems,
}


def _cell(cell: view.Cell) -> Text:
    style = {"met": "green", "missed": "red", "undecided": "yellow"}.get(cell.verdict, "")
    return Text(cell.text).append(f" {view.MARKS[cell.verdict]}", style) if cell.verdict else Text(cell.text)
