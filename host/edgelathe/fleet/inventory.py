"""FLEET.toml: groups of hosts with the profile that each is meant to have."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgelathe.core.device import Target
from edgelathe.core.errors import UserError, nearest

#: How many devices are asked at once.
PARALLEL = 32

_FLEET = {"name": str, "parallel": int, "min_free_mb": int}
_GROUP = {"profile": str, "hosts": list, "root": str, "python": str}


@dataclass(frozen=True)
class Member:
    """One device of the fleet: the host as written, its group, and the profile that the group declares (or None)."""

    host: str
    group: str
    profile: str | None
    root: str | None = None
    python: str | None = None

    def target(self, known: Target) -> Target:
        """The device behind the host, with what the fleet file says of it."""
        return Target(
            self.host, known.url, self.root or known.root, self.python or known.python, None, known.fingerprint
        )


@dataclass(frozen=True)
class Inventory:
    """A fleet: its members in the order of the file, how many are asked at once, and the free space each needs."""

    name: str
    members: tuple[Member, ...]
    parallel: int = PARALLEL
    min_free_mb: int = 100


def load(path: Path) -> Inventory:
    """Read a fleet file. Raises UserError naming the file, the key at fault and the mend."""
    try:
        doc = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(path, "no such file", "see docs/fleets.md for the form") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise UserError(path, f"cannot be read: {e}", "see docs/fleets.md for the form") from None
    _check_keys(path, "", doc, {"fleet": dict, "groups": dict})
    fleet, groups = doc.get("fleet", {}), doc.get("groups", {})
    _check_keys(path, "fleet.", fleet, _FLEET)
    members = [member for name, group in groups.items() for member in _members(path, name, group)]
    if not members:
        raise UserError(path, "no hosts", 'give groups, as in [groups.shop] hosts = ["pi@10.0.0.5"]')
    seen: dict[str, str] = {}
    for member in members:
        if member.host in seen:
            raise UserError(
                f"{path}: groups.{member.group}", f"'{member.host}' is in {seen[member.host]} too", "leave it in one"
            )
        seen[member.host] = f"groups.{member.group}"
    parallel = fleet.get("parallel", PARALLEL)
    if parallel < 1:
        raise UserError(f"{path}: fleet.parallel", f"{parallel} is not positive", "give 1 or more")
    return Inventory(fleet.get("name", path.stem), tuple(members), parallel, fleet.get("min_free_mb", 100))


def _members(path: Path, name: str, group: Any) -> list[Member]:
    where = f"groups.{name}."
    if not isinstance(group, dict):
        raise UserError(f"{path}: groups.{name}", "is not a table", f"write [groups.{name}]")
    _check_keys(path, where, group, _GROUP)
    hosts = group.get("hosts", [])
    if not hosts or not all(isinstance(h, str) and h for h in hosts):
        raise UserError(f"{path}: {where}hosts", "is no list of hosts", 'give texts, as in ["pi@10.0.0.5", "cam"]')
    return [Member(host, name, group.get("profile"), group.get("root"), group.get("python")) for host in hosts]


def _check_keys(path: Path, where: str, table: Mapping[str, Any], kinds: Mapping[str, type]) -> None:
    for key, value in table.items():
        if key not in kinds:
            raise UserError(path, f"unknown key '{where}{key}'", nearest(key, kinds))
        if not isinstance(value, kinds[key]) or isinstance(value, bool):
            words = {str: "a text", int: "a whole number", list: "a list", dict: "a table"}[kinds[key]]
            raise UserError(f"{path}: {where}{key}", f"{value!r} is not {words}", f"give {words}")
