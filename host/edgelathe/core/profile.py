"""Profiles: found by name, proposed for a device, and what follows from them.

The dataclasses are those of `profile_types`; files are read and checked by `profile_file`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgelathe.core.errors import UserError
from edgelathe.core.profile_file import Problem, check, load, names, recipes
from edgelathe.core.profile_types import GPU_FEATURES, RUNTIMES, Hardware, Profile, RuntimeChoice, family, normalize

if TYPE_CHECKING:
    from edgelathe.core.device import Probe

__all__ = [
    "Hardware", "Problem", "Profile", "RuntimeChoice",
    "check", "choose", "fits", "hardware", "load", "names", "propose", "recipes", "runtimes_for",
]  # fmt: skip

_GENERIC = {"arm": "arm-cpu", "x86": "x86-cpu"}


def choose(name: str | None, probe: Probe | None) -> Profile:
    """The profile that the user names, else the device's own, else the one proposed for it. Raises UserError."""
    if name:
        return load(name)
    if probe is None:
        raise UserError("--profile", "neither profile nor device is given", "name one with --profile or --device")
    return load(probe.profile) if probe.profile else propose(probe)


def propose(probe: Probe) -> Profile:
    """The profile whose board expression matches most of the device's model, else the generic one of its machine.

    An emulated device gets the generic one: what it calls itself says nothing about its speed. Raises UserError where
    no profile is for that machine, or where one of the user's own is broken.
    """
    model = "" if probe.emulated else (probe.model or "").rstrip("\0\n ")
    best, length = None, 0
    for profile in map(load, names()) if model else ():
        found = max((len(m[0]) for p in profile.match if (m := re.search(p, model))), default=0)
        if found > length and fits(profile, probe.machine):
            best, length = profile, found
    if best:
        return best
    generic = _GENERIC.get(family(probe.machine))
    if generic is None:
        raise UserError(
            probe.name, f"no profile is for machine '{probe.machine}'", "write one and give it with --profile"
        )
    return load(generic)


def fits(profile: Profile, machine: str | None) -> bool:
    """Whether a machine, as `uname -m` names it, is of the profile's kind."""
    return machine is None or profile.machine is None or family(profile.machine) == family(machine)


def hardware(profile: Profile, probe: Probe | None) -> Hardware:
    """What the device has: its own CPU flags where it was probed and is of the profile's kind, else the guess.

    Flags tell nothing of a GPU, so tensor cores are as the profile says. A device that names no flags is taken as
    the profile describes it.
    """
    if probe is None or not probe.features or not fits(profile, probe.machine):
        return Hardware(profile.machine, profile.features, profile.channel_multiple)
    features = normalize(probe.features) | (profile.features & GPU_FEATURES)
    return Hardware(probe.machine, features, profile.channel_multiple)


def runtimes_for(profile: Profile, format: str, probe: Probe | None) -> tuple[RuntimeChoice, ...]:
    """The profile's ways to run models of this format, in its order; where probed, only those that the device has."""
    return tuple(c for c in profile.runtimes if RUNTIMES[c.runtime][0] == format and (probe is None or _has(probe, c)))


def _has(probe: Probe, choice: RuntimeChoice) -> bool:
    found = probe.runtime(choice.runtime)
    return found is not None and choice.provider in found.providers
