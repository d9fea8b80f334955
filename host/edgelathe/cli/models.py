"""`inspect` and `compress`: what can be done with a model on the host."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from edgelathe.cli.shell import ModelArgument, ProfileOption, Shell, command

app = typer.Typer()


@command(app)
def inspect(shell: Shell, model: ModelArgument) -> None:
    """Show what a model is made of.

    Inputs, outputs, parameters, MACs and bytes, each layer with its share, and which steps can change it.
    """
    from edgelathe.model import io
    from edgelathe.model.inspect import inspect as look
    from edgelathe.recipes.applicable import steps_by_op

    loaded = io.load(Path(model), large=True)
    shell.answer(look(loaded, steps_by_op(loaded.format, large=loaded.external is not None)).to_json())


@command(app)
def compress(
    shell: Shell,
    model: ModelArgument,
    recipe: Annotated[str, typer.Option(metavar="R", help="step(option=value)+step, or a recipe.toml.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="The file to write; `-`: stdout.")],
    data: Annotated[str | None, typer.Option(metavar="D", help="Calibration data.")] = None,
    profile: ProfileOption = None,
    device: Annotated[str | None, typer.Option(metavar="DEV", help="Ask this device what it can do.")] = None,
    save_recipe: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the recipe with every choice made: it gives the same bytes."),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say after each step why answers changed.")] = False,
) -> None:
    """Compress a model by a recipe, on this machine.

    The same model, recipe, data and profile give the same bytes. Options that the recipe leaves open follow from the
    profile (or from the device's own features, with --device).
    """
    from edgelathe.core import files
    from edgelathe.core import profile as profiles
    from edgelathe.core.errors import UserError
    from edgelathe.core.recipe import to_toml
    from edgelathe.model import io
    from edgelathe.recipes import chance, open_choice, read, run
    from edgelathe.recipes.ready import Compressed, calibration, choose_session, ready

    to_stream = str(out) == "-"
    if to_stream and shell.as_json:
        raise UserError("compress -o -", "the model goes to stdout, no JSON can", "leave --json out or name a file")
    if save_recipe is not None and save_recipe.suffix != ".toml":
        raise UserError(f"--save-recipe {save_recipe}", "a recipe is read from a .toml file", "name it so")
    for path in (None if to_stream else out, save_recipe):
        if path is not None:
            files.prove(path)
    wanted, where = read.read(recipe), read.where(recipe)
    loaded = io.load(Path(model), large=True)
    probe = shell.probe(device or "local") if device or not profile else None
    chosen = profiles.choose(profile, probe)
    hardware, session = profiles.hardware(chosen, probe), choose_session(chosen, loaded.format, probe)
    left_open = probe is not None and open_choice.asked(wanted)
    plain = open_choice.filled(wanted, "none") if left_open else wanted
    resolved = ready(plain, loaded, hardware, session, where)
    calib = calibration(data, resolved, loaded, where)
    for warning in calib.warnings if calib else ():
        shell.say(f"note: {warning}")
    with shell.progress() as bar:
        if left_open and calib is not None:
            from edgelathe.fit import placing  # with it comes all that measures

            bar.start("timing patterns on the device")
            with shell.device(device or "local") as opened:
                scene = placing.Scene(opened, loaded, calib, hardware, session)
                wanted = placing.Placing(scene, None, shell.say, bar.move)(wanted)
            resolved = ready(wanted, loaded, hardware, session, where)
        built = run.run(resolved, loaded, calib, where, bar.start, explain=explain)
        warning = "" if explain else chance.warning(loaded, built, calib)
    if warning:
        shell.say(f"warning: {warning}")
    if to_stream and built.model.external:
        raise UserError("compress -o -", "the result has 2 GB and more, which takes two files", "name a file")
    done = Compressed(loaded, built, resolved, out)
    if to_stream:
        sys.stdout.buffer.write(built.model.data)
    else:
        io.save(built.model, out)
    if save_recipe is not None:
        files.write(save_recipe, to_toml(done.replay))
    if not to_stream:
        shell.answer(done.to_json())
