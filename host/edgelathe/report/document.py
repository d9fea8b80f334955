"""The document of a fit, `edgelathe.fit/1`: the same for `--json`, `result.json`, the report and the store."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgelathe.core.result import BudgetLine, Candidate

SCHEMA = "edgelathe.fit/1"
TIMING = ("total_s", "compress_s", "push_s", "measure_s", "plan_s")


def fit_document(
    *,
    run: str,
    met: bool | None,
    reason: str,
    model: Mapping[str, Any],
    profile: str,
    device: Mapping[str, Any],
    budget: Sequence[BudgetLine],
    baseline: Candidate | None,
    chosen: str | None,
    candidates: Sequence[Candidate],
    timing: Mapping[str, float],
) -> dict[str, Any]:
    """The document from its parts; `met`, `chosen` and `baseline` are None while there is no answer yet.

    `model` has path, sha256, format and bytes; `device` the fields of the probe; `timing` seconds by the names of
    `TIMING` (those left out are 0). Which candidates are on the Pareto front is decided here. A figure that is not
    finite becomes null.
    """
    front = mark_pareto([*([baseline] if baseline else []), *candidates])
    others = front[1:] if baseline else front
    document = {
        "schema": SCHEMA,
        "run": run,
        "met": met,
        "reason": reason,
        "model": {k: model[k] for k in ("path", "sha256", "format", "bytes")},
        "profile": profile,
        "device": dict(device),
        "budget": [line.to_json() for line in budget],
        "baseline": front[0].to_json() if baseline else None,
        "chosen": chosen,
        "candidates": [c.to_json() for c in others],
        "timing": {k: round(float(timing.get(k, 0.0)), 3) for k in TIMING},
    }
    return {k: finite(v) for k, v in document.items()}


def mark_pareto(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The same candidates, `pareto` where no other is at least as good in size, p50 and drop, and better in one.

    Only measured ones take part, and those evaluated on every sample. The baseline has a drop of 0.
    """
    most = max((c.accuracy.n for c in candidates if c.accuracy), default=0)
    costs = {i: cost for i, c in enumerate(candidates) if (cost := _cost(c)) and c.accuracy and c.accuracy.n == most}
    return [
        c.with_(pareto=i in costs and not any(_dominates(other, costs[i]) for other in costs.values()))
        for i, c in enumerate(candidates)
    ]


def dumps(document: Mapping[str, Any]) -> str:
    """The one JSON text of a document, for standard output and files alike. Raises ValueError for NaN and infinity."""
    return json.dumps(document, indent=2, allow_nan=False)


def finite(value: Any) -> Any:
    """A copy of a JSON value where numbers that JSON does not have are null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, (list, tuple)) else value


def _cost(c: Candidate) -> tuple[float, float, float] | None:
    if c.status != "measured" or c.bytes is None or c.latency is None or c.accuracy is None:
        return None
    return c.bytes, c.latency.p50, c.accuracy.drop or 0.0


def _dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))
