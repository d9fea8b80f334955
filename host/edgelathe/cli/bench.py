"""`bench`: what a device says of models, measured in turns."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgelathe.cli.opened import (
    CallLimit,
    Changes,
    Cpus,
    Models,
    Provider,
    RequireProvider,
    RuntimeOption,
    Set,
    Shape,
    Threads,
    entries,
    lengths,
    opened,
)
from edgelathe.cli.shell import DeviceOption, ProfileOption, Shell, command

app = typer.Typer()

Flag = typer.Option


@command(app)
def bench(
    shell: Shell,
    models: Models,
    device: DeviceOption = "local",
    data: Annotated[str | None, Flag(metavar="D", help="Run on these samples, not on random ones.")] = None,
    shape: Shape = None,
    scenario: Annotated[
        str, Flag(metavar="S", help="single-stream (default), multi-stream or offline, after MLPerf LoadGen.")
    ] = "",
    streams: Annotated[
        int, Flag(metavar="N", min=0, show_default=False, help="Samples at once; 0: multi-stream 8, offline by cores.")
    ] = 0,
    batch: Annotated[
        int, Flag(metavar="B", min=0, show_default=False, help="Samples of a call; 0: one, or the model's fixed batch.")
    ] = 0,
    period: Annotated[str, Flag(metavar="T", help="Paced: a call every T, as 33ms for a camera.")] = "",
    sustain: Annotated[str, Flag(metavar="T", help="Sustained: without a pause for T, as 10min.")] = "",
    percentile: Annotated[
        str, Flag(metavar="P", help="Make enough calls for this percentile: 50, 90, 95 or 99.", show_default=False)
    ] = "",
    min_time: Annotated[str, Flag(metavar="T", help="Measure each model at least so long (default 2s).")] = "",
    max_time: Annotated[
        str, Flag(metavar="T", help="At most so long, to settle comparisons and budget (default 30s).")
    ] = "",
    budget: Annotated[
        list[str] | None, Flag(metavar="EXPR", help="As latency.p95<=4ms; 0.5x is relative to the first model.")
    ] = None,
    margin: Annotated[float, Flag(metavar="PERCENT", min=0.1, max=50, help="What counts as equally fast.")] = 2.0,
    threads: Threads = None,
    cpus: Cpus = None,
    runtime: RuntimeOption = None,
    provider: Provider = None,
    require_provider: RequireProvider = None,
    settings: Set = None,
    io_binding: Annotated[bool, Flag("--io-binding", help="Bind inputs and outputs once (ONNX Runtime).")] = False,
    processes: Annotated[int, Flag(metavar="K", min=1, help="Measure in K fresh processes, 3 or more.")] = 1,
    cool_down: Annotated[
        str, Flag(metavar="T", help="Wait at most so long before measuring again under bad conditions; 0: do not.")
    ] = "30s",
    tune: Annotated[bool, Flag("--tune", help="Make the device quieter meanwhile (governor, clocks).")] = False,
    energy: Annotated[bool, Flag("--energy", help="Energy per inference too.")] = False,
    rail: Annotated[str | None, Flag(metavar="NAME", help="By this sensor, or the sum NAME+NAME.")] = None,
    meter: Annotated[str, Flag(metavar="CMD", help="By this command, which prints lines of time and watts.")] = "",
    memory: Annotated[bool, Flag("--memory", help="Peak memory too, in fresh processes.")] = False,
    load: Annotated[bool, Flag("--load", help="Time to load and of the first inference too.")] = False,
    allow_emulated: Annotated[bool, Flag("--allow-emulated", help="Judge times of an emulated device.")] = False,
    raw: Annotated[Path | None, Flag(metavar="FILE", help="Every call's time, as .csv, .npz or .json.")] = None,
    call_limit: CallLimit = "2min",
    profile: ProfileOption = None,
    seed: Annotated[int, Flag(metavar="N", help="Of the order of blocks and of random inputs.")] = 0,
) -> int:  # fmt: skip
    """Measure and compare models on a device.

    Several models are timed in turns and compared in pairs. Warm-up until the series is steady, then blocks in random
    order, so that drift of the machine hits all models alike. It goes on until each comparison and limit is settled.
    Exit code 1: a limit is missed or undecided, or one of several models failed.
    """
    from dataclasses import replace

    from edgelathe.core import dataset
    from edgelathe.core.duration import milliseconds
    from edgelathe.device.tune import quiet
    from edgelathe.measure import export, plan
    from edgelathe.measure.bench import bench_document, code

    chosen = plan.scenario(
        scenario, streams=streams, batch=batch,
        period_ms=milliseconds(period, "--period") if period else 0.0,
        sustain_ms=milliseconds(sustain, "--sustain") if sustain else 0.0,
    )  # fmt: skip
    least = milliseconds(min_time, "--min-time", bare="s") if min_time else None
    most = milliseconds(max_time, "--max-time", bare="s") if max_time else None
    min_ms, max_ms = plan.times(least, most)
    job = plan.Job(
        chosen, min_ms=min_ms, max_ms=max_ms,
        percentile=plan.quantile_of(percentile) if percentile else chosen.percentile,
        allow_emulated=allow_emulated, margin=margin / 100, processes=processes,
        cool_down_ms=milliseconds(cool_down, "--cool-down", bare="s", zero=True),
        energy=energy or bool(meter or rail), rail=rail, meter=meter,
        memory=memory, load=load, require_provider=require_provider, shapes=lengths(shape, data), seed=seed,
    )  # fmt: skip
    job = replace(job, limits=plan.limits(budget or [], job, len(models)))
    plan.check(job)
    if raw:
        export.check(raw)
    config = entries(settings) | ({"edgelathe.io_binding": "1"} if io_binding else {})
    changes = Changes(threads, cpus, runtime, provider, config)
    samples = dataset.load(data) if data else None
    with (
        opened(shell, models, device, profile, changes, call_limit) as (on, loaded, options, said),
        quiet(on, shell.say, wanted=tune),
        shell.progress() as bar,
    ):
        document = bench_document(on, loaded, options, samples, job, raw=raw, remarks=said, tick=bar.move)
    shell.answer(document)
    return code(document)
