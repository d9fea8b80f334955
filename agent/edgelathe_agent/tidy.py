"""What goes away: agents of earlier versions, and at last everything that the agent put under its root."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from typing import List, Tuple

#: All names that the agent, or the host for it, makes in its root.
OURS = ("agent", "cas", "engines", "venv", "venv.new", "venvs", "tmp", "tune")

_STALE_SECONDS = 3600
_held: List[int] = []


def old_archives(own: str) -> None:
    """Remove the archives beside `own` that are older and that no running agent was started from.

    Each agent holds a shared lock on its archive while it runs; what can be locked exclusively is not in use.
    """
    folder, name = os.path.split(own)
    held = os.open(own, os.O_RDONLY)
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
    _held.append(held)
    for other in os.listdir(folder):
        path = os.path.join(folder, other)
        with contextlib.suppress(OSError):
            if other.endswith(".pyz") and other != name and os.stat(path).st_mtime <= os.fstat(held).st_mtime:
                _unlink_unused(path)
            elif ".pyz." in other and time.time() - os.stat(path).st_mtime > _STALE_SECONDS:
                os.unlink(path)  # one that broke off on its way


def _unlink_unused(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    finally:
        os.close(fd)


def wipe(root: str) -> Tuple[int, List[str]]:
    """Remove what is ours in `root`, and `root` when nothing else is in it: files removed, other names left."""
    removed = 0
    for name in OURS:
        path = os.path.join(root, name)
        if os.path.islink(path) or os.path.isfile(path):
            os.unlink(path)
            removed += 1
        elif os.path.isdir(path):
            removed += sum(len(files) for _, _, files in os.walk(path))
            shutil.rmtree(path)
    left = sorted(os.listdir(root)) if os.path.isdir(root) else []
    if not left and os.path.isdir(root):
        os.rmdir(root)
    return removed, left
