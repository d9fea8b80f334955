"""What a fit leaves behind: its evidence in the store, its documents, its result folder."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.budget import Limit, parse_all
from edgelathe.core.errors import UserError
from edgelathe.core.result import BudgetLine
from edgelathe.fit.decide import Rules, lines
from edgelathe.fit.job import Job
from edgelathe.fit.measured import Entry
from edgelathe.report.document import fit_document
from edgelathe.report.html import html
from edgelathe.report.junit import junit
from edgelathe.report.write import write_results

if TYPE_CHECKING:
    from edgelathe.store.store import Store


class Shelf:
    """The loop's `Keep` over the store."""

    def __init__(self, store: Store, run: str) -> None:
        self._store, self._run = store, run

    def entries(self) -> dict[str, Entry]:
        """Finished candidates and the baseline, by id."""
        return stored_entries(self._store, self._run)

    def save(self, entry: Entry, artifact: bytes | None) -> None:
        """Durable when it returns."""
        self._store.save_candidate(
            self._run, entry.candidate, claims=entry.evidence(), recipe_toml=entry.recipe_toml, artifact=artifact
        )

    def outputs(self) -> NDArray[np.generic] | None:
        """The baseline's outputs, where they were saved."""
        data = self._store.file(self._run, "outputs.npy")
        return None if data is None else np.load(io.BytesIO(data), allow_pickle=False)

    def save_outputs(self, entry: Entry, outputs: NDArray[np.generic]) -> None:
        """The baseline with its outputs."""
        buffer = io.BytesIO()
        np.save(buffer, outputs, allow_pickle=False)
        self._store.save_file(self._run, "outputs.npy", buffer.getvalue())
        self.save(entry, None)


def judged(store: Store, run: str) -> dict[str, tuple[BudgetLine, ...]]:
    """The verdicts on every measured candidate of a run, by id; empty while its baseline is not measured."""
    row = store.run(run)
    job = Job.from_json(row.job["job"])
    entries = stored_entries(store, row.run)
    baseline = entries.pop("baseline", None)
    if baseline is None:
        return {}
    device = (row.result or {}).get("device") or (row.result or {}).get("probe") or {}
    rules = rules_of(job, parse_all(job.budget), bool(device.get("emulated")))
    return {id: lines(rules, entry, baseline) for id, entry in entries.items() if entry.measured}


def rules_of(job: Job, limits: tuple[Limit, ...], emulated: bool) -> Rules:
    """How the limits of a job are judged."""
    return Rules(limits, job.lenient, emulated, job.allow_emulated)


def stored_entries(store: Store, run: str) -> dict[str, Entry]:
    """What the store has of a run, by candidate id."""
    rows = store.candidates(run)
    return {s.candidate.id: Entry.restore(s.candidate, s.claims, s.recipe_toml) for s in rows}


def model_facts(job: Job, sha256: str, format: str, size: int) -> dict[str, Any]:
    """The `model` of the document."""
    return {"path": job.model, "sha256": sha256, "format": format, "bytes": size}


def export(store: Store, run: str, folder: Path, force: bool) -> list[Path]:
    """Write the result files of a finished run to another folder; their paths. Raises UserError before it is done."""
    row = store.run(run)
    if row.state != "done" or row.result is None:
        raise UserError(f"run {run}", f"is {row.state}", f"finish it with `edgelathe fit --resume {run}`")
    return write(store, row.result, folder, force)


def write(store: Store, document: Mapping[str, Any], folder: Path | str, force: bool) -> list[Path]:
    """The five files of the result; without model and recipe where no candidate could be measured."""
    run = document["run"]
    chosen = next((c for c in document["candidates"] if c["id"] == document["chosen"]), None)
    recipe = stored_entries(store, run)[chosen["id"]].recipe_toml if chosen else None
    return write_results(
        folder,
        model_bytes=store.artifact(chosen["sha256"]) if chosen else None,
        model_suffix=document["model"]["format"],
        recipe_toml=recipe,
        document=document,
        html=html(document, recipe or "", judged(store, run)),
        junit=junit(document),
        force=force,
    )


def running_document(store: Store, run: str) -> dict[str, Any]:
    """The document of a run in whatever state it is: what is there so far, `met` and `chosen` null until it is done."""
    row = store.run(run)
    if row.state == "done" and row.result is not None:
        return dict(row.result)
    job, facts = Job.from_json(row.job["job"]), row.result or {}
    entries = stored_entries(store, row.run)
    baseline = entries.pop("baseline", None)
    return fit_document(
        run=row.run,
        met=None,
        reason=f"the run is {row.state}",
        model=model_facts(job, row.model_sha256 or "", facts.get("format", ""), facts.get("bytes", 0)),
        profile=facts.get("profile", ""),
        device=facts.get("probe", {}),
        budget=(),
        baseline=baseline.candidate if baseline else None,
        chosen=None,
        candidates=[e.candidate for e in entries.values()],
        timing={},
    )
