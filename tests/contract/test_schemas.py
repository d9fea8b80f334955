"""The shipped JSON Schemas: valid themselves, and kept by what the package writes."""

import copy

import pytest

from support import documents, schemas

jsonschema = pytest.importorskip("jsonschema")


@pytest.mark.parametrize("name", [*schemas.names(), "common"])
def test_each_schema_is_valid_and_tells_its_history(name):
    schema = schemas.load(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert "1: " in schema["$comment"]
    assert name == "common" or schema["properties"]["schema"] == {"const": f"edgelathe.{name}/1"}


@pytest.mark.parametrize("name", documents.DOCUMENTS)
def test_documents_of_the_contract_are_accepted(name):
    schemas.validate(documents.DOCUMENTS[name])


def test_every_schema_has_a_document():
    assert {*documents.DOCUMENTS, "fit"} == set(schemas.names())


@pytest.mark.parametrize(
    "document",
    [
        documents.fit(),
        documents.running(),
        documents.fit(
            device={}, model={**documents.fit()["model"], "format": ""}, met=None, chosen=None, reason="planned"
        ),
        documents.fit(baseline=None, met=None, chosen=None, reason="", budget=[], candidates=[]),
        documents.fit(met=False, chosen=None, reason="nothing could be measured", budget=[]),
    ],
    ids=["done", "running", "no device yet", "planned", "nothing measured"],
)
def test_fit_documents_are_accepted(document):
    schemas.validate(document)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("met",), "yes", "$.met"),
        (("chosen",), None, "$.chosen"),
        (("reason",), "", "$.reason"),
        (("budget", 0, "verdict"), "good", "$.budget[0].verdict"),
        (("candidates", 0, "latency_ms"), None, "latency_ms"),
        (("candidates", 0, "options", "threads"), 0, "threads"),
        (("baseline", "sha256"), "abc", "sha256"),
        (("timing",), {}, "$.timing"),
    ],
)
def test_fit_documents_that_break_the_contract_are_refused(path, value, named):
    document = copy.deepcopy(documents.fit())
    at = document
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    with pytest.raises(AssertionError, match=named.replace("$", r"\$").replace("[", r"\[")):
        schemas.validate(document)


def test_a_document_without_a_schema_is_refused():
    with pytest.raises(AssertionError, match="no schema"):
        schemas.validate({"schema": "edgelathe.nothing/1"})
