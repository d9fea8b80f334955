"""Who works on a run: a process, and whether it still lives."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

SILENCE = timedelta(hours=1)  # an owner on another host is given up when it saved nothing for so long


@dataclass(frozen=True)
class Owner:
    """A process on a host. `start` tells it from a later process with the same id (None: not known on this system)."""

    host: str
    pid: int
    start: str | None

    @classmethod
    def here(cls) -> Owner:
        """This process."""
        return cls(platform.node(), os.getpid(), _start(os.getpid()))

    def to_json(self) -> dict[str, Any]:
        """The fields, for `Owner(**doc)`."""
        return asdict(self)

    def gone(self, seen: datetime, now: datetime) -> bool:
        """Whether it ended: asked of the system on this host, else judged by its silence since `seen`."""
        if self.host != platform.node():
            return now - seen > SILENCE
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # alive, of another user
        return self.start is not None and _start(self.pid) != self.start

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _start(pid: int) -> str | None:
    """Boot and start time of a process, from proc(5); None for one that has ended, or without /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # the name may hold anything
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    state, ticks = fields[0], fields[19]
    return None if state in "ZX" else f"{boot}:{ticks}"
