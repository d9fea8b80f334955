"""In the child: fed arrays, read from the store straight into the buffers that the runtime reads.

They are read, not mapped: pages of a mapped data set would count as the model's memory, and fault within timed calls.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional

import numpy as np

from edgelathe_agent.cas import Store
from edgelathe_agent.protocol import AgentError


class Samples:
    """One input's array [n, ...] in the store, and `buffer`, what a call takes of it: [batch, ...], or one sample whole
    where the model's input has no batch axis."""

    def __init__(self, path: str, dtype: Any, dims: List[int], rows: Optional[int]) -> None:
        self.n, each = dims[0], tuple(dims[1:])
        self.buffer = np.zeros(each if rows is None else (rows, *each), dtype)
        self._bytes = self.buffer.nbytes // (rows or 1)
        flat = self.buffer.reshape(-1).view(np.uint8)
        self._rows = [flat[r * self._bytes : (r + 1) * self._bytes].data for r in range(rows or 1)]
        self._fd = os.open(path, os.O_RDONLY)

    def load(self, indices: List[int]) -> None:
        """Fill the buffer with these samples."""
        for row, i in zip(self._rows, indices):
            if os.preadv(self._fd, [row], i * self._bytes) != self._bytes:
                raise AgentError("corrupt", "a fed file became shorter", "send it again")

    def close(self) -> None:
        """The file is not read any more."""
        os.close(self._fd)


def check(name: str, info: Dict[str, Any], fed: Any, store: Store) -> List[int]:
    """The dimensions of a fed array that fits the input and its file. Raises AgentError."""
    dims = fed.get("shape") if isinstance(fed, dict) else None
    if not isinstance(dims, list) or not dims or not all(isinstance(d, int) and d > 0 for d in dims):
        raise AgentError("request", f"input {name}: shape {dims!r}", "a list of numbers above 0, samples first")
    if fed.get("dtype") != info["dtype"]:
        raise AgentError("model", "input {} takes {}, not {}".format(name, info["dtype"], fed.get("dtype")), "cast it")
    wanted = info["shape"]
    each = wanted if len(dims) == len(wanted) + 1 else wanted[1:]
    if len(dims) != len(each) + 1 or any(w is not None and w != d for w, d in zip(each, dims[1:])):
        raise AgentError("model", f"input {name} takes samples of {each}, not {dims[1:]}", "reshape the data")
    size, there = np.dtype(info["dtype"]).itemsize, os.path.getsize(store.find(fed.get("sha256")))
    for d in dims:
        size *= d
    if size != there:
        raise AgentError("request", f"input {name}: {size} bytes of {dims}, the file has {there}", "")
    return dims
