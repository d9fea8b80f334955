"""`trace`: time per operator of a model on a device, and of two models side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from edgelathe.cli.opened import (
    CallLimit,
    Changes,
    Cpus,
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
from edgelathe.cli.shell import DeviceOption, ModelArgument, ProfileOption, Shell, command

app = typer.Typer()


@command(app)
def trace(
    shell: Shell,
    model: ModelArgument,
    after: Annotated[
        str | None,
        typer.Argument(metavar="MODEL2", help="The same model compressed, to compare.", show_default=False),
    ] = None,
    device: DeviceOption = "local",
    data: Annotated[str | None, typer.Option(metavar="D", help="Run on these samples, not on random ones.")] = None,
    shape: Shape = None,
    everything: Annotated[bool, typer.Option("--all", help="All rows, not only the longest.")] = False,
    rounds: Annotated[int, typer.Option(metavar="N", min=6, max=1000, help="Rounds of blocks of calls.")] = 16,
    parts: Annotated[int, typer.Option(metavar="N", min=1, max=200, help="TFLite: parts to cut a model into.")] = 24,
    threads: Threads = None,
    cpus: Cpus = None,
    runtime: RuntimeOption = None,
    provider: Provider = None,
    require_provider: RequireProvider = None,
    settings: Set = None,
    call_limit: CallLimit = "2min",
    profile: ProfileOption = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the order of blocks and of random inputs.")] = 0,
) -> None:
    """Show where a model's time goes on a device, operator by operator.

    Times are matched to the model's own layers and add up to a call without a profiler. With a second model, such as
    the first one compressed: which layers got faster, which slower, and which stayed in float or on another provider.
    """
    from edgelathe.core import dataset
    from edgelathe.measure.trace import trace_document
    from edgelathe.measure.trace_plan import TracePlan
    from edgelathe.report import trace as view

    samples = dataset.load(data) if data else None
    changes = Changes(threads, cpus, runtime, provider, entries(settings))
    plan = TracePlan(
        rounds=rounds, parts=parts, shapes=lengths(shape, data), require_provider=require_provider, seed=seed
    )
    models = [model, after] if after else [model]
    with opened(shell, models, device, profile, changes, call_limit) as on, shell.progress() as bar:
        document = trace_document(on.device, on.models, on.options, samples, plan, remarks=on.remarks, tick=bar.move)
    shell.answer(document, view.trace(document, None) if everything else None)
