"""`bench`: latencies of models on a device."""

from __future__ import annotations

from typing import Annotated

import typer

from edgelathe.cli.opened import Models, Threads, opened
from edgelathe.cli.shell import DeviceOption, ProfileOption, Shell, command

app = typer.Typer()


@command(app)
def bench(
    shell: Shell,
    models: Models,
    device: DeviceOption = "local",
    data: Annotated[str | None, typer.Option(metavar="D", help="Run on these samples, not on random ones.")] = None,
    threads: Threads = None,
    profile: ProfileOption = None,
    min_time: Annotated[
        float, typer.Option(metavar="S", min=0.1, help="Seconds to measure each model at least.")
    ] = 2.0,
    max_time: Annotated[
        float, typer.Option(metavar="S", min=0.1, help="Seconds to measure each model at most.")
    ] = 30.0,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the order of blocks and of random inputs.")] = 0,
) -> None:
    """Measure and compare latencies on a device.

    Several models are timed in turns and compared in pairs. Warm-up until the series is steady, then blocks in random
    order, so that drift of the machine hits all models alike.
    """
    from edgelathe.core import dataset
    from edgelathe.measure.bench import bench_document
    from edgelathe.measure.interleave import BenchPlan

    samples = dataset.load(data) if data else None
    plan = BenchPlan(min_ms=min_time * 1000, max_ms=max(max_time, min_time) * 1000)
    with opened(shell, models, device, profile, threads) as (on, loaded, options, said), shell.progress() as bar:
        document = bench_document(on, loaded, options, samples, plan, remarks=said, seed=seed, tick=bar.move)
    shell.answer(document)
