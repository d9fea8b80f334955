"""Small files that the kernel shows, and short words of vendors' programs. What is not there is None."""

from __future__ import annotations

import glob
import os
import subprocess
import time
from typing import Dict, List, Optional, Tuple

_SECONDS = 2.0
_said: Dict[Tuple[str, ...], Tuple[float, Optional[str]]] = {}


def read(root: str, *path: str) -> Optional[str]:
    """A small file of the kernel's without its end of line and NUL; None when it is not there or cannot be read."""
    try:
        fd = os.open(os.path.join(root, *path), os.O_RDONLY)
    except OSError:
        return None
    try:
        data = b""
        while len(data) < 1 << 20:
            part = os.read(fd, 1 << 16)
            if not part:
                break
            data += part
    except OSError:
        return None
    finally:
        os.close(fd)
    return data.decode(errors="replace").strip(" \n\0")


def number(root: str, *path: str) -> Optional[int]:
    """The same as an integer (decimal or 0x...)."""
    try:
        return int(read(root, *path) or "", 0)
    except ValueError:
        return None


def listed(root: str, pattern: str) -> List[str]:
    """The paths of a pattern, zone 10 after zone 2."""
    return sorted(glob.glob(os.path.join(root, pattern)), key=lambda path: (len(path), path))


def cpus(text: Optional[str]) -> List[int]:
    """The numbers of a kernel list such as `0-3,6`."""
    out: List[int] = []
    for part in (text or "").replace(" ", ",").split(","):
        first, _, last = part.partition("-")
        if first.strip().isdigit():
            out.extend(range(int(first), int(last or first) + 1))
    return out


def said(argv: List[str], every: float) -> Optional[str]:
    """What a program prints, run without a shell and at most once in `every` seconds; None where it fails."""
    key, now = tuple(argv), time.monotonic()
    when, text = _said.get(key, (-every, None))
    if key in _said and now - when < every:
        return text
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_SECONDS,
            check=False,
        )  # fmt: skip
        text = done.stdout.decode(errors="replace") if done.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired):
        text = None
    _said[key] = (time.monotonic(), text)
    return text
