"""An open device with models, for the commands that measure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from edgelathe.cli.shell import Shell

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgelathe.core.device import SessionOptions
    from edgelathe.device.open import Device
    from edgelathe.model.types import Model

Models = Annotated[list[str], typer.Argument(metavar="MODEL...", help="ONNX or TFLite files.", show_default=False)]
Threads = Annotated[int | None, typer.Option(metavar="N", min=1, help="Threads, instead of the profile's.")]
Cpus = Annotated[
    str | None, typer.Option(metavar="CPUS", help="Run on these only: big, little, a core's name, or 0-3,6.")
]
RuntimeOption = Annotated[str | None, typer.Option("--runtime", metavar="R", help="Instead of the profile's choice.")]
Provider = Annotated[str | None, typer.Option(metavar="P", help="Execution provider, instead of the profile's.")]
RequireProvider = Annotated[
    str | None, typer.Option(metavar="P", help="Fail unless this execution provider runs the nodes.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Session entry of the runtime; provider.NAME=V for its provider."),
]


class Opened(NamedTuple):
    """An open device, the models with their names, how each runs there, and what is to be said about that."""

    device: Device
    models: list[tuple[str, Model]]
    options: list[SessionOptions]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Changes:
    """What the user wants other than the profile says; `cpus` as written."""

    threads: int | None = None
    cpus: str | None = None
    runtime: str | None = None
    provider: str | None = None
    config: Mapping[str, str] = field(default_factory=dict)


def entries(texts: list[str] | None) -> dict[str, str]:
    """`KEY=VALUE` texts as a mapping. Raises UserError for one without `=`, or said twice."""
    from edgelathe.core.errors import UserError

    found: dict[str, str] = {}
    for text in texts or []:
        key, sign, value = text.partition("=")
        if not (sign and key.strip()):
            raise UserError("--set", f"'{text}' is not KEY=VALUE", "write it as in session.use_device_allocator=1")
        if key.strip() in found:
            raise UserError("--set", f"{key.strip()} is said twice", "leave one of them out")
        found[key.strip()] = value.strip()
    return found


@contextmanager
def opened(
    shell: Shell, models: list[str], device: str, profile: str | None, threads: int | None,
    changes: Changes | None = None,
) -> Iterator[Opened]:  # fmt: skip
    """The device with the models loaded (before it is asked for anything) and how each is to run there."""
    from edgelathe.core import profile as profiles
    from edgelathe.device.open import open_device
    from edgelathe.measure.options import changed, options_of
    from edgelathe.model import io
    from edgelathe.recipes.ready import remarks

    loaded = [(name, io.load(Path(name))) for name in models]
    named = profiles.load(profile) if profile else None
    with shell.store() as store:
        target = shell.target(device, store)
    with open_device(target, ssh_config=shell.ssh_config) as on:
        on.client.progress = shell.say  # building an engine takes minutes
        chosen = named or profiles.choose(target.profile, on.probe)
        said = [text for _, model in loaded for text in remarks(chosen, model.format, on.probe)]
        options = [options_of(model, chosen, on, threads) for _, model in loaded]
        if changes:
            wanted = vars(changes)
            options = [
                changed(how, model, chosen, on.probe, **wanted) for how, (_, model) in zip(options, loaded, strict=True)
            ]
        yield Opened(on, loaded, options, tuple(dict.fromkeys(said)))
