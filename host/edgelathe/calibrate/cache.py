"""Statistics of activations kept on disk by the hashes of model and samples: a second recipe runs the model no more.

One file an entry under the user's cache folder (`$XDG_CACHE_HOME/edgelathe/statistics`), compressed arrays without
pickled objects. A file that is not whole, or of another version, is forgotten and made anew; the folder's size is
bounded, the files unused for longest go first. `EDGELATHE_CACHE=off` does without.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelathe.calibrate.histogram import BINS, Histogram
from edgelathe.calibrate.statistics import COUNTED, Channels, Statistics
from edgelathe.core import files
from edgelathe.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from edgelathe.core.dataset import Dataset
    from edgelathe.model.types import Model

VERSION = 1  # of the files and of what they hold
MOST_BYTES = 128_000_000  # of all files together
_SWITCH = "EDGELATHE_CACHE"


@dataclass
class Known:
    """What is known of one model on one set of samples; what a caller adds is kept.

    `statistics` by tensor; `choices` small tables of numbers by a name that says what they are.
    """

    statistics: dict[str, Statistics] = field(default_factory=dict)
    choices: dict[str, list[list[float]]] = field(default_factory=dict)


def key(model: Model, data: Dataset) -> str:
    """Hash of the model's bytes, the samples (not their labels) and what else the statistics depend on."""
    found = hashlib.sha256(f"{VERSION} {COUNTED} {BINS} {model.sha256}".encode())
    for name, values in sorted(data.inputs.items()):
        found.update(f"{name} {values.dtype} {values.shape}".encode())
        for row in values:  # a view that repeats one sample is not spread out in memory
            found.update(np.ascontiguousarray(row).data)
    return found.hexdigest()


@contextlib.contextmanager
def opened(name: str) -> Iterator[Known]:
    """The entry `name`, empty where there is none; what was added to it is written when the block ends well."""
    path = _folder() / f"{name}.npz"
    on = os.environ.get(_SWITCH, "").lower() not in ("off", "0", "no")
    known = (_read(path) if on else None) or Known()
    before = len(known.statistics), len(known.choices), {n: s.channels is None for n, s in known.statistics.items()}
    yield known
    after = len(known.statistics), len(known.choices), {n: s.channels is None for n, s in known.statistics.items()}
    if on and after != before:
        with contextlib.suppress(OSError, UserError):  # a full or read-only disk costs time, not the result
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write(path, _pack(known))
            _bound(path.parent)


def _folder() -> Path:
    return files.cache_dir() / "statistics"


def _read(path: Path) -> Known | None:
    """The entry in a file; None where it is missing or cannot be used."""
    try:
        data = path.read_bytes()
        os.utime(path)
        return _unpack(data)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error, EOFError):
        return None


def _bound(folder: Path) -> None:
    """Remove the files unused for longest until the rest fits `MOST_BYTES`; what was just used stays."""
    seen = []
    for path in folder.glob("*.npz"):
        with contextlib.suppress(OSError):
            seen.append((path.stat().st_mtime, path.stat().st_size, path))
    seen.sort(reverse=True)
    total = 0
    for at, (_, size, path) in enumerate(seen):
        total += size
        if at and total > MOST_BYTES:
            with contextlib.suppress(OSError):
                path.unlink()


def _pack(known: Known) -> bytes:
    """An `.npz`: a JSON head, the counts of all histograms one after another, and the rows of all channels."""
    head: list[dict[str, Any]] = []
    counts: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    rows: list[NDArray[np.float64]] = [np.zeros((4, 0))]
    for s in known.statistics.values():
        c = s.channels
        head.append(
            {
                "name": s.name, "low": s.low, "high": s.high, "shape": list(s.shape), "samples": s.samples,
                "width": s.histogram.width, "first": s.histogram.first, "bins": len(s.histogram.counts),
                "channels": None if c is None else [c.axis, c.count, len(c.mean)],
            }
        )  # fmt: skip
        counts.append(s.histogram.counts)
        if c is not None:
            rows.append(np.stack([c.mean, c.m2, c.low, c.high]))
    text = json.dumps({"version": VERSION, "tensors": head, "choices": known.choices}).encode()
    out = io.BytesIO()
    np.savez_compressed(
        out, head=np.frombuffer(text, np.uint8), counts=np.concatenate(counts), rows=np.concatenate(rows, axis=1)
    )
    return out.getvalue()


def _unpack(data: bytes) -> Known:
    """The inverse of `_pack`. Raises ValueError, KeyError or BadZipFile for other bytes."""
    with np.load(io.BytesIO(data), allow_pickle=False) as z:
        head, counts, rows = json.loads(z["head"].tobytes()), z["counts"], z["rows"]
    if head["version"] != VERSION:
        raise ValueError("another version")
    out, at, channel = {}, 0, 0
    for t in head["tensors"]:
        histogram = Histogram(float(t["width"]), int(t["first"]), counts[at : at + t["bins"]])
        at += t["bins"]
        channels = None
        if t["channels"] is not None:
            axis, count, n = t["channels"]
            channels = Channels(axis, count, *rows[:, channel : channel + n])
            channel += n
        out[t["name"]] = Statistics(
            t["name"], float(t["low"]), float(t["high"]), histogram, tuple(t["shape"]), channels, int(t["samples"])
        )
    if at != len(counts) or channel != rows.shape[1]:
        raise ValueError("not whole")
    return Known(out, head["choices"])
