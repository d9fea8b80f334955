"""`eval`: accuracies of models on a device."""

from __future__ import annotations

from typing import Annotated

import typer

from edgelathe.cli.opened import Models, Threads, opened
from edgelathe.cli.shell import DeviceOption, ProfileOption, Shell, command

app = typer.Typer()


@command(app, "eval")
def eval_(
    shell: Shell,
    models: Models,
    data: Annotated[str, typer.Option(metavar="D", help="Samples and labels.")],
    device: DeviceOption = "local",
    threads: Threads = None,
    profile: ProfileOption = None,
) -> None:
    """Measure accuracy on a device.

    Also tells whether its answers are those of this host. Samples are preprocessed here, so that host and device see
    the same bytes.
    """
    from edgelathe.core import dataset
    from edgelathe.measure.accuracy import eval_document

    samples = dataset.load(data)
    with opened(shell, models, device, profile, threads) as (on, loaded, options, said), shell.progress() as bar:
        document = eval_document(on, loaded, options, samples, remarks=said, tick=bar.move)
    shell.answer(document)
