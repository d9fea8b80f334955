"""Which CPUs a model may run on, from the user's words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from edgelathe.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgelathe.core.device import Probe

_LIST = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")


def cpus(text: str, probe: Probe) -> tuple[int, ...]:
    """CPU numbers for `big` (the fastest cores), `little` (the slowest), a cluster's name, or a list as `0-3,6`.

    Names are those of the probe's clusters, in any case. Raises UserError with the names that exist, or where the
    device has no such CPU.
    """
    word = text.strip().lower()
    clusters: list[Mapping[str, Any]] = list(probe.extra.get("clusters") or ())
    if _LIST.fullmatch(word):
        return _numbers(text, word, probe, clusters)
    named = {str(c["name"]).lower(): c for c in reversed(clusters)}
    if len(clusters) > 1:
        named |= {"big": clusters[0], "little": clusters[-1]}
    if word in named:
        return tuple(sorted(int(n) for n in named[word]["cpus"]))
    if word in ("big", "little"):
        raise UserError(f"cpus '{text}'", f"{probe.name} has cores of one kind", "name CPUs by number, as 0-3")
    names = [*(["big", "little"] if len(clusters) > 1 else []), *(str(c["name"]) for c in clusters)]
    mend = f"choose from {', '.join([*names, 'numbers as 0-3,6'])}"
    raise UserError(f"cpus '{text}'", f"no such cores on {probe.name}", mend)


def _numbers(text: str, word: str, probe: Probe, clusters: list[Mapping[str, Any]]) -> tuple[int, ...]:
    wanted: set[int] = set()
    for part in word.split(","):
        first, _, last = part.partition("-")
        if int(last or first) - int(first) > 4096:
            raise UserError(f"cpus '{text}'", f"{probe.name} has {probe.cores} CPUs", "name those, as 0-3,6")
        wanted |= set(range(int(first), int(last or first) + 1))
    there = {int(n) for c in clusters for n in c["cpus"]} or set(range(probe.cores))
    missing = sorted(wanted - there)
    if missing or not wanted:
        what = f"{probe.name} has no CPU {missing[0]}" if missing else "an empty range"
        raise UserError(f"cpus '{text}'", what, f"its CPUs are {ranges(there)}")
    return tuple(sorted(wanted))


def ranges(numbers: set[int]) -> str:
    """CPU numbers as the kernel lists them: `0-3,6`."""
    parts: list[list[int]] = []
    for n in sorted(numbers):
        if parts and n == parts[-1][1] + 1:
            parts[-1][1] = n
        else:
            parts.append([n, n])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
