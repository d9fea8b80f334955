"""One quantization in a process of its own, in the environment of its tool."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.peers.catalogue import Options, Peer

# No tool reports its use; what NNCF and Olive heed is a name for being in a CI.
_SILENT = {"CI": "true", "OLIVE_DISABLE_TELEMETRY": "1"}


@dataclass(frozen=True)
class Made:
    """A quantized file, or why there is none.

    `seconds` of quantizing; `memory` in bytes, the peak above the process with its imports and samples; `versions` of
    the tool and of its runtime; `session` entries that the file wants.
    """

    path: Path | None
    why: str = ""
    seconds: float = 0.0
    memory: int = 0
    versions: Mapping[str, str] | None = None
    session: Mapping[str, str] | None = None

    @property
    def bytes(self) -> int:
        """Of the file, and of what its tool put beside it as external data."""
        return sum(f.stat().st_size for f in self.path.parent.glob(f"{self.path.name}*")) if self.path else 0


@dataclass(frozen=True)
class Source:
    """What is quantized: a model file, its input's name, and the file of its calibration samples [n, ...]."""

    name: str
    model: Path
    input: str
    samples: Path


def make(python: Path, peer: Peer, options: Options, source: Source, folder: Path, limit_s: float) -> Made:
    """Run the peer's script once, or take what an earlier run of the same job left in `folder`."""
    spec = {"model": str(source.model), "input": source.input, "samples": str(source.samples), "options": options}
    told = {"runner": peer.runner, "requires": peer.requires, "name": source.name, "options": options}
    name = f"{Path(peer.runner).stem}-{hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]}"
    out, cost, job = (folder / f"{name}.{kind}" for kind in ("onnx", "cost", "job"))
    if not (out.exists() and cost.exists()):
        job.write_text(json.dumps({**spec, "out": str(out), "cost": str(cost)}))
        script = Path(__file__).with_name(peer.runner)
        log = folder / f"{name}.log"
        try:
            with log.open("w") as sink:
                done = subprocess.run(
                    [str(python), str(script), str(job)], stdout=sink, stderr=subprocess.STDOUT, timeout=limit_s,
                    cwd=folder, env=os.environ | _SILENT, check=False,
                )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Made(None, f"more than {limit_s:.0f} s")
        if done.returncode or not (out.exists() and cost.exists()):
            return Made(None, _last_words(log.read_text(errors="replace")) or f"exit {done.returncode}")
    found, session = json.loads(cost.read_text()), out.with_suffix(".session.json")
    return Made(
        out, "", found["seconds"], found["memory"], found["versions"],
        json.loads(session.read_text()) if session.exists() else {},
    )  # fmt: skip


def _last_words(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1][:160] if lines else ""
