"""`fleet`: many devices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgelathe.cli.shell import Shell, command

app = typer.Typer(name="fleet", help="Check whole groups of devices.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Check whole groups of devices."""


@command(app)
def check(
    shell: Shell, file: Annotated[Path, typer.Option("--file", "-f", metavar="FLEET.toml", help="The inventory.")]
) -> int:
    """Ask every device of a fleet whether it is ready. Exit code 1 when one is not.

    Reachable, agent and runtime versions, free space, and the probed profile against the declared one.
    """
    from edgelathe.core.device import Probe
    from edgelathe.device.open import open_device, resolve
    from edgelathe.fleet import check as checks
    from edgelathe.fleet import inventory

    fleet = inventory.load(file)
    with shell.store() as store:
        known = {target.name: target for target in store.devices()}
    targets = {m: m.target(resolve(m.host, known, ssh_config=shell.ssh_config)) for m in fleet.members}

    def ask(member: inventory.Member) -> Probe:
        with open_device(targets[member], ssh_config=shell.ssh_config) as device:
            return device.probe

    with shell.progress() as bar:
        answers = checks.check(fleet, ask, lambda done, of: bar.move(f"{done}/{of} devices", done / of))
    document = checks.document(fleet, answers)
    shell.answer(document)
    return 0 if document["state"] == "ready" else 1
