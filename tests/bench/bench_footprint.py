"""What the agent costs by itself: until it answers, and in memory, against a bare Python and a bare runtime."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import pytest

import edgelathe
from edgelathe.core.device import SessionOptions, Target
from edgelathe.device.open import Device, open_device
from edgelathe.model import io

pytestmark = pytest.mark.bench

ROUNDS = 9
MODEL = Path(edgelathe.__file__).parent / "bundled" / "digits.onnx"

#: The same model in the same runtime as the agent's child, and nothing else; it waits until its stdin is closed.
RUNTIME = f"""
import gc, os, sys, time
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
begun = time.perf_counter()
import numpy as np, onnxruntime as ort
print(time.perf_counter() - begun, flush=True)
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession({str(MODEL)!r}, options, providers=["CPUExecutionProvider"])
session.run(None, {{"input": np.zeros((1, 8, 8, 1), np.float32)}})
gc.collect()
print("ready", flush=True)
sys.stdin.read()
"""
BARE = "import sys; print('ready', flush=True); sys.stdin.read()"


@contextmanager
def python(code: str, words: int = 1) -> Iterator[tuple[int, list[str]]]:
    """A bare Python: its process, and its first words."""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    try:
        yield process.pid, [process.stdout.readline() for _ in range(words)]
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


@contextmanager
def agent(tmp_path: Path) -> Iterator[Device]:
    with open_device(Target("local", "local", root=str(tmp_path / "root"))) as device:
        yield device


def memory(pid: int) -> tuple[int, int]:
    """Resident bytes, and those of no other process (smaps_rollup, proc(5))."""
    fields = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, size = line.split()[:2]
        fields[name] = int(size) * 1024
    return fields["Rss:"], fields["Private_Clean:"] + fields["Private_Dirty:"]


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_handshake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From nothing to an agent that has answered; and to a session, beside what the runtime itself takes."""
    model, options = io.load(MODEL), SessionOptions("onnxruntime", "CPUExecutionProvider")
    times: dict[str, list[float]] = {"bare": [], "agent": [], "runtime": [], "session": []}
    with agent(tmp_path) as device:
        device.open_session(model, options).close()
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        with python(BARE):
            times["bare"].append(time.perf_counter() - begun)
        begun = time.perf_counter()
        with agent(tmp_path) as device:
            device.client.request("have", {"sha256": []})
            times["agent"].append(time.perf_counter() - begun)
            device.probe  # noqa: B018  # asked once, and not what is timed here
            begun = time.perf_counter()
            with device.open_session(model, options) as session:
                times["session"].append(time.perf_counter() - begun - session.load_ms / 1000)
        with python(RUNTIME, 2) as (_, words):
            times["runtime"].append(float(words[0]))
    found = {name: median(values) for name, values in times.items()}
    with capsys.disabled():
        print(
            f"\nhandshake {found['agent']:.3f} s (a bare Python answers after {found['bare']:.3f} s); a session without"
            f" its model {found['session']:.3f} s, of which the runtime's import {found['runtime']:.3f} s"
        )
    assert found["agent"] < 0.25
    assert found["session"] < 0.25 + found["runtime"]


def test_own_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, options = io.load(MODEL), SessionOptions("onnxruntime", "CPUExecutionProvider")
    sample = {model.signature.inputs[0].name: np.zeros((1, 8, 8, 1), np.float32)}
    above: dict[str, list[float]] = {"agent": [], "child": [], "all": []}
    for _ in range(3):
        with (
            python(BARE) as (bare, _), python(RUNTIME, 2) as (runtime, _),
            agent(tmp_path) as device, device.open_session(model, options) as session,
        ):  # fmt: skip
            session.feed(sample)
            session.time(1)
            pid = int(str(device.client.hello["pid"]))
            (child,) = children(pid)
            parts = [memory(p) for p in (bare, runtime, pid, child)]
        rss, own = zip(*parts, strict=True)
        above["agent"].append(rss[2] - rss[0])
        above["child"].append(rss[3] - rss[1])
        above["all"].append(own[2] + own[3] - own[1])
    found = {name: median(values) / 1e6 for name, values in above.items()}
    with capsys.disabled():
        print(
            f"\nmemory: the agent {found['agent']:.1f} MB above a bare Python, its child {found['child']:.1f} MB above "
            f"the bare runtime with the same model; private to both, above that of the runtime: {found['all']:.1f} MB"
        )
    assert found["agent"] + max(found["child"], 0.0) < 15
    assert found["all"] < 15
