"""What all commands share: the common options, and where answers, progress and messages go."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress

    from edgelathe.core.device import Probe, Target
    from edgelathe.device.open import Device
    from edgelathe.store.store import Store


@dataclass(frozen=True)
class Shell:
    """The common options of one command. Answers go to stdout, everything else to stderr."""

    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    store_url: str | None = None
    ssh_config: Path | None = None

    @functools.cached_property
    def err(self) -> Console:
        """Where progress and messages go."""
        from rich.console import Console

        return Console(stderr=True, quiet=self.quiet, highlight=False)

    def say(self, text: str) -> None:
        """One message for the user, on stderr."""
        self.err.print(text, markup=False, soft_wrap=True)

    def answer(self, document: Mapping[str, Any], view: RenderableType | None = None) -> None:
        """The result of the command: the JSON document with `--json`, else its view (by default that of its schema)."""
        if self.as_json:
            from edgelathe.report.document import dumps

            sys.stdout.write(dumps(document) + "\n")
            sys.stdout.flush()
        else:
            from edgelathe.report import terminal

            shown = terminal.render(document) if view is None else view
            if sys.stdout.isatty():
                terminal.console().print(shown)
            else:
                sys.stdout.write(terminal.text(shown, sys.stdout.encoding) + "\n")

    @contextlib.contextmanager
    def progress(self) -> Iterator[Bar]:
        """A progress line on stderr: moving on a terminal, a line a phase elsewhere, nothing when quiet."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (BarColumn(bar_width=20), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        live = self.err.is_terminal and not self.quiet
        with Progress(*columns, console=self.err, transient=True, disable=not live) as progress:
            yield Bar(progress, None if live else self.say)

    @contextlib.contextmanager
    def store(self) -> Iterator[Store]:
        """The run store that `--store` or `EDGELATHE_STORE` names."""
        from edgelathe.store import open_store

        with open_store(self.store_url) as store:
            yield store

    def target(self, device: str, store: Store) -> Target:
        """The device that the user named: `local`, a registered name, an ssh URL or a host of the ssh config."""
        from edgelathe.device.open import resolve

        return resolve(device, {t.name: t for t in store.devices()}, ssh_config=self.ssh_config)

    def device(self, device: str) -> Device:
        """The named device, opened."""
        from edgelathe.device.open import open_device

        with self.store() as store:
            target = self.target(device, store)
        return open_device(target, ssh_config=self.ssh_config)

    def probe(self, device: str) -> Probe:
        """What the named device answers about itself."""
        with self.device(device) as opened:
            return opened.probe


class Bar:
    """Progress of one command: phases, each from 0 to 1."""

    def __init__(self, progress: Progress, say: Callable[[str], None] | None) -> None:
        self._progress, self._say, self._phase = progress, say, ""
        self._task = progress.add_task("", total=1.0)

    def start(self, phase: str) -> None:
        """A new phase begins."""
        self._phase = phase
        self._progress.update(self._task, description=phase, completed=0.0)
        if self._say:
            self._say(phase)

    def follow(self, line: str) -> None:
        """What is being done now, where there is no telling how far it is."""
        self._progress.update(self._task, description=line)

    def move(self, what: str, part: float) -> None:
        """`part` (0..1) of what is being done is done."""
        text = f"{self._phase} · {what}" if self._phase else what
        self._progress.update(self._task, description=text, completed=part)


ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="An ONNX or TFLite file.", show_default=False)]
ProfileOption = Annotated[str | None, typer.Option(metavar="P", help="A profile's name, or a .toml file of your own.")]
DeviceOption = Annotated[
    str,
    typer.Option(metavar="DEV", help="local, a registered name, a host of the ssh config, or ssh://user@host:port."),
]

_COMMON = {
    "as_json": Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.")],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no remarks.")],
    "verbose": Annotated[bool, typer.Option("--verbose", "-v", help="Tracebacks of errors.")],
    "store_url": Annotated[
        str | None,
        typer.Option("--store", metavar="URL", envvar="EDGELATHE_STORE", show_envvar=True, help="Where runs are kept."),
    ],
    "ssh_config": Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar="EDGELATHE_SSH_CONFIG", show_envvar=True, help="Instead of ~/.ssh/config."),
    ],
}


def command(
    app: typer.Typer, name: str | None = None
) -> Callable[[Callable[..., int | None]], Callable[..., int | None]]:
    """Register a function `f(shell, ...) -> exit code` as a command that also takes the common options."""

    def add(f: Callable[..., int | None]) -> Callable[..., int | None]:
        signature = inspect.signature(f, eval_str=True)
        own = list(signature.parameters.values())[1:]
        common = [
            inspect.Parameter(
                key,
                inspect.Parameter.KEYWORD_ONLY,
                default=False if key in ("as_json", "quiet", "verbose") else None,
                annotation=kind,
            )
            for key, kind in _COMMON.items()
        ]

        @functools.wraps(f)
        def call(**values: Any) -> int | None:
            shell = Shell(**{key: values.pop(key) for key in _COMMON})
            if shell.store_url:
                os.environ["EDGELATHE_STORE"] = shell.store_url
            return f(shell, **values)

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + common
        call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # read by typer
        call.__annotations__ = {p.name: p.annotation for p in parameters}
        del call.__wrapped__  # or typer would read the hints of f
        app.command(name)(call)
        return f

    return add
