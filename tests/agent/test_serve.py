from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgelathe_agent.framing import MAGIC, front, pack
from edgelathe_agent.protocol import MAX_REQUEST, PROTOCOL, VERBS


def gone(pid: int, seconds: float = 60) -> bool:
    """Whether a process ends within that time; a zombie is gone."""
    for _ in range(int(seconds * 100)):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_the_agent_greets_first(agent, tmp_path):
    hello = agent.hello
    assert (hello["hello"], hello["protocol"], hello["root"]) == (1, PROTOCOL, str(tmp_path / "root"))
    assert hello["python"] == ".".join(map(str, sys.version_info[:3]))
    assert hello["machine"] == os.uname().machine
    assert hello["pid"] == agent.process.pid
    assert "onnxruntime" in hello["runtimes"]


def traced(agent, model: bytes, inputs: dict) -> dict:
    number = agent.open(model, profile=True)["session"]
    agent.ask("feed", session=number, inputs=inputs)
    return agent.ask("trace", session=number, first=0, calls=1).head


def test_answers_have_the_fields_of_the_table_and_no_others(agent, linear):
    session = agent.open(linear)
    name = agent.put(np.zeros((2, 4), np.float32).tobytes())
    inputs = {"x": {"sha256": name, "dtype": "float32", "shape": [2, 4]}}
    answers = {
        "probe": agent.ask("probe").head, "sense": agent.ask("sense").head, "open": session,
        "have": agent.ask("have", sha256=[name]).head, "remove": agent.ask("remove", sha256=["0" * 64]).head,
        "put": agent.ask("put", b"", sha256=name, size=32, offset=0).head,
        "feed": agent.ask("feed", session=1, inputs=inputs).head,
        "time": agent.ask("time", session=1, first=0, calls=1, min_ms=0).head,
        "infer": agent.ask("infer", session=1, first=0, count=1).head,
        "watch": agent.ask("watch", seconds=0).head, "tune": agent.ask("tune", on=False).head,
        "trace": traced(agent, linear, inputs), "close": agent.ask("close", session=1).head,
        "install": agent.ask("install", requirements=[], wheels=[]).head,
        "wipe": agent.ask("wipe").head,
    }  # fmt: skip
    assert {v: set(a) - {"id", "ok"} for v, a in answers.items()} == {v: set(VERBS[v].answer) for v in VERBS}


def test_requests_sent_ahead_are_answered_in_order(agent):
    numbers = [agent.send("have", sha256=[]) for _ in range(200)]
    assert [agent.answer().head["id"] for _ in numbers] == numbers


def test_what_is_wrong_is_answered_and_the_agent_lives_on(agent):
    assert agent.refused("fly")["kind"] == "request"
    assert agent.refused("have", sha256="x")["kind"] == "request"
    assert agent.refused("have", sha256=["../x"])["kind"] == "request"
    assert agent.refused("infer", session=9, first=0, count=1)["kind"] == "missing"
    assert agent.refused("feed", session=9, inputs={"x": 1})["kind"] == "request"
    missing = agent.refused("open", model="0" * 64)
    assert (missing["kind"], "0" * 64 in missing["what"]) == ("missing", True)
    assert agent.refused("open", model="0" * 64, runtime="caffe")["kind"] == "request"
    assert agent.refused("open", model="0" * 64, runtime="tflite-runtime")["kind"] == "request"
    assert agent.ask("have", sha256=[]).head["sizes"] == {}


def test_a_payload_that_is_too_large_is_read_over(agent):
    size = MAX_REQUEST + 1
    agent.process.stdin.write(front({"id": 5, "do": "put", "sha256": "0" * 64, "size": size, "offset": 0}, size))
    agent.process.stdin.write(bytes(size) + pack({"id": 6, "do": "have", "sha256": []}))
    refused, answered = agent.receive().head, agent.receive().head
    assert (refused["id"], refused["error"]["kind"]) == (5, "request")
    assert (answered["id"], answered["ok"]) == (6, True)


@pytest.mark.parametrize(
    "noise", [b"GET / HTTP/1.1\r\n\r\n", MAGIC + struct.pack(">IQ", 1 << 31, 0), pack({"do": "sense"})]
)
def test_a_stream_out_of_step_ends_the_agent_with_a_reason(agent, noise):
    agent.process.stdin.write(noise)
    last = agent.receive().head
    assert (last["id"], last["ok"]) == (None, False)
    assert agent.process.wait(120) == 1
    assert agent.process.stderr.read().startswith(b"edgelathe agent: ")


def test_closed_stdin_ends_the_agent_and_its_children_in_the_middle_of_a_call(agent, linear):
    agent.open(linear)
    agent.feed(1, x=np.zeros((1, 4), np.float32))
    children = agent.children()
    agent.send("time", session=1, first=0, calls=1, min_ms=60_000)
    assert len(children) == 1
    assert agent.end() == 0
    assert gone(children[0])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_killed_agent_leaves_no_child(agent, linear, number):
    agent.open(linear)
    agent.feed(1, x=np.zeros((1, 4), np.float32))
    (child,) = agent.children()
    agent.send("time", session=1, first=0, calls=1, min_ms=60_000)
    agent.process.send_signal(number)
    assert agent.process.wait(120) != 0
    assert gone(child)


def test_ctrl_c_on_the_host_is_not_the_agents(agent):
    agent.process.send_signal(signal.SIGINT)
    assert agent.ask("have", sha256=[]).head["ok"]


def test_a_host_that_reads_no_more_ends_the_agent(agent):
    agent.process.stdout.close()
    agent.send("sense")
    assert agent.process.wait(120) == 0


def test_prints_of_a_library_do_not_reach_the_frames(start, tmp_path):
    noisy = tmp_path / "noisy"
    noisy.mkdir()
    (noisy / "sitecustomize.py").write_text("import atexit, sys\natexit.register(print, 'bye')\n")
    (noisy / "ai_edge_litert").mkdir()
    (noisy / "ai_edge_litert" / "__init__.py").write_text(
        "import os\nprint('hello')\nos.write(1, b'there')\n__version__ = '1'\n"
    )
    (noisy / "ai_edge_litert" / "interpreter.py").write_text("Interpreter = None\n")
    package = Path(__file__).parents[2] / "agent"
    agent = start(env={"PYTHONPATH": f"{package}{os.pathsep}{noisy}"})
    assert {"name": "ai-edge-litert", "version": "1", "providers": ["CPU"]} in agent.ask("probe").head["runtimes"]
    assert agent.end() == 0


def test_it_runs_from_one_small_archive_and_so_do_its_children(start, archive, linear, tmp_path):
    assert archive.stat().st_size < 120_000
    agent = start([sys.executable, str(archive)], env={"PYTHONPATH": ""})
    assert agent.open(linear)["session"] == 1
    x = np.ones((1, 4), np.float32)
    agent.feed(1, x=x)
    assert agent.infer(1, 1)[0].shape == (1, 3)
    assert agent.end() == 0


def test_archives_that_no_agent_runs_from_are_removed(start, archive, tmp_path):
    folder = tmp_path / "root" / "agent"
    folder.mkdir(parents=True)
    for age, name in enumerate(("newer.pyz", "new.pyz", "busy.pyz", "old.pyz")):
        (folder / name).write_bytes(archive.read_bytes())
        os.utime(folder / name, (0, 10_000 - age))
    busy = start([sys.executable, str(folder / "busy.pyz")])
    busy.ask("have", sha256=[])
    assert not (folder / "old.pyz").exists()
    (folder / "broken.pyz.77").write_bytes(b"")
    os.utime(folder / "broken.pyz.77", (0, 0))
    new = start([sys.executable, str(folder / "new.pyz")])
    new.ask("have", sha256=[])
    assert sorted(p.name for p in folder.iterdir()) == ["busy.pyz", "new.pyz", "newer.pyz"]


def test_wipe_leaves_nothing_of_ours_and_all_else(start, tmp_path, linear):
    root = tmp_path / "root"
    agent = start()
    agent.put(linear)
    (root / "agent").mkdir()
    (root / "agent" / "x.pyz").write_bytes(b"")
    (root / "letters").mkdir()
    (root / "letters" / "mine.txt").write_text("keep")
    answer = agent.ask("wipe").head
    assert (answer["removed"], answer["left"]) == (2, ["letters"])
    assert agent.process.wait(120) == 0
    assert [p.name for p in root.rglob("*")] == ["letters", "mine.txt"]
    (root / "letters" / "mine.txt").unlink()
    (root / "letters").rmdir()
    assert start().ask("wipe").head["left"] == []
    assert not root.exists()


def test_nothing_is_written_outside_the_root(start, tmp_path, linear):
    home = tmp_path / "home"
    home.mkdir()
    agent = start(env={"HOME": str(home), "TMPDIR": str(home)}, cwd=home)
    agent.open(linear)
    agent.ask("probe")
    agent.ask("wipe")
    assert list(home.iterdir()) == []


def test_the_default_root_is_in_the_users_data_folder(tmp_path):
    package = Path(__file__).parents[2] / "agent"
    env = {**os.environ, "PYTHONPATH": str(package), "HOME": str(tmp_path)}
    out = subprocess.run(
        [sys.executable, "-m", "edgelathe_agent"], input=b"", capture_output=True, env=env, check=True
    ).stdout
    assert f'"root":"{tmp_path}/.local/share/edgelathe-agent"'.encode() in out


def test_unknown_arguments_are_refused_with_the_usage():
    package = Path(__file__).parents[2] / "agent"
    env = {**os.environ, "PYTHONPATH": str(package)}
    p = subprocess.run(
        [sys.executable, "-m", "edgelathe_agent", "--port", "1"], capture_output=True, env=env, check=False
    )
    assert (p.returncode, p.stdout) == (2, b"")
    assert p.stderr.startswith(b"usage:")
