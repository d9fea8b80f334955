"""Models that leak, ask for too much or are stopped, and long silences: each is an answer, and no child is left."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgelathe_agent import memory
from edgelathe_agent.jobs import Job, Jobs

PACKAGE = Path(__file__).parents[2] / "agent" / "edgelathe_agent"


@pytest.fixture
def expand(onnx_model):
    """The sum of `count` floats, all in memory at once: `expand(count)`."""

    def build(count: int) -> bytes:
        return onnx_model(
            [("Expand", ["x", "shape"], ["big"], {}), ("ReduceSum", ["big"], ["y"], {"keepdims": 0})],
            {"x": ("FLOAT", [1])}, {"y": ("FLOAT", [])}, {"shape": np.array([count], np.int64)},
        )  # fmt: skip

    return build


@pytest.fixture
def small_group():
    """A control group with 200 MB: `small_group(pid)` puts a process there; gone with the test."""
    found = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    version1 = Path("/sys/fs/cgroup/memory" + found.get("memory", "/none"))
    group = version1 / f"edgelathe-test-{os.getpid()}"
    limit = group / "memory.limit_in_bytes"
    if not version1.is_dir():
        unified = Path("/sys/fs/cgroup")
        group, limit = unified / group.name, unified / group.name / "memory.max"
    try:
        group.mkdir()
        limit.write_text(str(200 << 20))
    except OSError as e:
        pytest.skip(f"NO CONTROL GROUP WITH A LIMIT MAY BE MADE HERE: {e}")
    yield lambda pid: (group / "cgroup.procs").write_text(str(pid))
    group.rmdir()


def test_a_child_that_the_kernel_ended_for_want_of_memory_is_told_from_other_deaths(agent, expand, small_group):
    if memory.oom_kills() is None:
        pytest.skip("THIS KERNEL DOES NOT COUNT WHOM IT KILLS")
    agent.open(expand(400_000_000))
    (child,) = agent.children()
    agent.feed(1, x=np.ones((1, 1), np.float32))
    small_group(child)
    error = agent.refused("infer", session=1, first=0, count=1)
    assert error["kind"] == "memory"
    assert "the kernel ran out of memory" in error["what"]
    assert agent.children() == []
    assert agent.ask("have", sha256=[]).head["ok"]


def test_an_allocation_beyond_what_there_is_is_an_answer_and_the_session_stays(agent, expand):
    agent.open(expand(1 << 50))  # more than there are addresses
    agent.feed(1, x=np.ones((1, 1), np.float32))
    for _ in range(2):
        error = agent.refused("infer", session=1, first=0, count=1)
        assert error["kind"] == "memory", error
        assert error["what"].startswith("not enough memory on the device: ")
        assert "smaller" in error["mend"]
    assert len(agent.children()) == 1


def test_a_model_that_grows_while_it_is_timed_is_ended_at_its_limit(agent, expand):
    agent.open(expand(300_000_000), limits={"memory_bytes": 300 << 20, "seconds": 60})
    agent.feed(1, x=np.ones((1, 1), np.float32))
    error = agent.refused("time", session=1, min_ms=60_000)
    assert error["kind"] == "memory"
    assert f"{300 << 20} allowed" in error["what"]
    assert agent.children() == []


@pytest.mark.parametrize("asked", [{"samples": 1 << 30}, {"calls": 1 << 40}])
def test_a_query_that_never_ends_is_ended_at_its_limit_streams_and_all(agent, linear, asked):
    agent.open(linear, limits={"call_seconds": 1})
    agent.feed(1, x=np.ones((4, 4), np.float32), streams=3)
    error = agent.refused("time", session=1, **asked)
    assert (error["kind"], "1 s" in error["what"]) == ("time", True)
    assert agent.children() == []


def test_what_it_was_to_run_for_does_not_count_against_its_limit(agent, linear):
    agent.open(linear, limits={"call_seconds": 2})
    agent.feed(1, x=np.ones((1, 4), np.float32))
    assert agent.ask("time", session=1, min_ms=2200).head["ok"]
    assert agent.ask("time", session=1, calls=5, period_ms=550).head["ok"]


def test_the_host_is_told_of_a_model_that_hangs_before_it_is_ended(agent, linear):
    agent.open(linear, limits={"call_seconds": 14})
    agent.feed(1, x=np.ones((1, 4), np.float32))
    (child,) = agent.children()
    os.kill(child, signal.SIGSTOP)
    error = agent.refused("infer", session=1, first=0, count=1)
    assert (error["kind"], "14 s" in error["what"]) == ("time", True)
    assert {e.partition(",")[0] for e in agent.events} == {"the model has not answered yet"}
    assert agent.children() == []


def test_a_child_that_was_stopped_for_a_while_answers_and_its_processor_time_shows_it(agent, linear):
    agent.open(linear)
    agent.feed(1, x=np.ones((1, 4), np.float32))
    (child,) = agent.children()
    idle = processor_s(child)
    agent.send("time", session=1, min_ms=1500)
    while processor_s(child) < idle + 0.1:  # until it is in the middle of it
        time.sleep(0.01)
    os.kill(child, signal.SIGSTOP)
    time.sleep(0.3)
    os.kill(child, signal.SIGCONT)
    frame = agent.answer()
    assert frame.head["wall_ns"] - frame.head["cpu_ns"] > 290e6
    before, after = (frame.head["conditions"][k]["time_ns"] for k in ("before", "after"))
    assert set(before) == {"wall", "monotonic", "boot"}
    assert all(after[k] - before[k] > 1400e6 for k in ("monotonic", "boot"))


def processor_s(pid: int) -> float:
    """Seconds of processor time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def test_nothing_is_timed_by_a_clock_that_can_jump():
    """Wall time is for the age of files, for what outlives a boot, and to be reported beside the other clocks."""
    users = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("time.time", "time.time_ns"):
                users.add(path.name)
    assert users <= {"cas.py", "tidy.py", "tune.py", "sensors.py"}


def test_a_long_silence_is_filled_with_what_goes_on(start, tmp_path):
    """The runtime is one of ours here: it says what it does, as those do that build engines."""
    slow, loaded, built = tmp_path / "slow" / "ai_edge_litert", tmp_path / "loaded", tmp_path / "built"
    slow.mkdir(parents=True)
    (slow / "__init__.py").write_text("__version__ = '1'\n")
    (slow / "interpreter.py").write_text(
        "import os, time\nfrom edgelathe_agent.progress import say\n"
        f"while not os.path.exists({str(loaded)!r}):\n    time.sleep(0.01)\n"
        "say('building an engine for this device')\n"
        f"while not os.path.exists({str(built)!r}):\n    time.sleep(0.01)\n"
        "raise ImportError('no such kernel')\n"
    )
    agent = start(env={"PYTHONPATH": f"{PACKAGE.parent}{os.pathsep}{slow.parent}"})
    agent.send("open", model=agent.put(b"x"), runtime="ai-edge-litert", format="tflite", provider="CPU")
    said = [(head := agent.receive().head)["what"]]
    loaded.touch()
    while "event" in (head := agent.receive().head):
        said.append(head["what"])
        if said[-1].startswith("building"):
            built.touch()
    assert "no such kernel" in head["error"]["what"]
    assert list(dict.fromkeys(e.partition(",")[0] for e in said)) == [
        "ai-edge-litert loads the model", "building an engine for this device",
    ]  # fmt: skip
    assert all(e.endswith("s so far") for e in said)


def test_what_a_child_has_started_ends_with_it(tmp_path):
    code = (
        "import subprocess, sys; from edgelathe_agent.jobs import leash\n"
        "p = subprocess.Popen(['sleep', '60'], preexec_fn=leash()); print(p.pid, flush=True); p.wait()"
    )
    env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env)
    grandchild = int(child.stdout.readline())
    child.kill()
    child.communicate()
    for _ in range(6000):
        if not Path(f"/proc/{grandchild}").exists() or ") Z " in Path(f"/proc/{grandchild}/stat").read_text():
            break
        time.sleep(0.01)
    else:
        pytest.fail("it lives on")


def test_a_death_without_a_reason_is_a_crash(monkeypatch):
    jobs = Jobs(os.pipe()[0])
    job: Job = jobs.start(["sleep", "60"])
    os.kill(job.pid, signal.SIGKILL)
    with pytest.raises(Exception, match="SIGKILL") as caught:
        jobs.wait(job)
    assert caught.value.kind == "crash"
