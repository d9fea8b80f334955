"""An open device with models, for the commands that measure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from edgelathe.cli.shell import Shell

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from edgelathe.core.device import SessionOptions
    from edgelathe.device.open import Device
    from edgelathe.model.types import Model

Models = Annotated[list[str], typer.Argument(metavar="MODEL", help="ONNX or TFLite files.", show_default=False)]
Threads = Annotated[int | None, typer.Option(metavar="N", min=1, help="Threads, instead of the profile's.")]
Cpus = Annotated[
    str | None, typer.Option(metavar="CPUS", help="Run on these only: big, little, a core's name, or 0-3,6.")
]
RuntimeOption = Annotated[
    str | None,
    typer.Option("--runtime", metavar="R", help="As tflite-runtime or tensorrt, instead of the profile's choice."),
]
Provider = Annotated[str | None, typer.Option(metavar="P", help="Execution provider, instead of the profile's.")]
RequireProvider = Annotated[
    str | None, typer.Option(metavar="P", help="Fail unless this execution provider runs the nodes.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Session entry of the runtime; provider.NAME=V for its provider."),
]

Shape = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="[NAME=]N,N,...",
        help="Lengths of an input's open axes where there is no --data, as x=1,3,224,224; may be repeated. Axis 0 is "
        "always samples: write 1. Floats are drawn from 0..1, integers from 0..127, or fewer for a smaller table.",
    ),
]


CallLimit = Annotated[
    str, typer.Option("--call-limit", metavar="T", help="End a model that does not answer for so long: it hangs.")
]


class Opened(NamedTuple):
    """An open device, the models with their names, how each runs there, and what is to be said about that."""

    device: Device
    models: list[tuple[str, Model]]
    options: list[SessionOptions]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Changes:
    """What the user wants other than the profile says; `cpus` as written, `config` as `entries` gives it."""

    threads: int | None = None
    cpus: str | None = None
    runtime: str | None = None
    provider: str | None = None
    config: Mapping[str, str] = field(default_factory=dict)

    def suiting(self, format_: str, all_formats: Collection[str]) -> Changes:
        """Those for a model of this format: beside models of another format a runtime is for those that it takes."""
        from edgelathe_agent.protocol import RUNTIMES

        row = RUNTIMES.get(self.runtime or "")
        if row is None or row.format == format_ or row.format not in all_formats:
            return self
        return replace(self, runtime=None, provider=None)


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


def lengths(texts: list[str] | None, data: str | None) -> dict[str, tuple[int, ...]]:
    """What `--shape` gives, by input. Raises UserError, also beside data, which have shapes of their own."""
    from edgelathe.core.errors import UserError
    from edgelathe.measure import inputs

    if texts and data:
        raise UserError("--shape", "the data have shapes of their own", "leave out --shape or --data")
    return inputs.shapes(texts or [])


@contextmanager
def opened(
    shell: Shell, models: list[str], device: str, profile: str | None, changes: Changes, call_limit: str
) -> Iterator[Opened]:
    """The device with the models loaded (before it is asked for anything) and how each is to run there."""
    from edgelathe.core import profile as profiles
    from edgelathe.core.duration import milliseconds
    from edgelathe.device.open import open_device
    from edgelathe.measure import answers
    from edgelathe.measure.options import changed, options_of
    from edgelathe.model import io
    from edgelathe.recipes.ready import remarks

    patience = milliseconds(call_limit, "--call-limit", bare="s") / 1e3
    loaded = [(name, io.load(Path(name), large=True)) for name in models]
    for name, model in loaded:
        answers.check(model, name)
    formats = {model.format for _, model in loaded}
    named = profiles.load(profile) if profile else None
    with shell.store() as store:
        target = shell.target(device, store)
    with open_device(target, ssh_config=shell.ssh_config) as on:
        on.client.progress = shell.say  # building an engine takes minutes
        on.call_seconds = patience
        chosen = named or profiles.choose(target.profile, on.probe)
        said = [text for _, model in loaded for text in remarks(chosen, model.format, on.probe)]
        plain = [options_of(model, chosen, on, changes.threads) for _, model in loaded]
        wanted = [vars(changes.suiting(model.format, formats)) for _, model in loaded]
        options = [
            changed(how, model, chosen, on.probe, **mine)
            for how, (_, model), mine in zip(plain, loaded, wanted, strict=True)
        ]
        yield Opened(on, loaded, options, tuple(dict.fromkeys(said)))
