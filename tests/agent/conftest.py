"""An agent at the other end of two pipes, and small models for it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgelathe_agent.framing import Frame, pack, take

PACKAGE = Path(__file__).parents[2] / "agent"


#: What most tests leave at its least.
DEFAULTS = {
    "open": {
        "format": "onnx", "runtime": "onnxruntime", "provider": "CPUExecutionProvider", "threads": 1, "config": {},
        "beside": [], "cpus": [], "cold": False, "profile": False, "limits": {"seconds": 60, "call_seconds": 60},
    },
    "feed": {"batch": 0, "streams": 1},
    "time": {"first": 0, "calls": 1, "min_ms": 0, "samples": 0, "period_ms": 0, "meters": []},
    "watch": {"meters": []},
    "tune": {"keep": False, "seconds": 0},
}  # fmt: skip


class Agent:
    """A started agent; `ask` gives the answer's frame, `refused` the error of a bad one."""

    def __init__(self, root: Path, argv: list[str] | None = None, env: dict[str, str] | None = None, **how):
        self.root, self.events, self._last, self._buffer = root, [], 0, bytearray()
        argv = argv or [sys.executable, "-m", "edgelathe_agent"]
        env = {**os.environ, "PYTHONPATH": str(PACKAGE), **(env or {})}
        self.process = subprocess.Popen(
            [*argv, "--root", str(root)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, bufsize=0, **how,
        )  # fmt: skip
        self.hello = self.receive().head

    def receive(self) -> Frame:
        while (frame := take(self._buffer)) is None:
            data = os.read(self.process.stdout.fileno(), 1 << 20)
            if not data:
                raise EOFError(self.process.stderr.read().decode())
            self._buffer += data
        return frame

    def send(self, do: str, body: bytes = b"", **fields) -> int:
        self._last += 1
        self.process.stdin.write(pack({"id": self._last, "do": do, **DEFAULTS.get(do, {}), **fields}, body))
        return self._last

    def answer(self) -> Frame:
        while "event" in (frame := self.receive()).head:
            self.events.append(frame.head["what"])
        return frame

    def ask(self, do: str, body: bytes = b"", **fields) -> Frame:
        number = self.send(do, body, **fields)
        frame = self.answer()
        assert frame.head["id"] == number
        assert frame.head["ok"], frame.head
        return frame

    def refused(self, do: str, body: bytes = b"", **fields) -> dict[str, str]:
        self.send(do, body, **fields)
        head = self.answer().head
        assert not head["ok"]
        return head["error"]

    def put(self, data: bytes, chunk: int = 1 << 20) -> str:
        name = hashlib.sha256(data).hexdigest()
        for at in range(0, max(len(data), 1), chunk):
            done = self.ask("put", data[at : at + chunk], sha256=name, size=len(data), offset=at).head["done"]
        assert done
        return name

    def open(self, model: bytes, runtime: str = "onnxruntime", **more) -> dict:
        fields = {} if runtime == "onnxruntime" else {"format": "tflite", "provider": "CPU"}
        return self.ask("open", model=self.put(model), runtime=runtime, **{**fields, **more}).head

    def feed(self, session: int, batch: int = 0, streams: int = 1, **arrays: np.ndarray) -> int:
        inputs = {
            k: {"sha256": self.put(a.tobytes()), "dtype": a.dtype.name, "shape": list(a.shape)}
            for k, a in arrays.items()
        }
        return self.ask("feed", session=session, inputs=inputs, batch=batch, streams=streams).head["samples"]

    def infer(self, session: int, count: int, first: int = 0) -> list[np.ndarray]:
        frame, at, out = self.ask("infer", session=session, first=first, count=count), 0, []
        for info in frame.head["outputs"]:
            size = int(np.prod(info["shape"])) * np.dtype(info["dtype"]).itemsize
            out.append(np.frombuffer(frame.body[at : at + size], info["dtype"]).reshape(info["shape"]))
            at += size
        assert at == len(frame.body)
        return out

    def children(self) -> list[int]:
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in found.split()]

    def end(self) -> int:
        self.process.stdin.close()
        code = self.process.wait(120)
        self.process.stdout.close()
        self.process.stderr.close()
        return code


@pytest.fixture
def start(tmp_path):
    """Start agents on one root; each is ended with the test."""
    agents = []

    def one(*args, root: Path = tmp_path / "root", **how) -> Agent:
        agents.append(Agent(root, *args, **how))
        return agents[-1]

    yield one
    for agent in agents:
        agent.process.kill()
        agent.end()


@pytest.fixture
def agent(start):
    return start()


@pytest.fixture(scope="session")
def archive(tmp_path_factory) -> Path:
    """The package as one zip that Python runs, as the host makes it."""
    path = tmp_path_factory.mktemp("archive") / "agent.pyz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for source in sorted((PACKAGE / "edgelathe_agent").rglob("*.py")):
            z.write(source, str(source.relative_to(PACKAGE)))
        z.writestr("__main__.py", "from edgelathe_agent.__main__ import run\n\nrun()\n")
    return path


@pytest.fixture(scope="session")
def onnx_model():
    """ONNX bytes of one graph: `onnx_model(nodes, inputs, outputs, constants)`, values as {name: (dtype, shape)}."""
    from onnx import TensorProto, helper, numpy_helper

    def build(nodes, inputs, outputs, constants=()) -> bytes:
        def info(values):
            return [helper.make_tensor_value_info(n, TensorProto.DataType.Value(t), s) for n, (t, s) in values.items()]

        tensors = [numpy_helper.from_array(value, name) for name, value in dict(constants).items()]
        graph = helper.make_graph(
            [helper.make_node(*n[:3], **n[3]) for n in nodes], "g", info(inputs), info(outputs), tensors
        )
        opset = [helper.make_opsetid("", 13)]
        return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()

    return build


@pytest.fixture(scope="session")
def linear(onnx_model):
    """y = x W, any batch, 4 -> 3."""
    w = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    return onnx_model(
        [("MatMul", ["x", "w"], ["y"], {})], {"x": ("FLOAT", ["n", 4])}, {"y": ("FLOAT", ["n", 3])}, {"w": w}
    )
