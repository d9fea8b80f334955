"""Whether every device of a fleet is ready: reachable, agent and runtime there, space free, the profile as declared."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from edgelathe.core import profile as profiles
from edgelathe.core.device import Probe
from edgelathe.core.errors import DeviceError
from edgelathe.core.profile import Profile
from edgelathe.fleet.inventory import Inventory, Member

#: Asks one device what it is. Raises DeviceError when it cannot be asked.
Ask = Callable[[Member], Probe]


@dataclass(frozen=True)
class Readiness:
    """What was found for one device. `state` is `ready`, `unreachable`, `no-runtime`, `no-space` or `other-profile`."""

    member: Member
    state: str
    why: str = ""
    probe: Probe | None = None

    def to_json(self) -> dict[str, Any]:
        """A row of `devices` in `edgelathe.rollout/1`."""
        probe = self.probe
        return {
            "name": self.member.host, "group": self.member.group, "state": self.state, "why": self.why,
            "profile": self.member.profile, "probed": profiles.propose(probe).name if probe else None,
            "agent": str(probe.extra.get("agent", "")) if probe else None, "machine": probe.machine if probe else None,
            "runtimes": [{"name": r.name, "version": r.version} for r in probe.runtimes] if probe else [],
            "free_bytes": probe.extra.get("free_bytes") if probe else None,
        }  # fmt: skip


def check(inventory: Inventory, ask: Ask, tell: Callable[[int, int], None] = lambda done, of: None) -> list[Readiness]:
    """Ask all devices, at most `inventory.parallel` at once; answers in the order of the file.

    A device that cannot be asked is an answer, not an error. `tell` hears how many are done.
    """
    declared = {m.profile: profiles.load(m.profile) for m in inventory.members if m.profile}
    with ThreadPoolExecutor(min(inventory.parallel, len(inventory.members)), thread_name_prefix="fleet") as pool:
        tasks = {
            pool.submit(_one, m, declared.get(m.profile or ""), inventory.min_free_mb, ask): m
            for m in inventory.members
        }
        answers: dict[Member, Readiness] = {}
        try:
            for task in as_completed(tasks):
                answers[tasks[task]] = task.result()
                tell(len(answers), len(tasks))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [answers[m] for m in inventory.members]


def document(inventory: Inventory, answers: list[Readiness]) -> dict[str, Any]:
    """The document `edgelathe.rollout/1` of a check: no waves and no gates yet."""
    ready = all(a.state == "ready" for a in answers)
    return {
        "schema": "edgelathe.rollout/1", "id": None, "fleet": inventory.name,
        "state": "ready" if ready else "not-ready", "waves": [], "gates": [], "devices": [a.to_json() for a in answers],
    }  # fmt: skip


def _one(member: Member, declared: Profile | None, min_free_mb: int, ask: Ask) -> Readiness:
    try:
        probe = ask(member)
    except DeviceError as e:
        return Readiness(member, "unreachable", f"{e.what}; {e.mend}")
    if not probe.runtimes:
        return Readiness(member, "no-runtime", f"no runtime; run `edgelathe device install {member.host}`", probe)
    free = probe.extra.get("free_bytes")
    if isinstance(free, int | float) and free < min_free_mb * 1e6:
        return Readiness(member, "no-space", f"{free / 1e6:.0f} MB free, {min_free_mb} MB wanted; free some", probe)
    if declared is not None and (why := _mismatch(declared, probe)):
        return Readiness(
            member, "other-profile", f"{why}; move it to another group or change the group's profile", probe
        )
    return Readiness(member, "ready", "", probe)


def _mismatch(declared: Profile, probe: Probe) -> str:
    """Why the device is not of the declared class; empty where it may be. A generic profile fits every board."""
    if not profiles.fits(declared, probe.machine):
        return f"it is {probe.machine}, {declared.name} is for {declared.machine}"
    model = (probe.model or "").rstrip("\0\n ")
    if declared.match and model and not any(re.search(pattern, model) for pattern in declared.match):
        return f"it is a '{model}' ({profiles.propose(probe).name}), not a {declared.name}"
    return ""
