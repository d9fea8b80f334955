"""`edgelathe.eval/1` on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from edgelathe.report import tables, units
from edgelathe.report.view import MARKS

Doc = Mapping[str, Any]


def evaluation(document: Doc) -> RenderableType:
    """Accuracy with its 95% interval and parity with the host, what further models lost and won, and verdicts."""
    names = units.short([r["model"] for r in document["results"]])
    lines: list[Text] = []
    for r in document["results"]:
        if r.get("error"):
            lines.append(Text(f"✗ {names[r['model']]}: {r['error']['what']}", "red"))
            continue
        lines += [Text(f"{names[r['model']]}   {_accuracy(r['accuracy'])}{_parity(r.get('parity') or {})}")]
        lines += [Text(f"  {tables.session_line(r)}", "dim")]
    for c in document.get("comparisons") or ():
        lines.append(Text(f"{names[c['b']]} against {names[c['a']]}: {_difference(c)}", "bold"))
    for line in document.get("budget") or ():
        note = f" ({line['note']})" if line["note"] else ""
        lines.append(Text(f"{MARKS[line['verdict']]} {names[line['model']]}: {line['expr']} {line['verdict']}{note}"))
    if document.get("interrupted"):
        text = "! interrupted: these are the figures of the samples until then; the same command goes on from there"
        lines.append(Text(text, "yellow"))
    return Group(*lines, *tables.warning_lines(document["results"]))


def _accuracy(a: Doc) -> str:
    scale, places = (100, 1) if a["metric"] in units.SHARES else (1, 4)
    ends = [None if a[k] is None else a[k] * scale for k in ("low", "high")]
    text = f"{units.metric(a['metric'])} {units.score(a['metric'], a['value'])} "
    return text + f"{units.bracket(ends[0], ends[1], places)} of {a['n']:,}"


def _parity(parity: Doc) -> str:
    parts = []
    if parity.get("same") is not None:
        parts.append(f"{parity['same']:,} of {parity['n']:,} same answers")
    if parity.get("max_abs") is not None:
        parts.append(f"largest difference {parity['max_abs']:.3g}" if parity["max_abs"] else "equal to the last bit")
    host = "the host's CPU" if parity.get("missing") else "the host"
    return f" · parity with {host}: {', '.join(parts)}" if parts else ""


def _difference(c: Doc) -> str:
    better = (c["drop"] or 0) < 0
    ends = (
        (-c["drop"], c["high"] and -c["high"], c["low"] and -c["low"]) if better else (c["drop"], c["low"], c["high"])
    )
    text = f"{units.drop(c['metric'], *ends)} {'better' if better else 'worse' if c['drop'] else 'of difference'}"
    if c.get("lost") is not None:
        text += f" · {c['lost']} lost, {c['won']} won (McNemar's exact p = {c['p']:.2g})"
    if c.get("changed") is not None:
        text += f" · {c['changed']:,} of {c['n']:,} answers changed"
    return text
