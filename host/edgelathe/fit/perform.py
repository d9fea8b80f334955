"""One `fit` for real: files, device, store and result folder around the loop."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.core import profile as profiles
from edgelathe.core.budget import Limit, parse_all
from edgelathe.core.device import Probe, Target
from edgelathe.core.errors import DeviceError, HostError, Interrupted, UserError
from edgelathe.core.profile import Profile
from edgelathe.core.recipe import to_toml
from edgelathe.core.result import BudgetLine
from edgelathe.device.errors import ModelFailure
from edgelathe.device.open import Device, open_device
from edgelathe.fit.decide import Rules, lines
from edgelathe.fit.job import Job
from edgelathe.fit.loop import Loop, Timing
from edgelathe.fit.measured import Entry
from edgelathe.fit.plan import Plan, plans
from edgelathe.fit.rig import Rig
from edgelathe.fit.setup import Setup, setup
from edgelathe.recipes import read
from edgelathe.recipes.ready import choose_session, remarks
from edgelathe.recipes.run import Built
from edgelathe.recipes.run import run as run_recipe
from edgelathe.report.document import fit_document
from edgelathe.report.html import html
from edgelathe.report.junit import junit
from edgelathe.report.write import check_folder, write_results

if TYPE_CHECKING:
    from edgelathe.store.store import Store


@dataclass(frozen=True)
class Listener:
    """Where remarks and progress go.

    `say` takes a remark; `phase` (what, recipe, number, of how many); `tick` (what, 0..1) within a phase.
    """

    say: Callable[[str], None] = lambda text: None
    phase: Callable[[str, str, int, int], None] = lambda what, text, at, of: None
    tick: Callable[[str, float], None] = lambda what, part: None


class Stopped(Interrupted):
    """A fit that the user stopped; `run` is its id in the store."""

    def __init__(self, run: str, what: str, mend: str) -> None:
        super().__init__(f"run {run}", what, mend)
        self.run = run


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
    rules = _rules(job, parse_all(job.budget), bool(device.get("emulated")))
    return {id: lines(rules, entry, baseline) for id, entry in entries.items() if entry.measured}


def _rules(job: Job, limits: tuple[Limit, ...], emulated: bool) -> Rules:
    return Rules(limits, job.lenient, emulated, job.allow_emulated)


def stored_entries(store: Store, run: str) -> dict[str, Entry]:
    """What the store has of a run, by candidate id."""
    rows = store.candidates(run)
    return {s.candidate.id: Entry.restore(s.candidate, s.claims, s.recipe_toml) for s in rows}


def fit(job: Job, target: Target, store: Store, listen: Listener, ssh_config: Path | None = None) -> dict[str, Any]:
    """Do the job from its start; the document `edgelathe.fit/1`. Results are in the folder `job.out` when it returns.

    Raises UserError before anything is touched, DeviceError and Stopped with the words to resume.
    """
    check_folder(job.out, job.force)
    checked = setup(job)
    if job.profile:
        profiles.load(job.profile)
    return _perform(checked, target, store, None, listen, ssh_config)


def resume(run: str, target: Target, store: Store, listen: Listener, ssh_config: Path | None = None) -> dict[str, Any]:
    """Go on with a stopped run; what is finished is not measured again. A run that is done is written out again."""
    row = store.run(run)
    job = Job.from_json(row.job["job"])
    check_folder(job.out, job.force)
    if row.state == "done" and row.result is not None:
        _write(store, row.result, job.out, job.force)
        return dict(row.result)
    checked = setup(job)
    if checked.model.sha256 != row.model_sha256:
        raise UserError(job.model, f"is not the model that run {row.run} began with", "start a new fit")
    return _perform(checked, target, store, row.run, listen, ssh_config)


def _perform(
    checked: Setup, target: Target, store: Store, run: str | None, listen: Listener, ssh_config: Path | None
) -> dict[str, Any]:
    job, start = checked.job, time.monotonic()
    for warning in checked.warnings:
        listen.say(f"note: {warning}")
    with open_device(target, ssh_config=ssh_config) as device:
        profile = profiles.choose(job.profile, device.probe)
        session = choose_session(profile, checked.model.format, device.probe, job.threads)
        todo = plans(checked, profile, profiles.hardware(profile, device.probe), session, listen.say)
        said = remarks(profile, checked.model.format, device.probe)
        for text in said:
            listen.say(f"warning: {text}")
        if not todo:
            raise UserError(
                f"profile '{profile.name}'",
                f"has no recipe for {checked.model.format} models",
                "give one with --recipe",
            )
        basis = _basis(checked, device.probe, todo)
        if run is None:
            about = {"model": job.model, "model_sha256": checked.model.sha256, "device": target.name}
            run = store.create_run({**about, "job": job.to_json(), "basis": basis})
        else:
            _check_basis(run, store.run(run).job["basis"], basis)
        with store.lock(run), _resumable(store, run, target, len(todo)):
            facts = {
                "profile": profile.name,
                "probe": device.probe.to_json(),
                "bytes": checked.model.bytes,
                "format": checked.model.format,
            }
            before = store.run(run).result or {}
            store.set_run_state(run, "running", result={**before, **facts})
            document = _loop(checked, device, profile, todo, store, run, listen, start, said)
            _write(store, document, job.out, job.force)
            store.set_run_state(run, "done", result=document, met=bool(document["met"]))
            device.cleanup()
    return document


def _loop(
    checked: Setup,
    device: Device,
    profile: Profile,
    todo: list[Plan],
    store: Store,
    run: str,
    listen: Listener,
    start: float,
    said: Sequence[str],
) -> dict[str, Any]:
    job, model = checked.job, checked.model
    session = choose_session(profile, model.format, device.probe, job.threads)
    rules = _rules(job, checked.limits, device.probe.emulated)
    timing = Timing(time.monotonic)

    def build(plan: Plan) -> Built:
        return run_recipe(plan.recipe, model, checked.calib, read.where(plan.text))

    with Rig(
        device, model, checked.data, checked.metric, checked.limits, session,
        require_provider=job.require_provider, remarks=said, seed=job.seed, tick=listen.tick,
    ) as rig:  # fmt: skip
        outcome = Loop(
            model, session, todo, rules, rig, build, Shelf(store, run), timing, job.max_time, listen.phase
        ).run()
    timing.seconds["push_s"] = rig.push_seconds
    decision = outcome.decision
    return fit_document(
        run=run,
        met=decision.met,
        reason=decision.reason,
        model=model_facts(job, model.sha256, model.format, model.bytes),
        profile=profile.name,
        device=device.probe.to_json(),
        budget=decision.lines,
        baseline=outcome.baseline.candidate,
        chosen=decision.chosen,
        candidates=[e.candidate for e in outcome.entries],
        timing={**timing.seconds, "total_s": time.monotonic() - start},
    )


def model_facts(job: Job, sha256: str, format: str, size: int) -> dict[str, Any]:
    """The `model` of the document."""
    return {"path": job.model, "sha256": sha256, "format": format, "bytes": size}


def _basis(checked: Setup, probe: Probe, todo: Sequence[Plan]) -> dict[str, str]:
    """What measurements of one run must have in common, as hashes."""
    texts = {
        "the device": [probe.machine, probe.cpu, probe.model or "", *(f"{r.name} {r.version}" for r in probe.runtimes)],
        "the recipes of the profile": [to_toml(plan.recipe) for plan in todo],
    }
    hashes = {name: hashlib.sha256("\n".join(parts).encode()).hexdigest() for name, parts in texts.items()}
    return {"the data": checked.data.sha256, "the calibration data": checked.calib.sha256, **hashes}


def _check_basis(run: str, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    changed = [name for name, value in now.items() if before.get(name) != value]
    if changed:
        raise UserError(f"run {run}", f"{' and '.join(changed)} changed since it began", "start a new fit")


@contextmanager
def _resumable(store: Store, run: str, target: Target, total: int) -> Iterator[None]:
    """Mark the run as interrupted, or failed, when the block does not end well, and say how to go on."""
    try:
        yield
    except ModelFailure:  # of the uncompressed model: it would fail again
        store.set_run_state(run, "failed")
        raise
    except (KeyboardInterrupt, DeviceError, HostError) as e:
        store.set_run_state(run, "interrupted")
        done = sum(entry.candidate.id != "baseline" for entry in stored_entries(store, run).values())
        kept = f"{done} of {total} candidates are done and kept"
        if not isinstance(e, KeyboardInterrupt):
            kind, where = (DeviceError, target.name) if isinstance(e, DeviceError) else (HostError, e.where)
            raise kind(where, f"{e.what}; {kept}", f"go on with `edgelathe fit --resume {run}`") from e
        raise Stopped(run, f"stopped; {kept}", f"go on with `edgelathe fit --resume {run}`") from e
    except BaseException:
        store.set_run_state(run, "failed")
        raise


def export(store: Store, run: str, folder: Path, force: bool) -> list[Path]:
    """Write the result files of a finished run to another folder; their paths. Raises UserError before it is done."""
    row = store.run(run)
    if row.state != "done" or row.result is None:
        raise UserError(f"run {run}", f"is {row.state}", f"finish it with `edgelathe fit --resume {run}`")
    return _write(store, row.result, folder, force)


def _write(store: Store, document: Mapping[str, Any], folder: Path | str, force: bool) -> list[Path]:
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
