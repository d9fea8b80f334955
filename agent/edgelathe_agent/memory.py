"""What the kernel says of a process's memory (Linux, proc(5))."""

from __future__ import annotations

import contextlib
import os
from typing import Optional


def rss_bytes(pid: int) -> Optional[int]:
    """Resident memory of a process; None where the kernel does not tell."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None


def status(field: str) -> Optional[int]:
    """Bytes of a field of /proc/self/status, such as VmRSS; None where there is none."""
    with contextlib.suppress(OSError), open("/proc/self/status") as f:
        for line in f:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return None


def reset_peak() -> None:
    """Let VmHWM start again from here (clear_refs). Where the kernel cannot, peaks include all that came before."""
    with contextlib.suppress(OSError):
        fd = os.open("/proc/self/clear_refs", os.O_WRONLY)
        try:
            os.write(fd, b"5")
        finally:
            os.close(fd)
