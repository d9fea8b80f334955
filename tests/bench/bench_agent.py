"""What the agent itself costs: between two readings of the clock, for streams, to start, and in memory."""

from __future__ import annotations

import hashlib
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgelathe_agent.framing import pack, take
from edgelathe_agent.memory import rss_bytes
from edgelathe_agent.queries import Several, Single, Stream, block

pytestmark = pytest.mark.bench
PACKAGE = Path(__file__).parents[2] / "agent"
ROUNDS = 9


class Nothing:
    """An engine whose call does nothing."""

    def load(self, first: int) -> None: ...

    def stage(self) -> None: ...

    def run(self) -> None: ...

    def close(self) -> None: ...


def stream() -> Stream:
    return Stream(Nothing(), [Nothing()], 1, 1000)


def spread(values) -> str:
    p50, p99 = np.percentile(values, [50, 99])
    return f"p50 {p50 / 1e3:.2f} us, p99 {p99 / 1e3:.2f} us"


def test_between_two_readings_of_the_clock() -> None:
    done = block(Single(stream()), 0, calls=200_000, min_ms=0)
    per_call = done.wall_ns / len(done.times)
    print(f"\na call that does nothing is timed as {spread(done.times)} (goal < 2 us)")
    print(f"a turn of the loop, samples staged and clocks read: {per_call / 1e3:.2f} us")


@pytest.mark.parametrize("count", [2, 4])
def test_start_of_the_streams(count: int) -> None:
    several = Several([stream() for _ in range(count)], samples=count)
    done = block(several, 0, calls=20_000, min_ms=0)
    several.close()
    offline = Several([stream() for _ in range(count)], samples=20_000)
    many = block(offline, 0, calls=5, min_ms=0)
    offline.close()
    each = statistics.median(many.times) / 20_000
    print(f"\na query of one call that does nothing on each of {count} streams: {spread(done.times)}")
    print(f"a call of a query of 20000 over them, sample staged: {each / 1e3:.2f} us")


class Started:
    """An agent of its own process, and how long it took to greet."""

    def __init__(self, root: Path):
        begun, self._buffer, self._last = time.perf_counter(), bytearray(), 0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edgelathe_agent", "--root", str(root)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(PACKAGE)}, bufsize=0,
        )  # fmt: skip
        self._receive()
        self.seconds = time.perf_counter() - begun

    def ask(self, do: str, body: bytes = b"", **fields):
        self._last += 1
        self.process.stdin.write(pack({"id": self._last, "do": do, **fields}, body))
        head = self._receive().head
        assert head["ok"], head
        return head

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()

    def _receive(self):
        while (frame := take(self._buffer)) is None:
            self._buffer += os.read(self.process.stdout.fileno(), 1 << 20)
        return frame


def bare(program: str, *args: str) -> int:
    """Resident bytes of a Python that has run `program`."""
    code = program + "\nprint('ready', flush=True)\ninput()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    rss = rss_bytes(process.pid)
    process.communicate("\n")
    return rss


def test_greeting_and_memory(tmp_path: Path) -> None:
    seconds = []
    for _ in range(ROUNDS):
        agent = Started(tmp_path / "root")
        seconds.append(agent.seconds)
        rss = rss_bytes(agent.process.pid)
        agent.end()
    above = (rss - bare("")) / 1e6
    print(f"\nthe agent greets in {statistics.median(seconds):.3f} s, at worst {max(seconds):.3f} s (goal < 0.25 s)")
    print(f"its memory above a bare Python: {above:.1f} MB (goal < 15 MB)")


LOAD = """
import sys, numpy, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads = 1, 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
"""


def test_memory_of_a_session_above_the_runtimes(tmp_path: Path, data_dir: Path) -> None:
    model = data_dir / "cifar10_resnet8" / "model.onnx"
    data = model.read_bytes()
    name = hashlib.sha256(data).hexdigest()
    agent = Started(tmp_path / "root")
    agent.ask("put", data, sha256=name, size=len(data), offset=0)
    begun = time.perf_counter()
    head = agent.ask(
        "open", model=name, format="onnx", runtime="onnxruntime", provider="CPUExecutionProvider", threads=1, config={},
        cpus=[], cold=False, profile=False, limits={},
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    (child,) = Path(f"/proc/{agent.process.pid}/task/{agent.process.pid}/children").read_text().split()
    above = (rss_bytes(int(child)) - bare(LOAD, str(model))) / 1e6
    agent.end()
    code = "import time; t = time.perf_counter(); import onnxruntime; print(time.perf_counter() - t)"
    imports = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    rest = seconds - float(imports) - head["load_ms"] / 1e3
    print(f"\na session's memory above that of the same model in a bare program: {above:.1f} MB (goal < 15 MB)")
    print(f"opening it: {seconds:.3f} s; without the runtime's import and load: {rest:.3f} s")
