"""The agent's answer to `probe` as a Probe, with the profile that fits it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgelathe.core.device import Probe, Runtime
from edgelathe.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

_OWN = frozenset({"id", "ok", "machine", "cpu", "features", "cores", "memory_bytes", "model", "python", "runtimes",
                  "emulated", "sensors"})  # fmt: skip


def from_answer(name: str, answer: Mapping[str, Any], declared: str | None = None) -> Probe:
    """The facts of device `name`; its profile is the `declared` one, else the one that fits best."""
    from edgelathe.core import profile

    probe = Probe(
        name=name,
        machine=str(answer["machine"]),
        cpu=str(answer["cpu"] or "unknown"),
        cores=int(answer["cores"] or 1),
        memory_bytes=int(answer["memory_bytes"] or 0),
        python=str(answer["python"]),
        runtimes=tuple(Runtime(r["name"], r["version"], tuple(r["providers"])) for r in answer["runtimes"]),
        emulated=bool(answer["emulated"]),
        features=frozenset(f.lower() for f in answer["features"] or ()),
        model=answer.get("model"),
        sensors=tuple(answer.get("sensors") or ()),
        extra={k: v for k, v in answer.items() if k not in _OWN},
    )
    if declared:
        return replace(probe, profile=declared)
    with suppress(UserError):  # no profile is for such a machine: that is an answer too
        return replace(probe, profile=profile.propose(probe).name)
    return probe
