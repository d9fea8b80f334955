from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgelathe_agent.framing import ProtocolError
from edgelathe_agent.protocol import KINDS, MAX_REQUEST, RUNTIMES, VERBS, AgentError, check_request
from edgelathe_agent.verbs import HANDLERS

DOC = Path(__file__).parents[2] / "docs" / "protocol.md"
NAMES = {(str,): "text", (int,): "integer", (int, float): "number", (list,): "list", (dict,): "object", (bool,): "flag"}


def rows(heading: str) -> dict[str, list[str]]:
    section = DOC.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_the_document_has_the_table_of_requests_and_no_other():
    documented = {
        verb: (dict(re.findall(r"`(\w+)` (\w+)", fields)), tuple(re.findall(r"`(\w+)`", answer)))
        for verb, (fields, answer) in rows("Requests").items()
    }
    table = {name: ({f: NAMES[t] for f, t in v.fields.items()}, v.answer) for name, v in VERBS.items()}
    assert documented == table


def test_the_document_has_all_kinds_of_error_and_the_limits():
    assert {kind: [meaning] for kind, meaning in KINDS.items()} == rows("Errors")
    assert f"payloads up to {MAX_REQUEST >> 20} MiB" in DOC.read_text()
    assert all(f"`{name}`" in DOC.read_text() for name in RUNTIMES)


def test_each_request_of_the_table_has_its_function():
    assert set(HANDLERS) == set(VERBS)


def test_a_request_of_the_table_passes():
    check_request({"id": 1, "do": "put", "sha256": "0" * 64, "size": 1, "offset": 0, "more": "is ignored"})


@pytest.mark.parametrize(
    ("head", "word"),
    [
        ({"id": 1}, "no request None"),
        ({"id": 1, "do": ["put"]}, "no request"),
        ({"id": 1, "do": "fly"}, "'fly'"),
        ({"id": 1, "do": "have"}, "have.sha256 is None, wanted list"),
        ({"id": 1, "do": "put", "sha256": "0" * 64, "size": True, "offset": 0}, "put.size is True"),
        ({"id": 1, "do": "time", "session": 1, "first": 0, "calls": 1, "min_ms": "9"}, "wanted int or float"),
    ],
)
def test_a_bad_request_names_its_field(head, word):
    with pytest.raises(AgentError) as e:
        check_request(head)
    assert e.value.kind == "request"
    assert word in e.value.what


def test_a_request_without_an_id_cannot_be_answered():
    with pytest.raises(ProtocolError):
        check_request({"do": "probe"})
