"""`demo`: the whole loop without hardware."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgelathe.cli.fit import perform_fit
from edgelathe.cli.shell import Shell, command

app = typer.Typer()

BUDGET = ("size<=0.35x", "accuracy.drop<=2%")


@command(app)
def demo(
    shell: Shell,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the results.")] = Path("demo"),
    format: Annotated[str, typer.Option(metavar="onnx|tflite", help="Form of the bundled model.")] = "onnx",
) -> int:
    """Run the whole loop on a bundled model, on this machine.

    Fits a small network for handwritten digits to the budget size<=0.35x, accuracy.drop<=2%.
    """
    from importlib.resources import as_file, files

    from edgelathe.core.errors import UserError
    from edgelathe.fit import job as jobs
    from edgelathe.fit import perform

    if format not in ("onnx", "tflite"):
        raise UserError("demo --format", f"'{format}' is no form of the model", "choose onnx or tflite")
    with as_file(files("edgelathe") / "bundled") as bundled, shell.store() as store:
        options = {
            "model": bundled / f"digits.{format}", "data": bundled / "eval.npz", "calib": bundled / "calib.npz",
            "budget": BUDGET, "out": out,
        }  # fmt: skip
        job = jobs.make(jobs.absolute({k: v if k == "budget" else str(v) for k, v in options.items()}, Path.cwd()))
        target = shell.target(job.device, store)
        code = perform_fit(shell, store, job.out, lambda hear: perform.fit(job, target, store, hear, shell.ssh_config))
    shell.say("next: edgelathe fit --help")
    return code
