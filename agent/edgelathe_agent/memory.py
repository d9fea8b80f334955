"""What the kernel says of a process's memory (Linux, proc(5))."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Callable, Dict, Optional

from edgelathe_agent import cgroup

#: GPU memory by process on Jetson, of nvmap's debugfs: lines of client, process, pid and size in K; root may read it.
_NVMAP = "sys/kernel/debug/nvmap/iovmm/clients"


def rss_bytes(pid: int) -> Optional[int]:
    """Resident memory of a process; None where the kernel does not tell."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None


def status(field: str, file: str = "status") -> Optional[int]:
    """Bytes of a field of /proc/self/status (or of another file there), such as VmRSS; None where there is none."""
    with contextlib.suppress(OSError), open("/proc/self/" + file) as f:
        for line in f:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return None


def oom_kills() -> Optional[int]:
    """How many processes the kernel has killed for want of memory since boot; None: not counted (before 4.13)."""
    with contextlib.suppress(OSError), open("/proc/vmstat") as f:
        for line in f:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None


def nvmap_bytes(root: str, pid: int) -> Optional[int]:
    """GPU memory of a process on Jetson; None where there is no nvmap or it may not be read."""
    try:
        with open(os.path.join(root, _NVMAP)) as f:
            rows = [line.split() for line in f]
    except OSError:
        return None
    sizes = [r[-1] for r in rows if len(r) >= 3 and r[-2] == str(pid) and r[-1].endswith("K")]
    return sum(int(s[:-1]) for s in sizes) * 1024


def reset_peak() -> None:
    """Let VmHWM start again from here (clear_refs). Where the kernel cannot, peaks include all that came before."""
    with contextlib.suppress(OSError):
        fd = os.open("/proc/self/clear_refs", os.O_WRONLY)
        try:
            os.write(fd, b"5")
        finally:
            os.close(fd)


class Footprint:
    """Peak memory of this process above what it was when this was made; `begin` and `note` stand around what counts.

    The kernel keeps a peak of RSS and none of PSS, and reading PSS walks all pages. So what is shared with others
    (RSS less PSS: libraries, mostly) is counted when a new peak of RSS is noted, and taken off it.
    `gpu`: bytes of the GPU that this process holds, where the runtime knows.
    """

    def __init__(self, group: Optional[str]) -> None:
        reset_peak()
        self._group = group
        self._rss0, self._pss0 = status("VmRSS"), status("Pss", "smaps_rollup")
        self._cgroup0 = cgroup.current(group) if group else None
        self._rss: Optional[int] = None
        self._pss: Optional[int] = None
        self._cgroup: Optional[int] = None
        self._gpu: Optional[int] = None

    def begin(self) -> None:
        """What came before does not count."""
        reset_peak()

    def note(self, gpu: Callable[[], Optional[int]] = lambda: None) -> None:
        """What came since `begin` counts."""
        rss = status("VmHWM")
        if rss is not None and (self._rss is None or rss > self._rss):
            self._rss = rss
            now, pss = status("Rss", "smaps_rollup"), status("Pss", "smaps_rollup")
            if now is not None and pss is not None:
                self._pss = _most(self._pss, rss - (now - pss))
        if self._group:
            self._cgroup = cgroup.peak(self._group)
        held = gpu()
        self._gpu = _most(self._gpu, nvmap_bytes("/", os.getpid()) if held is None else held)
        reset_peak()

    def to_json(self) -> Dict[str, Any]:
        """The answer of the verb `close`."""
        return {
            "peak_bytes": _above(self._rss, self._rss0),
            "peak_pss_bytes": _above(self._pss, self._pss0),
            "peak_cgroup_bytes": _above(self._cgroup, self._cgroup0),
            "gpu_bytes": self._gpu,
        }


def _most(a: Optional[int], b: Optional[int]) -> Optional[int]:
    return a if b is None else b if a is None else max(a, b)


def _above(peak: Optional[int], base: Optional[int]) -> Optional[int]:
    return None if peak is None or base is None else max(0, peak - base)
