"""The document of a fit."""

import json
import math

import pytest

from edgelathe.core.result import Candidate
from edgelathe.report.document import dumps, finite, mark_pareto
from support import documents


def test_it_has_exactly_the_fields_of_the_contract():
    fields = "schema run met reason model profile device budget baseline chosen candidates timing"
    assert list(documents.fit()) == fields.split()
    assert list(documents.fit()["timing"]) == ["total_s", "compress_s", "push_s", "measure_s", "plan_s"]


def test_candidates_survive_the_round_trip():
    document = json.loads(dumps(documents.fit()))
    back = [Candidate.from_json(c).with_(pareto=False) for c in document["candidates"]]
    assert back == documents.CANDIDATES
    assert Candidate.from_json(document["baseline"]).with_(pareto=False) == documents.BASELINE


def test_the_text_is_strict_json_that_any_terminal_can_print():
    text = dumps(documents.fit(reason="met by int8 – 0.31×", timing={"total_s": 1 / 3}))
    assert text.isascii()
    with pytest.raises(ValueError, match="JSON"):
        dumps({"x": math.nan})


def test_figures_that_are_not_finite_are_null():
    accuracy = documents.accuracy(math.nan, math.inf)
    document = documents.fit(candidates=[documents.INT8.with_(accuracy=accuracy)])
    got = json.loads(dumps(document))["candidates"][0]["accuracy"]
    assert (got["value"], got["drop"], got["n"]) == (None, None, 540)
    assert finite({"a": (1.0, -math.inf, "inf", True)}) == {"a": [1.0, None, "inf", True]}


def test_pareto():
    def make(id_, size, p50, drop):
        return documents.candidate(id_, id_, size, p50, reach=0.1, drop=drop)

    given = [
        make("base", 100, 5.0, None),
        make("better everywhere", 50, 3.0, 0.0),
        make("smaller", 40, 4.0, 0.01),
        make("dominated", 60, 3.0, 0.0),
        make("twin", 50, 3.0, 0.0),
        make("rejected", 1, 1.0, 0.0).with_(status="rejected"),
        make("no latency", 1, 1.0, 0.0).with_(latency=None),
    ]
    marked = mark_pareto(given)
    assert [c.id for c in marked if c.pareto] == ["better everywhere", "smaller", "twin"]
    assert [c.with_(pareto=False) for c in marked] == given
    assert not any(c.pareto for c in given)
