"""What the store answers with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgelathe.core.result import Candidate

RunState = Literal["planned", "running", "interrupted", "failed", "done"]
FINAL: frozenset[RunState] = frozenset({"interrupted", "failed", "done"})


@dataclass(frozen=True)
class RunRow:
    """One run without its candidates. Times are ISO 8601 in UTC.

    Attributes:
        run: a short unique id.
        state: `interrupted` also where the process that worked on it is gone.
        job: everything that is needed to resume it, as `create_run` was given it.
        result: the document-level fields of its result so far.
        owner: `process 123 on host` while somebody works on it.
    """

    run: str
    state: RunState
    model: str
    model_sha256: str | None
    device: str
    started: str
    finished: str | None
    met: bool | None
    job: Mapping[str, Any]
    result: Mapping[str, Any] | None
    owner: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The row of `edgelathe.runs/1`."""
        keys = ("run", "state", "model", "device", "started", "finished", "met")
        return {k: getattr(self, k) for k in keys}


@dataclass(frozen=True)
class StoredCandidate:
    """A candidate as it was saved last: with its claims for the budget and the resolved recipe that replays it."""

    candidate: Candidate
    claims: Mapping[str, Mapping[str, Any]]
    recipe_toml: str
