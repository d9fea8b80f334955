"""Outputs of an evaluation that was cut off, on the host's disk, so that the next one goes on from there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.files import cache_dir

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Array = NDArray[np.generic]

#: After so many seconds what was measured says nothing of the device as it is now.
STALE = 7 * 24 * 3600.0


class Partial:
    """Blocks of outputs [count, ...] of one model's first output, in order, as `.npy` records one after the other.

    `key` is all that the outputs depend on: model, samples and their order, device, runtime and its options. A record
    that was not written whole, because the host was switched off, is left out. Of two that run at once with one key,
    the first to write keeps the file; the other writes nothing.

    Attributes:
        path: the file while it is added to.
        done: its name once the evaluation has ended: what others are to be compared with need not be measured again.
    """

    def __init__(self, key: Mapping[str, object]) -> None:
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        self.path = cache_dir() / "eval" / f"{name}.npys"
        self.done = self.path.with_suffix(".done")
        self._size: int | None = 0  # of the file as it was read and added to; None: another one writes it

    @property
    def ended(self) -> bool:
        """Whether nothing is to be added: it came to its end, and others of the same command were cut off."""
        return self.done.exists()

    def load(self) -> list[Array]:
        """The blocks so far; none where nothing was cut off, or too long ago."""
        path = self.done if self.ended else self.path
        try:
            if time.time() - path.stat().st_mtime > STALE:
                self.remove()
                return []
            blocks = _read(path)
            self._size = path.stat().st_size
            return blocks
        except OSError:
            return []

    def append(self, block: Array) -> None:
        """One more block, on disk when it returns. A disk that is full costs the resumption, not the evaluation."""
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as f:
                if f.tell() != self._size:
                    self._size = None
                    return
                np.save(f, block, allow_pickle=False)
                self._size = f.tell()

    def end(self) -> None:
        """It came to its end."""
        if self._size is None:
            return
        with contextlib.suppress(OSError):  # it was not on disk
            self.path.rename(self.done)

    def remove(self) -> None:
        """Nothing is left of it."""
        if self._size is None:
            return
        self._size = 0
        self.path.unlink(missing_ok=True)
        self.done.unlink(missing_ok=True)


def _read(path: Path) -> list[Array]:
    blocks: list[Array] = []
    with path.open("r+b") as f:
        while True:
            whole = f.tell()
            try:
                blocks.append(np.load(f, allow_pickle=False))
            except (EOFError, ValueError, OSError):
                f.truncate(whole)
                return blocks
