"""`fit`: the whole loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgelathe.cli.shell import Shell, command

if TYPE_CHECKING:
    from edgelathe.fit.perform import Listener
    from edgelathe.store.store import Store

app = typer.Typer()


@command(app)
def fit(
    shell: Shell,
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="An ONNX or TFLite file.")] = None,
    data: Annotated[str | None, typer.Option(metavar="D", help="Data that the accuracy is judged on.")] = None,
    calib: Annotated[
        str | None, typer.Option(metavar="C", help="Calibration data; else a part of D is set aside.")
    ] = None,
    profile: Annotated[str | None, typer.Option(metavar="P", help="A profile's name, or a .toml file.")] = None,
    device: Annotated[list[str] | None, typer.Option(metavar="DEV", help="Where to measure (default: local).")] = None,
    budget: Annotated[list[str] | None, typer.Option(metavar="EXPR", help="A limit, as 'latency.p95<=4ms'.")] = None,
    recipe: Annotated[list[str] | None, typer.Option(metavar="R", help="A recipe to try first.")] = None,
    out: Annotated[str | None, typer.Option("--out", "-o", metavar="DIR", help="Folder for the results.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FIT.toml", help="All options from a file.")
    ] = None,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Go on with a stopped run.")] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", help="Threads, instead of the profile's.")] = None,
    max_trials: Annotated[int | None, typer.Option(metavar="N", help="Measure at most so many candidates.")] = None,
    max_time: Annotated[
        float | None, typer.Option(metavar="S", help="Begin no candidate after so many seconds.")
    ] = None,
    require_provider: Annotated[
        str | None, typer.Option(metavar="P", help="Fail what runs on another provider.")
    ] = None,
    lenient: Annotated[bool, typer.Option("--lenient", help="Judge point estimates, not 95% bounds.")] = False,
    allow_emulated: Annotated[
        bool, typer.Option("--allow-emulated", help="Let times of an emulated device count.")
    ] = False,
    period: Annotated[
        str | None, typer.Option(metavar="T", help="From call to call for latency.paced, as 33ms.")
    ] = None,
    sustain: Annotated[
        str | None, typer.Option(metavar="T", help="How long to run each for latency.sustained, as 5min.")
    ] = None,
    rail: Annotated[str | None, typer.Option(metavar="NAME", help="The device's sensor that tells the energy.")] = None,
    meter: Annotated[
        str | None, typer.Option(metavar="CMD", help="A command here that prints time and watts, for energy.")
    ] = None,
    tune: Annotated[bool, typer.Option("--tune", help="Make the device quiet meanwhile: governor, clocks.")] = False,
    call_limit: Annotated[
        str | None, typer.Option(metavar="T", help="End a model that does not answer for so long (default 2min).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that holds other files.")] = False,
) -> int:
    """Find a compressed model that meets a budget on a device.

    Measures the uncompressed model and candidates there, judges every limit by its 95% bound, and writes the chosen
    model, its recipe and a report. Ctrl-C stops it, --resume goes on. Exit code 1: no candidate meets the budget.
    """
    from edgelathe.core.errors import UserError
    from edgelathe.fit import job as jobs
    from edgelathe.fit import perform

    if device and len(device) > 1:
        raise UserError("--device", f"{len(device)} devices are given", "one is measured on at a time; name one")
    on = device[0] if device else None
    options = {
        "model": model, "data": data, "calib": calib, "profile": profile, "device": on, "budget": budget or None,
        "recipe": recipe or None, "out": out, "threads": threads, "max_trials": max_trials, "max_time": max_time,
        "require_provider": require_provider, "lenient": lenient or None, "allow_emulated": allow_emulated or None,
        "period": period, "sustain": sustain, "rail": rail, "meter": meter, "tune": tune or None,
        "call_limit": call_limit,
        "force": force or None,
    }  # fmt: skip
    given = jobs.absolute(options, Path.cwd())
    if resume is not None and (file or given.keys() - {"device", "force"}):
        extra = min(given.keys() - {"device", "force"}, default="file")
        raise UserError("fit --resume", f"the run keeps its own '{extra}'", "leave it out")
    with shell.store() as store:
        if resume is not None:
            run = store.run(resume)
            target = shell.target(on or run.device, store)
            out = run.job["job"]["out"]
            return perform_fit(
                shell, store, out, lambda hear: perform.resume(run.run, target, store, hear, shell.ssh_config)
            )
        job = jobs.make({**(jobs.read(file) if file else {}), **given})
        target = shell.target(job.device, store)
        return perform_fit(shell, store, job.out, lambda hear: perform.fit(job, target, store, hear, shell.ssh_config))


def perform_fit(shell: Shell, store: Store, out: str, work: Callable[[Listener], dict[str, Any]]) -> int:
    """Run a fit with its progress shown, then show the answer and where its results are (`out`).

    With `--json` also what is there of a stopped one.
    """
    from edgelathe.fit.perform import Listener, Stopped
    from edgelathe.fit.records import judged, running_document
    from edgelathe.report import terminal

    try:
        with shell.progress() as bar:

            def phase(what: str, text: str, at: int, of: int) -> None:
                bar.start(f"{at}/{of} · {text} · {what}")

            document = work(Listener(say=shell.say, phase=phase, tick=bar.move))
    except Stopped as e:
        if shell.as_json:
            shell.answer(running_document(store, e.run))
        raise
    shell.answer(document, terminal.fit(document, judged(store, document["run"])))
    report = Path(out) / "report.html"
    shell.say(f"open {report.relative_to(Path.cwd()) if report.is_relative_to(Path.cwd()) else report}")
    return 0 if document["met"] else 1
