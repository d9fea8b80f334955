"""`device`: register devices, look at them, install the agent."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgelathe.cli.shell import Shell, command

if TYPE_CHECKING:
    from edgelathe.device.trust import Confirm

app = typer.Typer(name="device", help="Register devices, look at them, install the agent.", no_args_is_help=True)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A registered name, local, or an ssh address.", show_default=False)
]


@command(app)
def add(
    shell: Shell,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.", show_default=False)],
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="ssh://[user@]host[:port], user@host, or a host of the ssh config.",
            show_default=False,
        ),
    ],
    fingerprint: Annotated[
        str | None, typer.Option(metavar="SHA256:...", help="The host key's, instead of being asked.")
    ] = None,
    root: Annotated[str | None, typer.Option(metavar="DIR", help="The agent's folder there.")] = None,
    python: Annotated[str | None, typer.Option(metavar="PATH", help="The Python there to build on.")] = None,
    profile: Annotated[str | None, typer.Option(metavar="P", help="Its profile, instead of the one that fits.")] = None,
) -> None:
    """Register a device; looks at its host key and at nothing else.

    A key that no known_hosts file vouches for is shown and asked about; in scripts give its --fingerprint.
    """
    from edgelathe.core import profile as profiles
    from edgelathe.core.device import Target
    from edgelathe.device.trust import trust

    if profile:
        profiles.load(profile)
    url = target if "://" in target or target == "local" else f"ssh://{target}"
    with shell.store() as store:
        store.check_new_device(name)
        wanted = Target(name, url, root, python, profile, fingerprint)
        trusted = trust(wanted, ssh_config=shell.ssh_config, confirm=_confirm())
        store.add_device(trusted)
    document = {"schema": "edgelathe.device/1", **asdict(trusted)}
    shell.answer(document, f"added {name} · next: edgelathe device install {name}")


@command(app, "list")
def list_(shell: Shell) -> None:
    """List the registered devices."""
    with shell.store() as store:
        shell.answer({"schema": "edgelathe.devices/1", "devices": [asdict(target) for target in store.devices()]})


@command(app)
def show(shell: Shell, name: Name) -> None:
    """Show how a device is registered."""
    with shell.store() as store:
        shell.answer({"schema": "edgelathe.device/1", **asdict(shell.target(name, store))})


@command(app)
def remove(shell: Shell, name: Name) -> None:
    """Forget a device; nothing is changed on it."""
    with shell.store() as store:
        store.remove_device(name)
    shell.answer({"schema": "edgelathe.deleted/1", "deleted": [name]}, f"removed {name}; what is installed on it stays")


@command(app)
def probe(shell: Shell, name: Name) -> None:
    """Say what a device is: CPU, memory, runtimes, clocks, temperature, and which profile fits."""
    shell.answer({"schema": "edgelathe.probe/1", **shell.probe(name).to_json()})


@command(app)
def install(
    shell: Shell,
    name: Name,
    wheels: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Send wheels from here; the device needs no index.")
    ] = None,
    python: Annotated[str | None, typer.Option(metavar="PATH", help="The Python there to build on.")] = None,
) -> None:
    """Install the agent, a virtual environment and the runtimes of the device's profile under the agent's folder."""
    from dataclasses import replace

    from edgelathe.device.install import install as put

    with shell.store() as store:
        target = shell.target(name, store)
    if python:
        target = replace(target, python=python)
    with shell.progress() as bar:
        installed = put(target, wheels_dir=wheels, ssh_config=shell.ssh_config, progress=bar.follow)
    for note in installed.notes:
        shell.say(f"note: {note}")
    document = {"schema": "edgelathe.probe/1", **installed.probe.to_json(), "notes": list(installed.notes)}
    shell.answer(document)


@command(app)
def uninstall(shell: Shell, name: Name) -> None:
    """Remove everything of edgelathe from a device; it stays registered."""
    from edgelathe.device.install import uninstall as wipe

    with shell.store() as store:
        target = shell.target(name, store)
    with shell.progress() as bar:
        left = wipe(target, ssh_config=shell.ssh_config, progress=bar.follow)
    document = {"schema": "edgelathe.uninstall/1", "device": name, "left": list(left)}
    foreign = f"; not edgelathe's, so they stay: {', '.join(left)}" if left else ""
    shell.answer(document, f"removed everything of edgelathe from {name}{foreign}")


@command(app)
def doctor(
    shell: Shell,
    name: Name,
    tune: Annotated[
        bool, typer.Option("--tune", help="Make it quiet first: governor, clocks (see --for).", show_default=False)
    ] = False,
    keep: Annotated[str, typer.Option("--for", metavar="T", help="For how long --tune holds.")] = "1h",
    restore: Annotated[
        bool, typer.Option("--restore", help="Put back at once what was tuned.", show_default=False)
    ] = False,
) -> int:
    """Check every step from the name to the runtimes, and name the mend of what is wrong. Exit code 1: something is.

    What --tune changes the device itself puts back: after the time of --for, by --restore, when its agent is
    uninstalled, and by a restart.
    """
    from edgelathe.core.duration import milliseconds
    from edgelathe.core.errors import UserError
    from edgelathe.device.doctor import broken
    from edgelathe.device.doctor import doctor as examine

    if tune and restore:
        raise UserError("--tune --restore", "one undoes the other", "give one of them")
    seconds = milliseconds(keep, "--for") / 1000 if tune else 0.0
    with shell.store() as store:
        target = shell.target(name, store)
    with shell.progress() as bar:
        checks = examine(
            target, ssh_config=shell.ssh_config, tick=lambda check: bar.follow(check.name), tune_seconds=seconds,
            restored=restore,
        )  # fmt: skip
    shell.answer({"schema": "edgelathe.doctor/1", "device": name, "checks": [check.to_json() for check in checks]})
    return int(broken(checks))


def _confirm() -> Confirm | None:
    """Asks on a terminal; nobody is asked elsewhere."""
    import sys

    from edgelathe.device.hostkeys import HostKey
    from edgelathe.device.sshconfig import Endpoint

    def ask(key: HostKey, endpoint: Endpoint) -> bool:
        return typer.confirm(f"{endpoint.host} shows {key.type} key {key.fingerprint}. Is it the right one?", err=True)

    return ask if sys.stdin.isatty() else None
