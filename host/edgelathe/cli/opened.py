"""An open device with models, for the commands that measure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from edgelathe.cli.shell import Shell

if TYPE_CHECKING:
    from edgelathe.core.device import SessionOptions
    from edgelathe.device.open import Device
    from edgelathe.model.types import Model

Models = Annotated[list[str], typer.Argument(metavar="MODEL...", help="ONNX or TFLite files.", show_default=False)]
Threads = Annotated[int | None, typer.Option(metavar="N", min=1, help="Threads, instead of the profile's.")]


class Opened(NamedTuple):
    """An open device, the models with their names, how each runs there, and what is to be said about that."""

    device: Device
    models: list[tuple[str, Model]]
    options: list[SessionOptions]
    remarks: tuple[str, ...]


@contextmanager
def opened(shell: Shell, models: list[str], device: str, profile: str | None, threads: int | None) -> Iterator[Opened]:
    """The device with the models loaded (before it is asked for anything) and how each is to run there."""
    from edgelathe.core import profile as profiles
    from edgelathe.device.open import open_device
    from edgelathe.measure.options import options_of
    from edgelathe.model import io
    from edgelathe.recipes.ready import remarks

    loaded = [(name, io.load(Path(name))) for name in models]
    named = profiles.load(profile) if profile else None
    with shell.store() as store:
        target = shell.target(device, store)
    with open_device(target, ssh_config=shell.ssh_config) as on:
        chosen = named or profiles.choose(target.profile, on.probe)
        said = [text for _, model in loaded for text in remarks(chosen, model.format, on.probe)]
        options = [options_of(model, chosen, on, threads) for _, model in loaded]
        yield Opened(on, loaded, options, tuple(dict.fromkeys(said)))
