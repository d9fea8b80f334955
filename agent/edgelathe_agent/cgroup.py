"""A control group of its own for a child (cgroup v2), where this user may make one: it counts the child's peak memory.

Functions of a root folder, "/" on a device; files as the kernel's Documentation/admin-guide/cgroup-v2.rst has them.
Memory that a process took before it came into a group stays with the old one, so a group counts from then on.
"""

from __future__ import annotations

import contextlib
import os
from typing import Iterator, Optional

from edgelathe_agent.kernel import number, read

_MOUNT = "sys/fs/cgroup"
_PREFIX = "edgelathe-"


def make(root: str, pid: int) -> Optional[str]:
    """Put a process into a new group that counts its memory; the group's folder, None where that is not permitted."""
    for parent in _parents(root):
        if "memory" not in (read(parent, "cgroup.subtree_control") or "").split():
            continue
        group = os.path.join(parent, f"{_PREFIX}{os.getpid()}-{pid}")
        with contextlib.suppress(OSError):
            os.mkdir(group)
            if read(group, "memory.peak") is not None and _write(group, "cgroup.procs", str(pid)):
                return group
            remove(group)
    return None


def peak(group: str) -> Optional[int]:
    """Most bytes that the group has had; kernels before 5.19 do not tell."""
    return number(group, "memory.peak")


def current(group: str) -> Optional[int]:
    """Bytes that the group has."""
    return number(group, "memory.current")


def remove(group: str) -> None:
    """The group goes, once nothing runs in it."""
    with contextlib.suppress(OSError):
        os.rmdir(group)


def sweep(root: str) -> None:
    """Empty groups of agents that were killed go."""
    for parent in _parents(root):
        with contextlib.suppress(OSError):
            for name in os.listdir(parent):
                agent = name[len(_PREFIX) :].split("-")[0]
                if name.startswith(_PREFIX) and not os.path.exists(os.path.join(root, "proc", agent)):
                    remove(os.path.join(parent, name))


def _parents(root: str) -> Iterator[str]:
    """The folder of this process's group and those above it, up to the mount."""
    for line in (read(root, "proc/self/cgroup") or "").splitlines():
        if line.startswith("0::"):
            mount = os.path.join(root, _MOUNT)
            path = os.path.normpath(mount + line[3:])
            while path.startswith(mount):
                yield path
                path = os.path.dirname(path)


def _write(folder: str, name: str, text: str) -> bool:
    try:
        with open(os.path.join(folder, name), "w") as f:
            f.write(text)
    except OSError:
        return False
    return True
