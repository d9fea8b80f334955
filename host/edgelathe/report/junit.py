"""The budget as a JUnit file, which CI systems show: a test case per line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from edgelathe.report import units

if TYPE_CHECKING:
    from collections.abc import Mapping

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2


def junit(document: Mapping[str, Any]) -> str:
    """`junit.xml` of a fit document: a line that is missed or undecided is a failure, which says so and by how much."""
    lines, model = document["budget"], units.base(document["model"]["path"])
    failures = sum(line["verdict"] != "met" for line in lines)
    figures = {"tests": str(len(lines)), "failures": str(failures), "errors": "0", "skipped": "0"}
    seconds = f"{document['timing']['total_s']:.3f}"
    root = ET.Element("testsuites", {"name": "edgelathe", **figures, "time": seconds})
    name = _clean(f"{model} on {document['device'].get('name', 'local')}")
    suite = ET.SubElement(root, "testsuite", {"name": name, **figures, "time": seconds})
    chosen = next((c for c in document["candidates"] if c["id"] == document["chosen"]), None)
    for key, value in (
        ("run", document["run"]),
        ("chosen", chosen["recipe"] if chosen else ""),
        ("reason", document["reason"]),
    ):
        properties = suite.find("properties")
        properties = ET.SubElement(suite, "properties") if properties is None else properties
        ET.SubElement(properties, "property", {"name": key, "value": _clean(str(value))})
    score = _metric(chosen or document["baseline"])
    for line in lines:
        case = ET.SubElement(suite, "testcase", {"classname": "budget", "name": _clean(line["expr"]), "time": "0"})
        text = _clean(describe(line, score))
        if line["verdict"] == "met":
            ET.SubElement(case, "system-out").text = text
        else:
            failure = ET.SubElement(case, "failure", {"type": line["verdict"], "message": f"{line['verdict']}: {text}"})
            failure.text = _clean(document["reason"])
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def describe(line: Mapping[str, Any], metric: str) -> str:
    """What a budget line found, in words: value, bound and limit. `metric` is that of the accuracy."""
    value, bound, limit = (units.quantity(line["metric"], metric, line[k]) for k in ("value", "bound", "limit"))
    exact = line["metric"] == "size"
    text = f"{line['metric']} {value}" + ("" if exact else f", 95 % bound {bound}") + f", limit {limit}"
    return f"{text}; {line['note']}" if line.get("note") else text


def _metric(candidate: Mapping[str, Any] | None) -> str:
    accuracy = candidate and candidate["accuracy"]
    return str(accuracy["metric"]) if accuracy else ""


def _clean(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
