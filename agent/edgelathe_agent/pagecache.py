"""In the child: take a file out of the page cache, so that loading it is loading from the disk."""

from __future__ import annotations

import mmap
import os
from typing import Optional


def drop(path: str) -> str:
    """Write a file back and drop its pages (fsync(2), posix_fadvise(2)); what keeps them there, "" when they are gone.

    Other processes that have it mapped keep its pages, and so do file systems in memory.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        share = cached(fd)
    except OSError as e:
        return f"the model could not be dropped from the page cache: {e.strerror}"
    finally:
        os.close(fd)
    if share is None:
        return "whether the model left the page cache cannot be seen here"
    return f"{share:.0%} of the model stayed in the page cache: it was not loaded cold" if share else ""


def cached(fd: int) -> Optional[float]:
    """The part of a file's pages that is in memory, 0 to 1 (mincore(2)); None where the C library cannot be asked."""
    size = os.fstat(fd).st_size
    if not size:
        return 0.0
    try:
        import ctypes

        mincore = ctypes.CDLL(None, use_errno=True).mincore
    except (ImportError, OSError, AttributeError):
        return None
    with mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as m:
        pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        first = ctypes.c_char.from_buffer(m)
        failed = mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(size), pages)
        del first  # a map with a pointer into it cannot be closed
    return None if failed else sum(p & 1 for p in pages) / len(pages)
