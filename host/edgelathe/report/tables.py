"""Tables for the documents of all commands but `fit`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgelathe.report import units
from edgelathe.report.explanation import explained
from edgelathe.report.junit import describe
from edgelathe.report.layout import Fitted, broken, shortened, tidy
from edgelathe.report.view import accuracy_metric, chosen

Doc = Mapping[str, Any]
GOOD = frozenset({"ready", "staged", "active", "done"})
SIGNS = {"ok": "✓", "warn": "!", "fail": "✗", "skip": "-"}
STYLES = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "dim"}

#: Names longer than this stand behind the figures, or a file's lines would begin with nothing but names.
LONG = 80


def table(*headings: str, gap: int = 3) -> Table:
    """An empty table without lines, its columns `gap` apart.

    A heading that begins with `>` is of a column that does not fold: numbers, single words.
    """
    made = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim")
    for heading in headings:
        rigid = heading.startswith(">")
        made.add_column(Text(heading.removeprefix(">")), no_wrap=rigid, overflow="fold")
    return made


def grid(rows: Iterable[Sequence[Text]]) -> Table:
    """A table without headings."""
    made = Table.grid(padding=(0, 3, 0, 0))
    for row in rows:
        made.add_row(*row)
    return made


def budget_line(line: Doc, document: Doc) -> str:
    """One line of a fit's budget in words."""
    return f"{line['expr']}: {line['verdict']}: {describe(line, accuracy_metric(document))}"


def compressed(document: Doc) -> RenderableType:
    """`edgelathe.compress/1`: what each step did, and the size before and after."""
    made = table(">  step", ">seconds", ">layers", "left as they were")
    for step in document["steps"]:
        layers = step.get("layers") or []
        left = [f"{n['layer']} ({n['what']})" if n.get("what") else n["layer"] for n in layers if not n["done"]]
        shown = ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
        made.add_row(
            Text(f"  {step['use']}"),
            f"{step['seconds']:.2f}",
            f"{sum(n['done'] for n in layers)} of {len(layers)}",
            Text(shown),
        )
    before, after = document["bytes_before"], document["bytes_after"]
    total = f"{document['model']}   {units.size(before)} -> {units.size(after)} ({units.times(after / before)})"
    why = [line for step in document["steps"] if "explain" in step for line in explained(step["use"], step["explain"])]
    return Group(tidy(made), *why, Text(total, "bold"), Text(f"sha256 {document['sha256']}", "dim"))


def inspection(document: Doc) -> RenderableType:
    """`edgelathe.inspect/1`: signature, totals and the layers with their shares."""
    head = [
        units.FORMATS.get(document["format"], document["format"]),
        units.size(document["bytes"]),
        f"{units.count(document['parameters'])} parameters",
        f"{units.count(document['macs'])} MACs",
    ]
    ends = [Text(f"{kind:8}{_tensor(t)}") for kind in ("input", "output") for t in document[f"{kind}s"]]
    layers = document["layers"]
    names = [layer["name"] for layer in layers]
    last = max(map(len, names), default=0) > LONG

    def made(most: int, gap: int = 3) -> RenderableType:
        figures = (">op", ">parameters", ">MACs", ">bytes", ">of bytes")
        rows = table(*(f">  {figures[0][1:]}", *figures[1:], ">layer") if last else (">  layer", *figures), gap=gap)
        for layer in layers:
            name, (op, *numbers) = shortened(layer["name"], most), _figures_of(layer, document["bytes"])
            rows.add_row(*map(Text, (f"  {op}", *numbers, name) if last else (f"  {name}", op, *numbers)))
        return rows

    shown = Fitted(names, made, lambda most: made(most, gap=2))
    return Group(Text(" · ".join(head), "bold"), *ends, Text(), shown, *_changed_by(layers))


def _figures_of(layer: Doc, whole: float) -> tuple[str, ...]:
    """Operator, parameters, MACs, bytes and their share."""
    counts = (units.count(layer["parameters"]), units.count(layer["macs"]))
    return (layer["op"], *counts, units.size(layer["bytes"]), units.share(layer["bytes"] / whole))


def _changed_by(layers: Sequence[Doc]) -> list[RenderableType]:
    """Which steps can change a layer: the same ones for all layers of an operator."""
    steps = {layer["op"]: " ".join(layer["steps"]) for layer in layers if layer.get("steps")}
    ops: dict[str, list[str]] = {}
    for op, text in steps.items():
        ops.setdefault(text, []).append(op)
    if not ops:
        return []
    rows = table("  can be changed", "by")
    for text, which in ops.items():
        rows.add_row(Text(f"  {', '.join(which)}"), Text(text))
    return [Text(), tidy(rows)]


def runs(document: Doc) -> RenderableType:
    """`edgelathe.runs/1`, newest first."""
    if not document["runs"]:
        return Text("no runs yet · next: edgelathe fit --help")
    made = table(">run", ">state", ">budget", "model", "device", ">started (UTC)")
    for r in document["runs"]:
        met = {True: "✓ met", False: "✗ not met", None: units.DASH}[r["met"]]
        texts = (r["run"], r["state"], met, units.base(r["model"]), r["device"], units.when(r["started"]))
        made.add_row(*map(Text, texts))
    return tidy(made)


def probe(document: Doc) -> RenderableType:
    """`edgelathe.probe/1`: what a device is."""
    cores = document["cores"]
    head = [
        document.get("model"),
        document["machine"],
        f"{cores} x {document['cpu']}",
        units.size(document["memory_bytes"]),
    ]
    head += [f"Python {document['python']}", f"profile {document['profile'] or 'unknown'}"]
    lines = [Text(" · ".join(str(h) for h in head if h), "bold")]
    for r in document["runtimes"]:
        lines.append(
            Text(f"{r['name']} {r['version']}" + (f" · {', '.join(r['providers'])}" if r["providers"] else ""))
        )
    if not document["runtimes"]:
        lines.append(Text(f"✗ no runtime; mend: edgelathe device install {document['name']}", "red"))
    if document["emulated"]:
        lines.append(Text("! emulated: times measured here prove nothing", "yellow"))
    for s in document.get("sensors") or []:
        lines.append(Text(" ".join(str(v) for v in s.values()), "dim"))
    return Group(*lines)


def doctor(document: Doc) -> RenderableType:
    """`edgelathe.doctor/1`: each check with a sign, and the mend of what is not well."""
    lines = []
    for c in document["checks"]:
        text = Text(SIGNS.get(c["state"], "?"), STYLES.get(c["state"], "")).append(f" {c['name']}", "")
        text.append(f": {c['what']}" if c.get("what") else "")
        lines.append(text.append(f". Mend: {c['mend']}" if c.get("mend") and c["state"] != "ok" else ""))
    return Group(*lines)


def devices(document: Doc) -> RenderableType:
    """`edgelathe.devices/1`."""
    if not document["devices"]:
        return Text("no devices yet · next: edgelathe device add NAME TARGET")
    made = table(">device", "target", ">profile", "root")
    for d in document["devices"]:
        made.add_row(*(Text(d.get(k) or units.DASH) for k in ("name", "url", "profile", "root")))
    return tidy(made)


def profiles(document: Doc) -> RenderableType:
    """`edgelathe.profiles/1`."""
    made = table(">profile", "for", ">machine", "runtimes")
    for p in document["profiles"]:
        runtimes = ", ".join(dict.fromkeys(r["runtime"] for r in p["runtimes"]))
        made.add_row(Text(p["name"]), Text(p["title"]), Text(p.get("machine") or "any"), Text(runtimes))
    return tidy(made)


def rollout(document: Doc) -> RenderableType:
    """`edgelathe.rollout/1`: each device with its state, and how many are in which."""
    found = document["devices"]
    states = Counter(d["state"] for d in found)
    made = table(">", ">device", ">group", ">state", ">agent", "runtimes", ">free", "why")
    for d in found:
        runtimes = ", ".join(f"{r['name']} {r['version']}" for r in d.get("runtimes") or [])
        sign = Text("✓", "green") if d["state"] in GOOD else Text("✗", "red")
        texts = (
            d["name"],
            d.get("group") or "",
            d["state"],
            (d.get("agent") or units.DASH)[:12],
            runtimes or units.DASH,
        )
        made.add_row(sign, *map(Text, texts), units.size(d.get("free_bytes")), Text(d.get("why") or ""))
    good_first = sorted(states.items(), key=lambda pair: pair[0] not in GOOD)
    total = [f"{len(found)} device{'s' * (len(found) != 1)}", *(f"{n} {state}" for state, n in good_first)]
    return Group(tidy(made), Text(" · ".join(total), "bold"))


def comparison(document: Doc) -> RenderableType:
    """`edgelathe.comparison/1`: what several runs chose, side by side."""
    recipes = [c["recipe"] if (c := chosen(run)) else units.DASH for run in document["runs"]]

    def made(most: int, gap: int = 3) -> RenderableType:
        rows = table(">run", ">budget", "model", "device", ">recipe", ">p50", ">drop", ">size", gap=gap)
        for run, recipe in zip(document["runs"], recipes, strict=True):
            rows.add_row(*map(Text, (*_compared(run), broken(recipe, most))), *_figures(chosen(run)))
        return rows

    return Fitted(recipes, made, lambda most: made(most, gap=2))


def _compared(run: Doc) -> tuple[str, ...]:
    met = {True: "✓ met", False: "✗ not met", None: units.DASH}[run["met"]]
    return run["run"], met, units.base(run["model"]["path"]), run["device"].get("name", units.DASH)


def _figures(candidate: Doc | None) -> tuple[str, ...]:
    """Median, drop and size."""
    if not (candidate and candidate["latency_ms"] and candidate["accuracy"]):
        return (units.DASH,) * 3
    a = candidate["accuracy"]
    drop = units.drop(a["metric"], a["drop"], a["drop_low"], a["drop_high"])
    return units.duration(candidate["latency_ms"]["p50"]), drop, units.size(candidate["bytes"])


def problems(document: Doc) -> RenderableType:
    """`edgelathe.check/1`: every mistake in a profile."""
    found = [Text(f"✗ {p}", "red") for p in document["problems"]]
    found = found or [Text(f"✓ {document['profile']}: no mistakes", "green")]
    return Group(*found, *(Text(f"! {w}", "yellow") for w in document["warnings"]))


def details(document: Doc) -> RenderableType:
    """Any other document: its fields, a line each."""
    return grid([Text(k, "dim"), Text(_words(v))] for k, v in document.items() if k != "schema")


def _words(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return units.DASH
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _tensor(t: Doc) -> str:
    shape = "x".join("?" if d is None else str(d) for d in t["shape"])
    return f"{t['name']}  {shape or 'scalar'}  {t['dtype']}"


def session_line(result: Doc) -> str:
    """How one result was run."""
    options = result["options"]
    threads = options["threads"]
    parts = [result["runtime"], options["provider"], units.several(threads, "thread")]
    parts += [f"CPUs {','.join(map(str, options['cpus']))}"] if options.get("cpus") else []
    return " · ".join(filter(None, [*parts, *(f"{k}={v}" for k, v in options["config"].items())]))


def warning_lines(results: Iterable[Doc]) -> list[Text]:
    """What is to be known of these results, each once."""
    return [Text(f"! {w}", "yellow") for w in dict.fromkeys(w for r in results for w in r.get("warnings") or [])]
