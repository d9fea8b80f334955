"""`edgelathe.bench/1` on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from edgelathe.report import tables, units
from edgelathe.report.layout import Fitted, Layout, shortened
from edgelathe.report.several import told_apart, trust, warnings
from edgelathe.report.view import MARKS

Doc = Mapping[str, Any]

#: Share of the calls beyond which those far above the median are no outliers.
MANY = 0.05
#: Share of the CPU that others may take before it is told: below it a grade does not mind (`conditions.BUSY_SHARE`).
BUSY = 0.1


def benchmark(document: Doc) -> RenderableType:
    """Figures with 95% intervals, who is faster, what the conditions were, and how far to trust it all."""
    document = told_apart(document)
    results = document["results"]
    able = [r for r in results if r["latency_ms"]]
    names = units.short([r["model"] for r in results])
    lines: list[RenderableType] = [_figures(able, names)] if able else []
    for r in able:
        lines += [Text(f"{names[r['model']]} {text}") for text in _more(r)]
    lines += [Text(f"✗ {names[r['model']]}: {r['error']['what']}", "red") for r in results if r.get("error")]
    lines += [Text(_comparison(c, names), "bold") for c in document.get("comparisons", [])]
    lines += [_budget(line, names) for line in document.get("budget", ())]
    conditions = _conditions(able)
    if conditions:
        lines.append(Text(conditions, "dim"))
    lines += [Text(text, style) for text, style in trust(able, names)]
    if document.get("interrupted"):
        lines.append(Text("! interrupted: these are the figures of the time until then", "yellow"))
    return Group(*lines, *warnings(results, names))


def _figures(able: Sequence[Doc], names: Mapping[str, str]) -> RenderableType:
    """The table: intervals beside the figures, or below them where the terminal is narrow; and how it all ran."""
    scenario = able[0].get("scenario") or {"name": "single-stream"}
    layouts: list[Layout] = [
        lambda most: _table(able, names, most),
        lambda most: _table(able, names, most, below=True),
        lambda most: _table(able, names, most, below=True, gap=2),
    ]
    said = _scenario(scenario)
    made = Fitted([names[r["model"]] for r in able], *layouts)
    return Group(*([Text(said, "dim")] if said else []), made, *_sessions(able, names))


def _table(
    able: Sequence[Doc], names: Mapping[str, str], most: int, *, below: bool = False, gap: int = 3
) -> RenderableType:
    offline = (able[0].get("scenario") or {}).get("name") == "offline"
    unit, factor = units.time_unit([r["latency_ms"]["p50"] for r in able])
    graded = any(r.get("grade") for r in able)
    columns = [">samples/s"] if offline else [f">p50 {unit}", f">p95 {unit}", f">p99 {unit}"]
    made = tables.table(">  model", *columns, ">n", *([">trust"] if graded else []), gap=gap)
    for r in able:
        figures = r["latency_ms"]
        cells = [_rate(r)] if offline else [percentile(figures, stat, factor) for stat in ("p50", "p95", "p99")]
        if below:
            cells = [cell.replace(" [", "\n[") for cell in cells]
        trust = [Text((r.get("grade") or {}).get("letter", units.DASH))] if graded else []
        made.add_row(Text(f"  {shortened(names[r['model']], most)}"), *cells, f"{figures['n']:,}", *trust)
    return made


def _sessions(able: Sequence[Doc], names: Mapping[str, str]) -> Iterator[Text]:
    """How each ran; once where all ran alike."""
    ran = {
        names[r["model"]]: tables.session_line(r) + (" · emulated" if r.get("emulated") else "") for r in able
    }  # by name: of a model that is measured twice both are one
    alike = len(set(ran.values())) == 1
    for name, text in list(ran.items())[: 1 if alike else None]:
        yield Text(f"  {text}" if alike else f"  {name}: {text}", "dim")


def _scenario(scenario: Doc) -> str:
    name = scenario["name"]
    said = {
        "multi-stream": f"multi-stream: the time of {scenario.get('streams')} samples given at once",
        "offline": "offline: many samples given at once, as fast as they go",
        "paced": f"paced: a call every {span(scenario.get('period_ms', 0))}",
        "sustained": f"sustained: {span(scenario.get('sustain_ms', 0))} without a pause",
    }.get(name, "")
    batch = f"{scenario['batch']} samples a call" if scenario.get("batch", 0) > 1 else ""
    return " · ".join(filter(None, [said, batch]))


def span(ms: float) -> str:
    """A length of time as people say it: `33 ms`, `8 s`, `10 min`."""
    unit, factor = next(((u, f) for u, f in (("min", 60e3), ("s", 1e3)) if ms >= f), ("ms", 1.0))
    return f"{ms / factor:.3g} {unit}"


def percentile(figures: Doc, stat: str, factor: float) -> str:
    """`3.05 [3.04, 3.06]`: a statistic of `latency_ms`, times `factor`."""
    low, high = (None if e is None else e * factor for e in figures.get(f"{stat}_ci", (None, None)))
    value = figures[stat] * factor
    ends = [abs(e - value) for e in (low, high) if e is not None]
    if not ends:
        return units.digits(value, 3) + (f" {units.bracket(None, None, 0)}" if f"{stat}_ci" in figures else "")
    places = min(max(units.decimals(max(ends)), 0), 4)
    return f"{value:,.{places}f} {units.bracket(low, high, places)}"


def _rate(result: Doc) -> str:
    low, high = result.get("throughput_ci") or (None, None)
    return f"{units.digits(result['throughput'], 4)} {units.bracket(low, high, 0 if result['throughput'] > 100 else 2)}"


def _more(r: Doc) -> Iterator[str]:
    """Lines on what the table has no column for."""
    paced, sustained, split = r.get("paced"), r.get("sustained"), r.get("split")
    if paced:
        ends = units.bracket(paced["low"], paced["high"], 2)
        beside = units.duration(paced["back_to_back_ms"]["p50"])
        late = (
            f" · {units.several(paced['late'], 'call')} began late: one takes longer than the period"
            if paced["late"]
            else ""
        )
        yield f"with pauses takes {paced['ratio']:.2f}x {ends} of calls back to back ({beside}){late}"
    if sustained:
        yield _sustained(sustained)
    if split:
        parts = [f"{k.removesuffix('_ms').replace('_', ' ')} {units.duration(v)}" for k, v in split.items()]
        yield "a call on the GPU: " + ", ".join(parts)
    if r.get("energy"):
        e = r["energy"]
        text = units.plus_minus(e["mj_per_inference"], e["low"], e["high"])
        yield f"energy {text} mJ per inference above idling · {e['tier']['rail']}"
    if r.get("footprint"):
        yield _footprint(r["footprint"])
    if r.get("processes"):
        p = r["processes"]
        yield f"{len(p['values'])} processes: their medians differ by {units.share(p['spread'])}"
    if r.get("outliers", {}).get("n"):
        yield _outliers(r["outliers"])


def _sustained(s: Doc) -> str:
    steady = s.get("steady_ms")
    text = "did not come to a steady state"
    if steady:
        unit, factor = units.time_unit([steady["value"]])
        text = f"steady at {units.plus_minus(*(steady[k] * factor for k in ('value', 'low', 'high')))} {unit}"
        text += f" from {span(s['settled_s'] * 1000)} on" if s.get("settled_s") else ""
        text += f", {s['slowdown']:.2f}x of the start" if s.get("slowdown") else ""
    if s.get("onset_s") is not None:
        text += f" · slower from {span(s['onset_s'] * 1000)} on"
    if s.get("throttled_s") is not None:
        text += f" · throttled from {span(s['throttled_s'] * 1000)} on"
    return text


def _footprint(f: Doc) -> str:
    def of(key: str, show: Any) -> str | None:
        return show(f[key]["value"]) if f.get(key) else None

    rows = {
        "loads in": of("load_ms", units.duration),
        "from the disk in": of("load_cold_ms", units.duration),
        "builds its engine in": None if f.get("build_ms") is None else units.duration(f["build_ms"]),
        "first inference": of("first_ms", units.duration),
        "peak memory": of("peak_bytes", units.size),
        "GPU memory": of("gpu_bytes", units.size),
    }
    return " · ".join(f"{what} {value}" for what, value in rows.items() if value)


def _outliers(o: Doc) -> str:
    places = {"first": "in the first block mostly", "clustered": f"in {units.several(o.get('blocks') or 0, 'block')}"}
    where = places.get(o.get("at", ""), "")
    if o["share"] > MANY:
        return f"{o['share']:.0%} of the calls are far above the median: a second level rather than outliers"
    parts = [f"{units.several(o['n'], 'outlier')} kept", f"{units.rare(o['share'])} of the calls", where]
    parts.append(f"the slowest {units.duration(o['worst_ms'])}" if o.get("worst_ms") else "")
    return ", ".join(filter(None, parts))


def _comparison(c: Doc, names: Mapping[str, str]) -> str:
    a, b = names[c["a"]], names[c["b"]]
    words = {
        "faster": f"{b} is faster than {a}",
        "slower": f"{b} is slower than {a}",
        "same": f"{b} and {a} are equally fast",
    }
    text = words.get(c["verdict"], f"{b} against {a}: undecided")
    places = max(3, min(5, units.decimals(abs(c["high"] - c["low"])))) if None not in (c["low"], c["high"]) else 3
    return f"{text}: {c['ratio']:.{places}f}x {units.bracket(c['low'], c['high'], places)}"


def _budget(line: Doc, names: Mapping[str, str]) -> Text:
    figures = [units.quantity(line["metric"], "", line["value"])]
    if line["bound"] is not None and line["bound"] != line["value"]:
        figures.append(f"95 % sure of {units.quantity(line['metric'], '', line['bound'])}")
    note = f" · {line['note']}" if line["note"] else ""
    text = f"{MARKS[line['verdict']]} {names[line['model']]}: {line['expr']} {line['verdict']}"
    style = {"met": "green", "missed": "red"}.get(line["verdict"], "yellow")
    return Text(f"{text}: {', '.join(figures)}{note}", style)


def _conditions(able: Sequence[Doc]) -> str:
    """`interleaved in 42 blocks · 52-55 °C, 1.8 GHz throughout`."""
    found = [r["conditions"] for r in able if r.get("conditions")]
    if not found:
        return ""
    blocks = max(r["blocks"] for r in able if r.get("blocks"))
    paced = any(r.get("paced") for r in able)
    turns = len(able) > 1 and not any(r.get("sustained") for r in able)
    parts = [f"{'interleaved in ' if turns or paced else ''}{units.several(blocks, 'block')}"]
    heat = [t for f in found for ends in (f.get("temperature_c") or {}).values() for t in ends]
    clock = [t for f in found for t in f.get("clock_khz") or ()]
    device = [_range(heat, 1.0, 0, "°C")] if heat else []
    device += [_range(clock, 1e-6, 1, "GHz")] if clock else []
    parts += [", ".join(device)] if device else []
    shares = [f["others"] for f in found if f.get("others") is not None]
    parts += [f"others took {max(shares):.0%} of the CPU"] if shares and max(shares) >= BUSY else []
    return " · ".join(parts)


def _range(values: Sequence[float], factor: float, places: int, unit: str) -> str:
    low, high = (f"{v * factor:.{places}f}" for v in (min(values), max(values)))
    return f"{low} {unit} throughout" if low == high else f"{low}-{high} {unit}"
