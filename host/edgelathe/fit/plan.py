"""Which candidates are worth building: the user's recipes first, then the profile's space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from edgelathe.core.device import SessionOptions
from edgelathe.core.errors import UserError
from edgelathe.core.profile import Hardware, Profile
from edgelathe.core.recipe import Recipe, to_toml
from edgelathe.fit.setup import Setup
from edgelathe.recipes import read
from edgelathe.recipes.ready import ready


@dataclass(frozen=True)
class Plan:
    """One candidate before it is built: `text` is the recipe as written, `recipe` the same with every choice made."""

    id: str
    text: str
    recipe: Recipe


def plans(
    setup: Setup,
    profile: Profile,
    hardware: Hardware,
    session: SessionOptions,
    tell: Callable[[str], None],
    place: Callable[[Recipe], Recipe] = lambda recipe: recipe,
) -> list[Plan]:
    """The candidates in the order of measuring; the same job on the same device gives the same.

    A recipe of the user's that does not fit the model is an error; one of the profile's is left out, and told of.
    `place` fills in what only the device can tell.
    """
    wanted = [(text, recipe, True) for text, recipe in setup.recipes]
    wanted += [(text, read.read(text), False) for text in profile.recipes.get(setup.model.format, ())]
    out: list[Plan] = []
    seen: set[str] = set()
    for text, written, asked in wanted:
        try:
            recipe = place(written)
            resolved = ready(recipe, setup.model, hardware, session, read.where(text))
        except UserError as e:
            if asked:
                raise
            tell(f"left out {text}: {e.what}")
            continue
        resolved = replace(resolved, holdout=setup.holdout)
        if (key := to_toml(resolved)) not in seen:
            seen.add(key)
            out.append(Plan(f"c{len(out) + 1}", str(recipe), resolved))
    return out[: setup.job.max_trials]
