"""Any `--json` document against the JSON Schema that ships with the package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import pytest


@cache
def names() -> tuple[str, ...]:
    """The documents that have a schema: `fit`, `bench`, ..."""
    found = resources.files("edgelathe").joinpath("schemas").iterdir()
    return tuple(
        sorted(f.name.removesuffix(".json") for f in found if f.name.endswith(".json") and f.name != "common.json")
    )


@cache
def load(name: str) -> dict[str, Any]:
    """The schema of that name."""
    text = resources.files("edgelathe").joinpath("schemas", f"{name}.json").read_text(encoding="utf-8")
    return json.loads(text)


def validate(document: Mapping[str, Any]) -> None:
    """Fail with the place in `document` that its schema, found by the field `schema`, does not allow."""
    jsonschema = pytest.importorskip("jsonschema")
    referencing = pytest.importorskip("referencing")
    kind, _, version = str(document.get("schema", "")).removeprefix("edgelathe.").partition("/")
    assert kind in names(), f"no schema for {document.get('schema')!r}"
    assert version == "1"
    shared = {f"{name}.json": referencing.Resource.from_contents(load(name)) for name in ("common", "fit")}
    registry = referencing.Registry().with_resources(shared.items())
    errors = jsonschema.Draft202012Validator(load(kind), registry=registry).iter_errors(
        json.loads(json.dumps(document))
    )
    problems = [f"{e.json_path}: {e.message[:300]}" for e in errors]
    assert not problems, f"{document['schema']}: " + "; ".join(problems[:5])
