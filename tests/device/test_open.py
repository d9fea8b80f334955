"""One open device, local and over ssh: the same agent, the same answers."""

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest

from edgelathe.core.device import SessionOptions, Target
from edgelathe.core.errors import UserError
from edgelathe.device.errors import AgentRefusal, ConnectionLost, ModelFailure
from edgelathe.device.open import open_device, resolve
from edgelathe.device.session import Closed, Limits, Load
from edgelathe.measure.interleave import BenchPlan, bench
from edgelathe.measure.stream import evaluate
from edgelathe.model.types import Model
from edgelathe_agent.protocol import CHUNK
from support.sshd import children, gone

CPU = SessionOptions("onnxruntime", "CPUExecutionProvider")
LITERT = SessionOptions("ai-edge-litert", "CPU")


@pytest.fixture(params=["local", "ssh"])
def target(request):
    return request.getfixturevalue({"local": "local", "ssh": "board"}[request.param])


def test_a_second_push_sends_nothing(target, tmp_path):
    data = os.urandom(2 * CHUNK + 17)
    (tmp_path / "file").write_bytes(data)
    with open_device(target) as device:
        assert device.push(data) == hashlib.sha256(data).hexdigest()
        assert device.client.sent_bytes == len(data)
        device.push(data)
        device.push(tmp_path / "file")
    with open_device(target) as device:
        device.push(tmp_path / "file")
        assert device.client.sent_bytes == 0
        empty = tmp_path / "empty"
        empty.touch()
        assert device.push(empty) == device.push(b"") == hashlib.sha256(b"").hexdigest()
        with pytest.raises(UserError, match="missing: cannot be read"):
            device.push(tmp_path / "missing")


def test_a_broken_transfer_is_taken_up(board, server):
    data = os.urandom(6 * CHUNK)
    sha = hashlib.sha256(data).hexdigest()
    with open_device(board) as device:
        channel, sent = device.client._channel, []
        write = channel.write

        def until_the_fourth_chunk(part):
            sent.append(len(part))
            if sent.count(CHUNK) > 3:
                server.cut()
            write(part)

        channel.write = until_the_fourth_chunk
        with pytest.raises(ConnectionLost):
            device.push(data)
    assert gone(board.root)
    with open_device(board) as device:
        have = device.client.request("have", {"sha256": [sha]}).head
        there = have["partial"].get(sha, 0)
        assert 0 < there < len(data)
        device.push(data)
        assert device.client.sent_bytes == len(data) - there
        assert device.client.request("have", {"sha256": [sha]}).head["sizes"] == {sha: len(data)}


def test_a_damaged_rest_of_a_transfer_is_sent_anew(local, tmp_path):
    data = os.urandom(2 * CHUNK)
    sha = hashlib.sha256(data).hexdigest()
    with open_device(local) as device:
        partial = tmp_path / "local-root" / "cas" / "partial" / sha
        partial.parent.mkdir(parents=True)
        partial.write_bytes(b"x" * CHUNK)
        device.push(data)
        assert device.client.sent_bytes == 3 * CHUNK
        assert device.client.request("have", {"sha256": [sha]}).head["sizes"] == {sha: len(data)}


@pytest.mark.parametrize(("options", "name"), [(CPU, "digits"), (LITERT, "digits_tflite")])
def test_outputs_over_ssh_are_those_of_the_local_device(options, name, local, board, samples, request):
    model, x = request.getfixturevalue(name), samples[:40].astype(np.float32)
    answers = []
    for target in (local, board):
        with open_device(target) as device, device.open_session(model, options, require_provider=options.provider) as s:
            assert s.feed({model.signature.inputs[0].name: x}) == 40
            blocks = list(evaluate(s, 40))
            answers.append(np.concatenate([b[0] for b in blocks]))
            assert s.provider == options.provider
            assert s.version
            assert s.load_ms > 0
            timed = s.time(calls=5)
            assert timed.ns.dtype == np.int64
            assert len(timed.ns) >= 5
            assert timed.ns.min() > 0
            assert "throttled" in timed.conditions
            assert s.close() == s.close() != Closed()
    assert answers[0].shape == (40, 10)
    np.testing.assert_array_equal(*answers)


def test_a_load_of_batches_streams_and_pauses_reaches_the_device(local, digits, samples):
    with open_device(local) as device, device.open_session(digits, CPU, cold=True) as s:
        assert s.feed({"input": samples[:30].astype(np.float32)}, batch=4, streams=2) == 30
        offline = s.time(calls=3, load=Load(samples=64))
        assert len(offline.ns) == 3
        paced = s.time(calls=4, load=Load(period_ms=5))
        assert paced.more["wall_ns"] >= 3 * 5e6
        assert 0 <= paced.more["late"] <= 3
        assert paced.more["cpu_ns"] > 0
        assert (paced.more["power"], paced.more["split"]) == (None, None)
        closed = s.close()
    assert closed.peak_bytes > 0
    assert closed.pss_bytes is None or closed.pss_bytes > 0
    assert closed.gpu_bytes is None


def test_chosen_cpus_are_asked_for_and_those_that_are_not_there_refused(local, digits):
    with open_device(local) as device:
        with device.open_session(digits, replace(CPU, cpus=(min(os.sched_getaffinity(0)),))) as s:
            assert s.version
        with pytest.raises(AgentRefusal, match="no CPU 4096"):
            device.open_session(digits, replace(CPU, cpus=(4096,)))


def test_arrays_travel_once(local, digits, samples):
    x = samples[:64].astype(np.float32)
    with open_device(local) as device:
        sizes = []
        for fed in (x, x, x.copy(), np.asfortranarray(x)):
            with device.open_session(digits, CPU) as s:
                s.feed({"input": fed})
                sizes.append(device.client.sent_bytes)
        assert sizes == [digits.bytes + x.nbytes] * 4


def test_sessions_are_timed_in_turns(local, digits, samples):
    with open_device(local) as device, device.open_session(digits, CPU) as a, device.open_session(digits, CPU) as b:
        for s in (a, b):
            s.feed({"input": samples[:16].astype(np.float32)})
        plan = BenchPlan(min_ms=10, min_calls=20, block_ms=5, warm_ms=50, warm_block_ms=1)
        parts = []
        series = bench([a, b], plan, seed=1, tick=parts.append)
        assert len(series[0].blocks) == len(series[1].blocks)
        assert all(s.calls >= 20 for s in series)
        assert parts == sorted(parts)
        assert parts[-1] >= 1.0
        assert a.peak_bytes() > 0
        assert len(a.infer(0, 1)[0]) == 1  # still open


def test_what_a_runtime_refuses_is_the_models_failure_and_the_device_goes_on(local, digits, samples):
    broken = Model("onnx", digits.data[:2000], "broken", digits.signature)
    with open_device(local) as device:
        with pytest.raises(ModelFailure) as caught:
            device.open_session(broken, CPU)
        assert caught.value.kind == "model"
        with pytest.raises(ModelFailure) as caught:
            device.open_session(digits, CPU, require_provider="CUDAExecutionProvider")
        assert caught.value.kind == "provider"
        assert "CPUExecutionProvider runs the model, CUDAExecutionProvider is required" in str(caught.value)
        with pytest.raises(AgentRefusal):
            device.open_session(digits, replace(CPU, runtime="ai-edge-litert"))
        with device.open_session(digits, CPU) as s:
            with pytest.raises(AgentRefusal):
                s.feed({"wrong": samples[:2].astype(np.float32)})
            with pytest.raises(ValueError, match="count"):
                s.infer(0, 0)


def test_a_child_over_its_limits_is_the_models_failure(local, digits, samples):
    with open_device(local) as device:
        with pytest.raises(ModelFailure) as caught:
            device.open_session(digits, CPU, limits=Limits(seconds=0.001))
        assert caught.value.kind == "time"
        assert device.sense()["load1"] is not None


def test_a_model_that_hangs_is_ended_in_the_time_that_the_device_gives_it(local, digits, samples):
    with open_device(local) as device:
        device.call_seconds = 1.0
        with device.open_session(digits, CPU) as s:
            s.feed({"input": samples[:2].astype(np.float32)})
            for pid in children(device.client.hello["pid"]):
                os.kill(pid, signal.SIGSTOP)
            with pytest.raises(ModelFailure, match="--call-limit") as caught:
                s.infer(0, 1)
        assert caught.value.kind == "time"
        assert device.sense()["load1"] is not None


def test_an_agent_that_dies_is_a_lost_connection(target):
    with open_device(target) as device:
        os.kill(device.client.hello["pid"], signal.SIGKILL)
        with pytest.raises(ConnectionLost):
            device.sense()


def test_a_child_that_dies_is_not(local, digits, samples):
    with open_device(local) as device, device.open_session(digits, CPU) as s:
        s.feed({"input": samples[:2].astype(np.float32)})
        for pid in children(device.client.hello["pid"]):
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(ModelFailure) as caught:
            s.infer(0, 1)
        assert caught.value.kind == "crash"
        assert device.sense()


def test_the_probe_is_a_probe_with_a_profile(target):
    with open_device(target) as device:
        probe = device.probe
        assert probe.machine == os.uname().machine
        assert probe.runtime("onnxruntime").version
        assert probe.emulated is False
        assert probe.to_json()["free_bytes"] > 0
        assert probe.profile
    with open_device(replace(target, profile="raspberry-pi-4")) as device:
        assert device.probe.profile == "raspberry-pi-4"


def test_ctrl_c_leaves_no_process(tmp_path):
    root = tmp_path / "root"
    program = f"""
        from edgelathe.core.device import Target
        from edgelathe.device.open import open_device
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's `&` has it ignored
        with open_device(Target("local", "local", root={str(root)!r})) as device:
            print("open", flush=True)
            device.client._channel.read(1)
    """
    host = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=-1, stderr=-1, start_new_session=True
    )
    assert host.stdout.readline() == b"open\n"
    os.killpg(host.pid, signal.SIGINT)
    _, err = host.communicate(timeout=120)
    assert b"KeyboardInterrupt" in err
    assert gone(str(root))


def test_a_host_that_is_killed_leaves_no_process(board, server):
    program = f"""
        from edgelathe.core.device import Target
        from edgelathe.device.open import open_device
        with open_device(Target("board", "ssh://board", root={board.root!r})) as device:
            print("open", flush=True)
            device.client._channel.read(1)
    """
    host = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=-1)
    assert host.stdout.readline() == b"open\n"
    host.kill()
    host.communicate()
    assert gone(board.root)


class TestResolve:
    REGISTRY = {"board": Target("board", "ssh://pi@10.0.0.7"), "local-lab": Target("local-lab", "ssh://lab")}  # noqa: RUF012

    def test_names_and_addresses(self, server, monkeypatch):
        server.configure()
        monkeypatch.setenv("EDGELATHE_SSH_CONFIG", str(server.config))
        assert resolve("local", self.REGISTRY).url == "local"
        assert resolve("board", self.REGISTRY) is self.REGISTRY["board"]
        assert resolve("ssh://pi@cam:22", {}).url == "ssh://pi@cam:22"
        assert resolve("pi@cam", {}).url == "pi@cam"
        assert resolve("board", {}) == Target("board", "ssh://board")  # a host of the ssh config

    def test_an_unknown_name_gets_the_nearest(self):
        with pytest.raises(UserError, match=r"device 'boart': .*did you mean 'board'"):
            resolve("boart", self.REGISTRY)
        with pytest.raises(UserError, match=r"no-such-device.*edgelathe device add"):
            resolve("no-such-device", {})
        with pytest.raises(UserError):
            resolve("http://cam", {})


def test_closing_ends_the_agent_without_force(local, monkeypatch):
    monkeypatch.setattr("edgelathe.device.local.GRACE", 120.0)
    monkeypatch.setattr(os, "killpg", lambda *_: pytest.fail("it had to be ended by force"))
    with open_device(local) as device:
        device.close()
