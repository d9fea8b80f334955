"""`eval`: accuracies of models on a device."""

from __future__ import annotations

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
    Threads,
    entries,
    opened,
)
from edgelathe.cli.shell import DeviceOption, ProfileOption, Shell, command

app = typer.Typer()


@command(app, "eval")
def eval_(
    shell: Shell,
    models: Models,
    data: Annotated[str, typer.Option(metavar="D", help="Samples and labels.")],
    device: DeviceOption = "local",
    threads: Threads = None,
    cpus: Cpus = None,
    runtime: RuntimeOption = None,
    provider: Provider = None,
    require_provider: RequireProvider = None,
    settings: Set = None,
    call_limit: CallLimit = "2min",
    profile: ProfileOption = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(metavar="EXPR", help="accuracy>=90%, or accuracy.drop<=1% (below the first model)."),
    ] = None,
    parity: Annotated[int, typer.Option(metavar="N", min=0, help="Compare so many samples with this host.")] = 200,
    fresh: Annotated[bool, typer.Option("--fresh", help="Do not take up an evaluation that was cut off.")] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the order of samples under a budget.")] = 0,
) -> int:
    """Measure accuracy on a device.

    Also tells whether its answers are those of this host, and how each further model differs from the first. Samples
    are preprocessed here, so that host and device see the same bytes, and sent in pieces. What was cut off goes on from
    where it was. With a budget it ends once that is settled; exit code 1: it is missed or undecided.
    """
    from edgelathe.core import budget as budgets
    from edgelathe.core import dataset
    from edgelathe.core.errors import UserError
    from edgelathe.measure.accuracy import EvalPlan, code, eval_document

    limits = budgets.parse_all(budget or [])
    for limit in limits:
        if limit.relative or limit.metric not in ("accuracy", "accuracy.drop"):
            raise UserError(f"budget '{limit.expr}'", "is not one of accuracy or accuracy.drop", "use `edgelathe fit`")
        if limit.metric == "accuracy.drop" and len(models) == 1:
            raise UserError(f"budget '{limit.expr}'", "one model has no drop", "name the uncompressed model first")
    plan = EvalPlan(limits, parity, seed, fresh, require_provider)
    changes = Changes(threads, cpus, runtime, provider, entries(settings))
    samples = dataset.load(data)
    with (
        opened(shell, models, device, profile, changes, call_limit) as (on, loaded, options, said),
        shell.progress() as bar,
    ):
        document = eval_document(on, loaded, options, samples, plan, remarks=said, tick=bar.move)
    shell.answer(document)
    return code(document)
