"""What is to be said of several results of one `edgelathe.bench/1`: each thing once, and of whom it is."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text

Doc = Mapping[str, Any]

_FIGURE = re.compile(r"\d[\d,]*(?:\.\d+)?")


def told_apart(document: Doc) -> Doc:
    """With a number behind the name of a model that is measured twice, as one does to see what a tie looks like."""
    many = Counter(r["model"] for r in document["results"])
    if max(many.values(), default=0) < 2:
        return document
    seen: Counter[str] = Counter()

    def numbered(name: str, at: int) -> str:
        return f"{name} ({at})" if many[name] > 1 else name

    results = []
    for r in document["results"]:
        seen[r["model"]] += 1
        results.append({**r, "model": numbered(r["model"], seen[r["model"]])})
    pairs = itertools.combinations([r["model"] for r in results if r["latency_ms"]], 2)  # the order of comparisons
    compared = [{**c, "a": a, "b": b} for c, (a, b) in zip(document.get("comparisons", ()), pairs, strict=False)]
    lines = document.get("budget", ())
    left = Counter((line["model"], line["expr"]) for line in lines)  # a limit in `x` has no line for the first model
    budget = []
    for line in lines:
        key = line["model"], line["expr"]
        budget.append({**line, "model": numbered(line["model"], many[line["model"]] - left[key] + 1)})
        left[key] -= 1
    return {**document, "results": results, "comparisons": compared, "budget": budget}


def trust(able: Sequence[Doc], names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Why a grade is not A; once where it is the same for all but for its figures."""
    graded = [(names[r["model"]], r["grade"]) for r in able if r.get("grade") and r["grade"]["reasons"]]
    alike = {(g["letter"], tuple(_FIGURE.sub("#", text) for text in g["reasons"])) for _, g in graded}
    if len(graded) == len(able) > 1 and len(alike) == 1:
        letter = graded[0][1]["letter"]
        reasons = [_as_one(texts) for texts in zip(*(g["reasons"] for _, g in graded), strict=True)]
        graded = [("", {"letter": letter, "reasons": reasons})]
    for name, g in graded:
        who = f" of {name}" if name and len(able) > 1 else ""
        yield f"trust {g['letter']}{who}: {'; '.join(g['reasons'])}", "yellow" if g["letter"] in "CD" else "dim"


def _as_one(texts: Sequence[str]) -> str:
    """Texts that differ in their figures only, as one: `took 78-82% of the CPU`."""
    figures = zip(*(_FIGURE.findall(text) for text in texts), strict=True)
    ends = [sorted({*column}, key=lambda figure: float(figure.replace(",", ""))) for column in figures]
    spans = iter(low[0] if len(low) == 1 else f"{low[0]}-{low[-1]}" for low in ends)
    return _FIGURE.sub(lambda _: next(spans), texts[0])


def warnings(results: Sequence[Doc], names: Mapping[str, str]) -> Iterator[Text]:
    """Each remark once, with whom it is about where it is not about all."""
    about: dict[str, list[str]] = {}
    for r in results:
        for text in dict.fromkeys(r.get("warnings") or ()):
            about.setdefault(text, []).append(names[r["model"]])
    for text, who in about.items():
        named = "" if len(who) == len(results) else f"{', '.join(who)}: "
        yield Text(f"! {named}{text}", "yellow")
