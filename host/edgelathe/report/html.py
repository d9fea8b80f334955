"""The report as one HTML file that loads nothing."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

from edgelathe import __version__
from edgelathe.report import chart, units, view
from edgelathe.report.junit import describe

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIRST = ("name", "model", "machine", "cpu", "cores", "memory_bytes", "python", "runtimes", "emulated")


def html(document: Mapping[str, Any], recipe_toml: str = "", judged: view.Judged | None = None) -> str:
    """The report of a fit document, with the text of the chosen recipe. `judged` is as for `view.rows`."""
    from jinja2 import Environment, StrictUndefined

    template = resources.files("edgelathe.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    best, metric = view.chosen(document), view.accuracy_metric(document)
    return environment.from_string(template).render(
        d=document,
        title=f"{units.base(document['model']['path'])} on {document['device'].get('name', 'local')}",
        state=_state(document),
        decision=view.decision(document),
        facts=view.facts(document),
        lines=[(line, describe(line, metric)) for line in document["budget"]],
        marks=view.MARKS,
        columns=view.columns(document, wide=True),
        rows=view.rows(document, judged, wide=True),
        chart=chart.chart(document),
        area=chart,
        best=best,
        session=view.session(best, document["device"]) if best else "",
        recipe_toml=recipe_toml,
        device=_facts(document["device"]),
        warnings=view.warnings(document),
        seconds={k.removesuffix("_s"): v for k, v in document["timing"].items()},
        version=__version__,
    )


def _state(document: Mapping[str, Any]) -> str:
    """`met`, `missed`, `undecided` or `running`."""
    if document["met"] is None:
        return "running"
    verdicts = {line["verdict"] for line in document["budget"]}
    return "met" if document["met"] else "undecided" if verdicts and "missed" not in verdicts else "missed"


def _facts(device: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is known of the device, in words, the usual facts first."""
    keys = [*(k for k in _FIRST if k in device), *(k for k in device if k not in (*_FIRST, "profile"))]
    pairs = [(k.removesuffix("_bytes").replace("_", " "), _words(k, device[k])) for k in keys]
    return [(k, v) for k, v in pairs if v]


def _words(key: str, value: Any) -> str:
    if key.endswith("_bytes") and isinstance(value, (int, float)):
        return units.size(value)
    if key == "runtimes":
        return "; ".join(f"{r['name']} {r['version']} ({', '.join(r.get('providers') or ['-'])})" for r in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        flat = not any(isinstance(v, (dict, list, tuple)) for v in value)
        return (" " if flat else "; ").join(_words("", v) for v in value)
    if isinstance(value, dict):
        told = ((k.replace("_", " "), _words(k, v)) for k, v in value.items())
        return ", ".join(f"{k} {v}" for k, v in told if v)
    return "" if value is None else str(value)
