"""One `fit` for real: files, device, store and result folder around the loop."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgelathe.compress.tflite import explain as why
from edgelathe.core import profile as profiles
from edgelathe.core.device import Probe, SessionOptions, Target
from edgelathe.core.errors import DeviceError, HostError, Interrupted, UserError
from edgelathe.core.profile import Profile
from edgelathe.core.recipe import to_toml
from edgelathe.device.errors import ModelFailure
from edgelathe.device.open import Device, open_device
from edgelathe.device.tune import quiet
from edgelathe.fit import placing
from edgelathe.fit.job import Job
from edgelathe.fit.loop import Loop, Timing
from edgelathe.fit.plan import Plan, plans
from edgelathe.fit.records import Shelf, model_facts, rules_of, stored_entries, write
from edgelathe.fit.rig import Rig, Ways
from edgelathe.fit.setup import Setup, setup
from edgelathe.measure.gauge import sensors_of
from edgelathe.recipes import read
from edgelathe.recipes.ready import choose_session, remarks
from edgelathe.recipes.run import Built
from edgelathe.recipes.run import run as run_recipe
from edgelathe.report.document import fit_document
from edgelathe.report.write import check_folder

if TYPE_CHECKING:
    from edgelathe.store.store import Store


_IN_FLOAT = "in_float.txt"  # of a run in the store: the patterns that were measured to be faster in float


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
        write(store, row.result, job.out, job.force)
        return dict(row.result)
    checked = setup(job)
    if checked.model.sha256 != row.model_sha256:
        raise UserError(job.model, f"is not the model that run {row.run} began with", "start a new fit")
    return _perform(checked, target, store, row.run, listen, ssh_config)


@dataclass(frozen=True)
class _Scene:
    """A checked job on an open device: how models run there, what is to be tried, what is to be said of it."""

    checked: Setup
    device: Device
    profile: Profile
    session: SessionOptions
    plans: list[Plan]
    remarks: tuple[str, ...]
    in_float: str | None

    @classmethod
    def of(cls, checked: Setup, device: Device, kept: str | None, listen: Listener) -> _Scene:
        """`kept`: what was measured for `in_float` when the run began.

        Raises UserError where the device has no runtime for the model, no meter, or the profile no recipe.
        """
        job, format = checked.job, checked.model.format
        if checked.asked.about("energy"):
            sensors_of(device.probe, job.rail, job.meter)
        profile = profiles.choose(job.profile, device.probe)
        session = choose_session(profile, format, device.probe, job.threads)
        hardware = profiles.hardware(profile, device.probe)
        scene = placing.Scene(
            device, checked.model, checked.calib, hardware, session, job.require_provider, job.seed
        )  # fmt: skip
        place = placing.Placing(scene, kept, listen.say, listen.tick)
        todo = plans(checked, profile, hardware, session, listen.say, place)
        if not todo:
            raise UserError(f"profile '{profile.name}'", f"has no recipe for {format} models", "give one with --recipe")
        said = remarks(profile, format, device.probe)
        return cls(checked, device, profile, session, todo, said, place.chosen)


def _perform(
    checked: Setup, target: Target, store: Store, run: str | None, listen: Listener, ssh_config: Path | None
) -> dict[str, Any]:
    job, model, start = checked.job, checked.model, time.monotonic()
    for warning in checked.warnings:
        listen.say(f"note: {warning}")
    with open_device(target, ssh_config=ssh_config) as device:
        device.client.progress = listen.say  # building an engine takes minutes
        device.call_seconds = checked.call_seconds
        kept = store.file(run, _IN_FLOAT) if run is not None else None
        scene = _Scene.of(checked, device, kept.decode() if kept else None, listen)
        for text in scene.remarks:
            listen.say(f"warning: {text}")
        basis = _basis(checked, device.probe, scene.plans)
        if run is None:
            about = {"model": job.model, "model_sha256": model.sha256, "device": target.name}
            run = store.create_run({**about, "job": job.to_json(), "basis": basis})
            if scene.in_float is not None:  # measured again it might be another, and the run not be resumed
                store.save_file(run, _IN_FLOAT, scene.in_float.encode())
        else:
            _check_basis(run, store.run(run).job["basis"], basis)
        quietly = quiet(device, listen.say, wanted=job.tune)
        with store.lock(run), _resumable(store, run, target, len(scene.plans)), quietly:
            facts = {"profile": scene.profile.name, "probe": device.probe.to_json()}
            store.set_run_state(run, "running", result={**facts, "bytes": model.bytes, "format": model.format})
            document = _loop(scene, store, run, listen, start)
            write(store, document, job.out, job.force)
            store.set_run_state(run, "done", result=document, met=bool(document["met"]))
    return document


def _loop(scene: _Scene, store: Store, run: str, listen: Listener, start: float) -> dict[str, Any]:
    checked, probe = scene.checked, scene.device.probe
    job, model = checked.job, checked.model
    rules = rules_of(job, checked.limits, probe.emulated)
    timing = Timing(time.monotonic)

    def build(plan: Plan) -> Built:
        return run_recipe(plan.recipe, model, checked.calib, read.where(plan.text))

    def explain(built: Built) -> str:
        with suppress(UserError):  # it is a remark on a measurement, which stands
            return why.explain(model, built.model, checked.calib, built.config).sentence()
        return ""

    with Rig(
        scene.device, model, checked.data, checked.metric, checked.asked, scene.session,
        Ways(job.require_provider, job.lenient, scene.remarks, job.seed), listen.tick,
    ) as rig:  # fmt: skip
        shelf = Shelf(store, run)
        loop = Loop(
            model, scene.session, scene.plans, rules, rig, build, shelf, timing, job.max_time, listen.phase, explain
        )  # fmt: skip
        outcome = loop.run()
    timing.seconds["push_s"] = rig.push_seconds
    decision = outcome.decision
    return fit_document(
        run=run,
        met=decision.met,
        reason=decision.reason,
        model=model_facts(job, model.sha256, model.format, model.bytes),
        profile=scene.profile.name,
        device=probe.to_json(),
        budget=decision.lines,
        baseline=outcome.baseline.candidate,
        chosen=decision.chosen,
        candidates=[e.candidate for e in outcome.entries],
        timing={**timing.seconds, "total_s": time.monotonic() - start},
    )


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
