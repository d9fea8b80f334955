"""`simulate`: a model in fixed point on this machine, and how far it is from float."""

from __future__ import annotations

import contextlib
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgelathe.cli.shell import ModelArgument, ProfileOption, Shell, command

if TYPE_CHECKING:
    from edgelathe.core.recipe import Recipe
    from edgelathe.model.fixed.prepare import Wanted
    from edgelathe.model.fixed.simulate import Simulation
    from edgelathe.model.types import Model

app = typer.Typer()


class Accumulator(StrEnum):
    """Bits of the sums of products."""

    narrow = "32"
    wide = "64"


class Overflow(StrEnum):
    """What a sum that does not fit becomes."""

    wrap = "wrap"
    saturate = "saturate"


class Kernels(StrEnum):
    """Whose rounding, and whose sums."""

    reference = "reference"
    optimized = "optimized"
    saturating = "saturating"


class Rounding(StrEnum):
    """Of the requantization."""

    single = "single"
    double = "double"
    float = "float"


@command(app)
def simulate(
    shell: Shell,
    model: ModelArgument,
    data: Annotated[str, typer.Option(metavar="D", help="Samples and labels.")],
    recipe: Annotated[str | None, typer.Option(metavar="R", help="Compress by this recipe first.")] = None,
    calib: Annotated[
        str | None, typer.Option(metavar="C", help="Calibration data; else a part of D is set aside.")
    ] = None,
    profile: ProfileOption = None,
    weights: Annotated[
        int | None, typer.Option(metavar="B", help="Bits of the weights, 2 to 16, instead of the model's.")
    ] = None,
    activations: Annotated[int | None, typer.Option(metavar="B", help="Bits of the activations, likewise.")] = None,
    accumulator: Annotated[
        Accumulator | None, typer.Option(help="Bits of sums of products, instead of the kernels' own.")
    ] = None,
    overflow: Annotated[Overflow, typer.Option(help="What a sum that does not fit becomes.")] = Overflow.wrap,
    kernels: Annotated[
        Kernels,
        typer.Option(
            help="reference; optimized: as TFLite runs by default; saturating: 8-bit x86 without VNNI (ONNX)."
        ),
    ] = Kernels.reference,
    rounding: Annotated[
        Rounding | None, typer.Option(help="Of the requantization, instead of that of the format's kernels.")
    ] = None,
    function: Annotated[
        str | None,
        typer.Option(metavar="F", help="f of the error f(y) - f(z): identity, abs, square or module:function."),
    ] = None,
    outputs: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="Write the first output: arrays simulated and float.")
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="The first N samples only.")] = None,
) -> None:
    """Run a model in integer arithmetic without any runtime's kernels, and compare with float.

    Integers of 2 to 16 bits, accumulators of 32 or 64, requantization by multiplier and shift. A float model is
    quantized on the way: 8 bits, or those asked for, and real where only one of the two is asked for. Tells the error
    of each layer and of the answers.
    """
    from edgelathe.core import dataset, files
    from edgelathe.model import io
    from edgelathe.model.fixed import study
    from edgelathe.model.fixed.predictions import find
    from edgelathe.model.fixed.prepare import check, prepare
    from edgelathe.model.fixed.simulate import simulate as run
    from edgelathe.recipes.simulated import subject

    wanted = _wanted(weights, activations, (accumulator, overflow, kernels, rounding))
    check(wanted.bits)
    if function:  # before the long part
        find(function, Path(data).parent)
    loaded = io.load(Path(model))
    samples, calibration = dataset.load(data), dataset.load(calib) if calib else None
    resolved = _recipe(shell, recipe, loaded, profile)
    with contextlib.ExitStack() as stack:
        arrays = stack.enter_context(files.replacing(outputs)) if outputs else None  # refused before the long part
        bar = stack.enter_context(shell.progress())
        chosen = subject(loaded, samples, calibration, wanted, resolved, limit, bar.start)
        for note in chosen.notes:
            shell.say(f"note: {note}")
        bar.start("simulate")
        ranges = chosen.calibration.inputs if chosen.calibration else None
        program = prepare(chosen.model, wanted, ranges, chosen.reference)
        found = run(program, chosen.samples.inputs, bar.move)
        scored = study.study(found, chosen.samples, function)
        if arrays:
            _write(arrays, found)
    shell.answer(study.document(scored, model, chosen.model, wanted, str(resolved[0]) if resolved else None))


def _wanted(
    weights: int | None,
    activations: int | None,
    target: tuple[Accumulator | None, Overflow, Kernels, Rounding | None],
) -> Wanted:
    from edgelathe.model.fixed.prepare import Wanted
    from edgelathe.model.fixed.types import Arithmetic, Bits

    accumulator, overflow, kernels, rounding = target
    arithmetic = Arithmetic(
        int(accumulator or 32),
        int(accumulator or 64),
        overflow.value,
        "optimized" if kernels is Kernels.optimized else "reference",
        rounding.value if rounding else None,
    )
    return Wanted(Bits(weights, activations), arithmetic, narrow=kernels is Kernels.saturating)


def _recipe(shell: Shell, recipe: str | None, model: Model, profile: str | None) -> tuple[Recipe, str] | None:
    """The recipe with its choices made, as `compress` makes them."""
    if recipe is None:
        return None
    from edgelathe.core import profile as profiles
    from edgelathe.recipes import read
    from edgelathe.recipes.ready import choose_session, ready

    where = read.where(recipe)
    probe = None if profile else shell.probe("local")
    chosen = profiles.choose(profile, probe)
    session = choose_session(chosen, model.format, probe)
    return ready(read.read(recipe), model, profiles.hardware(chosen, probe), session, where), where


def _write(path: Path, found: Simulation) -> None:
    import numpy as np

    with path.open("wb") as file:
        np.savez(file, simulated=found.simulated, float=found.exact)
