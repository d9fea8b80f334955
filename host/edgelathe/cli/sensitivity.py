"""`sensitivity`: what each layer's bit width costs, and which layers to keep in float."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgelathe.cli.shell import ModelArgument, Shell, command

app = typer.Typer()


@command(app)
def sensitivity(
    shell: Shell,
    model: ModelArgument,
    data: Annotated[str, typer.Option(metavar="D", help="Samples and labels; without labels, answers that change.")],
    widths: Annotated[str, typer.Option(metavar="N,N", help="Bits of the weights, 2 to 16.")] = "16,8,4",
    activations: Annotated[
        int | None, typer.Option(metavar="N", min=2, max=16, help="Round each layer's input to so many bits too.")
    ] = None,
    keep: Annotated[int, typer.Option(metavar="N", min=0, max=99, help="How many layers to keep in float.")] = 3,
    early: Annotated[bool, typer.Option(help="Stop a layer at a width once its loss is known well enough.")] = False,
    threads: Annotated[int | None, typer.Option(metavar="N", min=1, help="By default all CPUs.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE.html", help="Write a plot.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the order of samples with --early.")] = 0,
) -> None:
    """Show which layers lose most when their weights have few bits.

    Each layer alone is rounded to each width, as int8 would, and only what hangs on it is run again. Layers are ranked
    by the error that reaches the model's output, worst first. The last lines tell which layers to keep in float, what
    that costs in bytes, and what it wins, measured together.
    """
    from edgelathe.compress.sensitivity.run import Plan, parse_widths
    from edgelathe.compress.tflite.sensitivity import document
    from edgelathe.core import dataset
    from edgelathe.core.errors import UserError
    from edgelathe.model import io
    from edgelathe.report import sensitivity as view

    plan = Plan(parse_widths(widths), activations, keep, early, threads, seed)
    if out is not None and out.suffix != ".html":
        raise UserError(f"-o {out}", "the plot is an HTML file", f"write {out.with_suffix('.html')}")
    loaded = io.load(Path(model))
    samples = dataset.bind(dataset.load(data), loaded.signature, model)
    for warning in samples.warnings:
        shell.say(f"note: {warning}")
    with shell.progress() as bar:
        found = document(model, loaded, samples, plan, bar.move)
    if out is not None:
        view.write(found, out)
        shell.say(f"wrote {out}")
    shell.answer(found)
