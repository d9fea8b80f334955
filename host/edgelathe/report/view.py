"""What people are shown of a fit: rows, cells and sentences, for the terminal and the HTML report alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgelathe.core.result import BudgetLine
from edgelathe.report import units

Doc = Mapping[str, Any]
Judged = Mapping[str, Sequence[BudgetLine]]
MARKS = {"met": "✓", "missed": "✗", "undecided": "?"}


@dataclass(frozen=True)
class Cell:
    """A figure, with the verdict of the limit that it is held against (empty: no limit)."""

    text: str
    verdict: str = ""

    def __str__(self) -> str:
        return f"{self.text} {MARKS[self.verdict]}" if self.verdict else self.text


@dataclass(frozen=True)
class Row:
    """One candidate. `number` is its place, from 0 for the baseline; `note` says why it is not measured."""

    number: int
    id: str
    name: str
    cells: tuple[Cell, ...]
    chosen: bool
    pareto: bool
    status: str
    note: str


@dataclass(frozen=True)
class Column:
    """A metric as a column: its heading, and its cell for a candidate given the baseline."""

    metric: str
    heading: str
    cell: Callable[[Doc, Doc | None], str]


def candidates(document: Doc) -> list[Doc]:
    """The baseline, where there is one yet, and the candidates."""
    return [*filter(None, [document["baseline"]]), *document["candidates"]]


def chosen(document: Doc) -> Doc | None:
    """The chosen candidate."""
    return next((c for c in document["candidates"] if c["id"] == document["chosen"]), None)


def accuracy_metric(document: Doc) -> str:
    """The name of the metric that accuracies are in; empty while nothing is measured."""
    return next((c["accuracy"]["metric"] for c in candidates(document) if c["accuracy"]), "")


def name(candidate: Doc, document: Doc) -> str:
    """A candidate's recipe; with format and runtime where not all candidates share them."""
    text = candidate["recipe"] or "baseline"
    ways = {(c["format"], c["runtime"]) for c in candidates(document)}
    return text if len(ways) <= 1 else f"{text} · {candidate['runtime']}"


def columns(document: Doc, *, wide: bool = False) -> list[Column]:
    """Latency as the budget has it, drop, size, and what else the budget limits; `wide` adds the accuracy itself."""
    wanted = [line["metric"] for line in document["budget"]]
    times = [m for m in dict.fromkeys(wanted) if m.startswith("latency.") and _has(document, m)] or ["latency.p50"]
    metric = accuracy_metric(document)
    shown = [_latency(m.removeprefix("latency."), document) for m in times]
    if wide or "accuracy" in wanted:
        shown.append(Column("accuracy", units.metric(metric) or "accuracy", _accuracy))
    shown.append(Column("accuracy.drop", f"{units.metric(metric)} drop".strip(), _drop))
    shown.append(Column("size", "size", _size))
    return shown + [column for column in OTHERS if column.metric in wanted]


def rows(document: Doc, judged: Judged | None = None, *, wide: bool = False) -> list[Row]:
    """All candidates. `judged` has the budget lines by candidate; without it those of the chosen one are marked."""
    shown, base = columns(document, wide=wide), document["baseline"]
    first = 0 if base else 1
    return [
        Row(
            number=number, id=c["id"], name=name(c, document),
            cells=_cells(c, base, shown, _verdicts(c, document, judged or {})),
            chosen=c["id"] == document["chosen"], pareto=c["pareto"], status=c["status"],
            note=f"{c['status']}: {c['why']}" if c["why"] else "" if c["status"] == "measured" else c["status"],
        )
        for number, c in enumerate(candidates(document), first)
    ]  # fmt: skip


def decision(document: Doc) -> str:
    """The answer in one sentence: met by what, or what failed; with the speed where it surely differs."""
    if document["met"] is None:
        done = sum(c["status"] == "measured" for c in document["candidates"])
        return document["reason"] or f"running: {done} of {len(document['candidates'])} candidates measured"
    reason, best = str(document["reason"]), chosen(document)
    gain = speed(document["baseline"], best) if document["met"] and document["baseline"] and best else ""
    return f"{reason}; {gain}" if gain else reason


def speed(base: Doc, candidate: Doc) -> str:
    """`1.6x faster`, where the intervals of both medians are apart; else empty."""
    a, b = base["latency_ms"], candidate["latency_ms"]
    if not a or not b:
        return ""
    (a_low, a_high), (b_low, b_high) = (x.get("p50_ci", [None, None]) for x in (a, b))
    if None in (a_low, a_high, b_low, b_high) or not (b_high < a_low or b_low > a_high):
        return ""
    fast = b["p50"] < a["p50"]
    ratio = a["p50"] / b["p50"] if fast else b["p50"] / a["p50"]
    return f"{units.times(max(ratio, 1.0))} {'faster' if fast else 'slower'}" if ratio >= 1.05 else ""


def session(candidate: Doc, device: Doc) -> str:
    """The session options that the figures hold for: `onnxruntime 1.32.0 · CPUExecutionProvider · 1 thread · ...`."""
    options = candidate["options"]
    version = next((r["version"] for r in device.get("runtimes", []) if r.get("name") == candidate["runtime"]), "")
    threads = options["threads"]
    parts = [
        f"{candidate['runtime']} {version}".strip(),
        options["provider"],
        f"{threads} thread{'s' * (threads != 1)}",
    ]
    return " · ".join(filter(None, [*parts, *(f"{k}={v}" for k, v in options["config"].items())]))


def facts(document: Doc) -> list[tuple[str, str]]:
    """Model, device and budget, a line each."""
    model, device = document["model"], document["device"]
    machine = device.get("model") or device.get("machine")
    cores = device.get("cores")
    about = [machine, device.get("cpu"), f"{cores} core{'s' * (cores != 1)}" if cores else None]
    about += ["emulated" if device.get("emulated") else None, f"profile {document['profile']}"]
    limits = " · ".join(line["expr"] for line in document["budget"])
    return [
        (units.base(model["path"]), f"{units.FORMATS.get(model['format'], '')} · {units.size(model['bytes'])}"),
        (str(device.get("name", "local")), " · ".join(str(a) for a in about if a)),
        *([("budget", limits)] if limits else []),
    ]


def warnings(document: Doc) -> list[str]:
    """What the user should know of the baseline and the chosen candidate, each once; doubts about times too.

    Each says whom it is about, unless it is about both.
    """
    both = list(filter(None, [document["baseline"], chosen(document)]))
    about: dict[str, list[str]] = {}
    for c in both:
        for text in dict.fromkeys(c["warnings"]):
            about.setdefault(text, []).append(c["recipe"] or "baseline")
    said = [text if len(who) > 1 else f"{who[0]}: {text}" for text, who in about.items()]
    return [*said, *dict.fromkeys(text for c in both for text in _doubts(c))]


def _doubts(c: Doc) -> list[str]:
    """Of times that are graded C or D, with the reasons."""
    grade = c.get("grade")
    if not grade or grade["letter"] in "AB":
        return []
    return [f"times of {c['recipe'] or 'the baseline'}: trust {grade['letter']}: {'; '.join(grade['reasons'])}"]


def _cells(c: Doc, base: Doc | None, shown: Sequence[Column], verdicts: Mapping[str, str]) -> tuple[Cell, ...]:
    return tuple(
        Cell(text, verdicts.get(column.metric, "") if text != units.DASH else "")
        for column in shown
        for text in [column.cell(c, base)]
    )


def _verdicts(c: Doc, document: Doc, judged: Judged) -> dict[str, str]:
    """The worst verdict per metric: a metric may have two limits."""
    if c["id"] in judged:
        pairs = [(line.metric, str(line.verdict)) for line in judged[c["id"]]]
    elif c["id"] == document["chosen"]:
        pairs = [(line["metric"], line["verdict"]) for line in document["budget"]]
    else:
        return {}
    order = ("met", "undecided", "missed")
    return dict(sorted(pairs, key=lambda pair: order.index(pair[1])))


def _has(document: Doc, metric: str) -> bool:
    return any(metric.removeprefix("latency.") in (c["latency_ms"] or {}) for c in candidates(document))


def _latency(stat: str, document: Doc) -> Column:
    unit, factor = units.time_unit([c["latency_ms"].get(stat) for c in candidates(document) if c["latency_ms"]])

    def cell(c: Doc, _: Doc | None) -> str:
        figures = c["latency_ms"]
        if not figures or figures.get(stat) is None:
            return units.DASH
        ends = figures.get(f"{stat}_ci", (None, None))
        return units.plus_minus(figures[stat] * factor, *(None if e is None else e * factor for e in ends))

    return Column(f"latency.{stat}", f"{stat} {unit}", cell)


def _accuracy(c: Doc, _: Doc | None) -> str:
    a = c["accuracy"]
    return f"{units.score(a['metric'], a['value'])} of {a['n']:,}" if a else units.DASH


def _drop(c: Doc, _: Doc | None) -> str:
    a = c["accuracy"]
    return units.drop(a["metric"], a["drop"], a["drop_low"], a["drop_high"]) if a else units.DASH


def _size(c: Doc, base: Doc | None) -> str:
    if c["bytes"] is None or base is None or c["id"] == base["id"] or not base["bytes"]:
        return units.size(c["bytes"])
    return units.times(c["bytes"] / base["bytes"])


def _throughput(c: Doc, _: Doc | None) -> str:
    return units.DASH if c["throughput"] is None else units.digits(c["throughput"], 3)


def _energy(c: Doc, _: Doc | None) -> str:
    return units.digits(c["energy"]["mj_per_inference"], 3) if c["energy"] else units.DASH


OTHERS = (
    Column("throughput", "per s", _throughput),
    Column("memory", "memory", lambda c, _: units.size(c["memory"]["peak_bytes"])),
    Column("energy", "mJ", _energy),
    Column("load", "load", lambda c, _: units.duration(c["load_ms"])),
)
