"""`profiles`: what is known of classes of devices."""

from __future__ import annotations

from typing import Annotated

import typer

from edgelathe.cli.shell import Shell, command

app = typer.Typer(name="profiles", help="List, show and check device profiles.", no_args_is_help=True)

Profile = Annotated[str, typer.Argument(metavar="P", help="A profile's name, or a .toml file.", show_default=False)]


@command(app, "list")
def list_(shell: Shell) -> None:
    """List the profiles that ship with edgelathe and those of your own profiles folder."""
    from edgelathe.core import profile

    document = {
        "schema": "edgelathe.profiles/1",
        "profiles": [profile.load(name).to_json() for name in profile.names()],
    }
    shell.answer(document)


@command(app)
def show(shell: Shell, profile: Profile) -> None:
    """Show one profile with all that it inherits."""
    from edgelathe.core import profile as profiles

    document = {"schema": "edgelathe.profile/1", **profiles.load(profile).to_json()}
    shell.answer(document)


@command(app)
def check(shell: Shell, profile: Profile) -> int:
    """Explain every mistake in a profile. Exit code 1 when there is one that keeps it from being used."""
    from edgelathe.core import profile as profiles
    from edgelathe.recipes.applicable import check_space

    found = profiles.check(profile)
    problems = [str(problem) for problem in found if not problem.warning]
    warnings = [str(problem) for problem in found if problem.warning]
    problems += [text for text in check_space(profiles.recipes(profile), profile) if text not in problems]
    document = {"schema": "edgelathe.check/1", "profile": profile, "problems": problems, "warnings": warnings}
    shell.answer(document)
    return 1 if problems else 0
