"""What tuning has changed, on the disk, and who holds it: a folder with a journal and two lock files.

`hold` is locked shared by each guard as long as it wants the machine tuned, `lock` exclusively by whoever is changing
something. Locks are the kernel's: they end with the process, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from typing import Any, Dict, Iterator, Optional

_FIELDS = {"boot", "files", "jetson", "until"}
JOURNAL, CLOCKS, LOCK, HOLD = "journal.json", "clocks.conf", "lock", "hold"


def load(folder: str) -> Optional[Dict[str, Any]]:
    """{"boot", "files": {path: [was, ours]}, "jetson", "until"}; None where there is none, or none of this form."""
    try:
        with open(os.path.join(folder, JOURNAL)) as f:
            found: Dict[str, Any] = json.load(f)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and set(found) >= _FIELDS else None


def note(folder: str, journal: Dict[str, Any]) -> None:
    """Write the journal; it is on the disk when this returns."""
    path = os.path.join(folder, JOURNAL)
    with open(path + ".new", "w") as f:
        json.dump(journal, f)
    sync(path + ".new")
    os.rename(path + ".new", path)
    sync(folder)


def sync(path: str) -> None:
    """A file or folder is on the disk when this returns."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove(folder: str) -> None:
    """Forget everything. For who holds the lock."""
    for name in os.listdir(folder):
        os.unlink(os.path.join(folder, name))
    os.rmdir(folder)


def held(folder: str) -> bool:
    """Whether a guard holds the machine tuned."""
    fd = _open(folder, HOLD)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def hold(folder: str) -> int:
    """Hold it until the descriptor is closed."""
    fd = _open(folder, HOLD)
    fcntl.flock(fd, fcntl.LOCK_SH)
    return fd


@contextlib.contextmanager
def locked(folder: str, make: bool = False) -> Iterator[bool]:
    """One at a time. Gives whether the folder is there: without `make` it may be gone, and there is nothing to do."""
    fd = _lock(folder, make)
    try:
        yield fd is not None
    finally:
        if fd is not None:
            os.close(fd)


def _lock(folder: str, make: bool) -> Optional[int]:
    while make or os.path.isdir(folder):
        with contextlib.suppress(FileNotFoundError):
            if make:
                os.makedirs(folder, exist_ok=True)
            fd = _open(folder, LOCK)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                return fd
            os.close(fd)  # who had it before has removed the folder
    return None


def _open(folder: str, name: str) -> int:
    return os.open(os.path.join(folder, name), os.O_RDWR | os.O_CREAT, 0o600)
