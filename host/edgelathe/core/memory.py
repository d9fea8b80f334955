"""Freed memory given back to the system."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of mallopt (malloc.h)
_MOST = 32 << 20  # bytes; the threshold that glibc comes to by itself, and twice that of the trim (mallopt(3))
_LEAST = 1 << 20


def give_back() -> None:
    """Return what the allocator keeps for later; between two phases that need much.

    glibc keeps freed blocks smaller than the largest that it has seen freed, up to 32 MB: without this a process holds
    the copies of a model that its phases made one after the other all at once. Other allocators
    are left alone.
    """
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


@contextlib.contextmanager
def returning() -> Iterator[None]:
    """Blocks of 1 MB and more come from the system and go back to it at once, while many are made that live shortly.

    For work that is not repeated: each such block costs its page faults. Afterwards the allocator keeps as much as it
    does after it has freed its first large blocks. As `give_back`, for glibc.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "malloc_trim") or not library.mallopt(_MMAP_THRESHOLD, _LEAST):
        yield
        return
    try:
        yield
    finally:
        library.mallopt(_MMAP_THRESHOLD, _MOST)
        library.mallopt(_TRIM_THRESHOLD, 2 * _MOST)
