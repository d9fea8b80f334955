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
        self._rows = rows or 1
        self._bytes = self.buffer.nbytes // self._rows
        self._flat = self.buffer.reshape(-1).view(np.uint8).data
        self._fd = os.open(path, os.O_RDONLY)

    def load(self, first: int) -> None:
        """Fill the buffer with the samples from `first` on, cyclically."""
        done = 0
        while done < self._rows:
            at = (first + done) % self.n
            rows = min(self._rows - done, self.n - at)
            part = self._flat[done * self._bytes : (done + rows) * self._bytes]
            if os.preadv(self._fd, [part], at * self._bytes) != len(part):
                raise AgentError("corrupt", "a fed file became shorter", "send it again")
            done += rows

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


def batch_of(axes: Dict[str, Optional[int]], asked: int) -> int:
    """Samples of a call, by the batch axis of each input (None: open) and what is asked for (0: one, or what is fixed).

    Raises AgentError("model") when an input takes another number.
    """
    fixed = {name: axis for name, axis in axes.items() if axis is not None}
    if not asked:
        return max(fixed.values(), default=1)
    for name, axis in fixed.items():
        if axis != asked:
            what = f"input {name} takes batches of {axis}, not of {asked}"
            raise AgentError("model", what, "export the model with an open batch axis, or leave the batch out")
    return asked
