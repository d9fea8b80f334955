"""What all runners share: each reads one job, quantizes one model with its tool, and writes what that cost.

A runner is one process in the tool's own environment, so only the standard library and numpy are used here. Seconds and
memory are those of quantizing alone: the tool is imported and the samples are loaded before.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@dataclass(frozen=True, eq=False)
class Job:
    """One model to quantize: its file and input, samples [n, ...] float32, the file to write, the tool's options."""

    model: Path
    input: str
    samples: np.ndarray
    out: Path
    options: dict[str, Any]

    def feeds(self) -> list[dict[str, np.ndarray]]:
        """The samples one by one, as a runtime takes them."""
        return [{self.input: self.samples[i : i + 1]} for i in range(len(self.samples))]

    def scratch(self, name: str) -> str:
        """A file for what a tool writes on the way, beside the one it is to write."""
        return str(self.out.with_name(f"{self.out.stem}.{name}"))


class Reader:
    """The samples in the form of ONNX Runtime's `CalibrationDataReader`."""

    def __init__(self, job: Job) -> None:
        self._feeds = job.feeds()
        self.rewind()

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._rows, None)

    def rewind(self) -> None:
        self._rows = iter(self._feeds)

    def __len__(self) -> int:
        return len(self._feeds)

    def __iter__(self) -> Reader:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        if (row := self.get_next()) is None:
            raise StopIteration
        return row


def main(package: str, quantize: Callable[[Job], None]) -> None:
    """Do the job whose file is the first argument; the cost goes into the file that it names.

    Memory is the largest resident size while quantizing (VmHWM, not ru_maxrss: that one is inherited from the process
    that started this one) less the size before.
    """
    spec = json.loads(Path(sys.argv[1]).read_text())
    samples = np.load(spec["samples"])
    if repeat := spec["options"].pop("repeat", None):  # as many samples as wanted, which take no memory
        samples = np.broadcast_to(samples[:1], (repeat, *samples.shape[1:]))
    job = Job(Path(spec["model"]), spec["input"], samples, Path(spec["out"]), spec["options"])
    _CLEAR.write_text("5")  # the peak starts anew
    before = _kilobytes("VmRSS")
    start = time.perf_counter()
    quantize(job)
    seconds = time.perf_counter() - start
    found = {
        "seconds": seconds,
        "memory": 1024 * (_kilobytes("VmHWM") - before),
        "versions": {name: _version(name) for name in (package, "onnxruntime")},
    }
    Path(spec["cost"]).write_text(json.dumps(found))


def _kilobytes(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    assert found
    return int(found[1])


def _version(name: str) -> str:
    for kind in (name, f"{name}-gpu"):
        try:
            return importlib.metadata.version(kind)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "?"
