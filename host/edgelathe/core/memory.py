"""Freed memory given back to the system."""

from __future__ import annotations

import ctypes
import sys


def give_back() -> None:
    """Return what the allocator keeps for later; between two phases that need much.

    glibc keeps freed blocks smaller than the largest that it has seen freed, up to 32 MB: without this a process holds
    the copies of a model that its phases made one after the other all at once. Other allocators
    are left alone.
    """
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
