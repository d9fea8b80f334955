"""The budget for CI systems."""

from xml.etree import ElementTree as ET

from edgelathe.core.result import BudgetLine
from edgelathe.report.junit import junit
from support import documents


def cases(**changes):
    root = ET.fromstring(junit(documents.fit(**changes)))
    return root, root.findall(".//testcase")


def test_a_case_per_budget_line():
    root, found = cases()
    assert [c.get("name") for c in found] == ["size<=0.35x", "accuracy.drop<=2%"]
    assert (root.get("tests"), root.get("failures")) == ("2", "0")
    assert root.find("testsuite").get("name") == "digits <b>.onnx on local"
    assert not root.findall(".//failure")


def test_missed_and_undecided_lines_fail_and_say_so():
    missed = BudgetLine("size<=10kB", "size", 1e4, 43_400.0, 43_400.0, 140_000.0, "missed")
    open_ = BudgetLine(
        "latency<=1ms", "latency.p50", 1.0, 0.9, None, 2.0, "undecided", "about 2 times the samples would settle it"
    )
    root, found = cases(met=False, reason="missed: size", budget=[missed, open_, documents.DROP])
    assert (root.get("tests"), root.get("failures")) == ("3", "2")
    first, second = (c.find("failure") for c in found[:2])
    assert (first.get("type"), first.get("message")) == ("missed", "missed: size 43.4 kB, limit 10.0 kB")
    assert second.get("message") == (
        "undecided: latency.p50 900 us, 95 % bound unknown, limit 1.00 ms; about 2 times the samples would settle it"
    )
    assert first.text == "missed: size"
    assert found[2].find("failure") is None


def test_characters_that_xml_does_not_have_are_replaced():
    root, _ = cases(reason="a\x00b\x1b[31m & <c>")
    assert root.find(".//property[@name='reason']").get("value") == "a\ufffdb\ufffd[31m & <c>"


def test_a_fit_without_a_budget_line_is_valid_xml():
    assert cases(budget=[], chosen=None, met=False)[1] == []
