import socket
import time

from edgelathe.core.device import Probe, Runtime, Target
from edgelathe.device import doctor


def states(checks):
    return {c.name: c.state for c in checks}


def test_each_step_of_a_sound_device_is_checked_in_order(board, server):
    seen = []
    checks = doctor.doctor(board, tick=seen.append)
    assert seen == checks
    assert [c.name for c in checks][:6] == ["address", "network", "host key", "login", "python", "agent"]
    assert not doctor.broken(checks)
    assert server.fingerprint in checks[2].what
    assert {"runtime", "disk", "memory", "clock"} <= states(checks).keys()
    assert all(c.state == "ok" or c.mend for c in checks)


def test_the_local_device_has_no_network_to_check(local):
    assert "network" not in states(doctor.doctor(local))


def test_it_stops_at_the_step_that_fails(board, server, tmp_path):
    def last(target=board):
        checks = doctor.doctor(target)
        assert doctor.broken(checks)
        assert [c.state for c in checks[:-1]] == ["ok"] * (len(checks) - 1)
        assert checks[-1].mend
        return checks[-1].name

    assert last(Target("cam", "http://cam")) == "address"
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        assert last(Target("cam", f"ssh://pi@127.0.0.1:{s.getsockname()[1]}")) == "network"
    server.known_hosts.unlink()
    assert last() == "host key"
    server.trust()
    server.config.write_text(server.config.read_text().replace(str(server.key), str(tmp_path / "none")))
    assert last() == "login"
    server.configure()
    assert last(Target("board", "ssh://board", root=board.root, python="/nowhere/python3")) == "python"
    assert last(Target("board", "ssh://board", root="/proc/nowhere", python=board.python)) == "agent"


def facts(extra, **changes):
    fields = {"features": frozenset(), "runtimes": (Runtime("onnxruntime", "1.20", ("CPUExecutionProvider",)),)}
    answer = {"free_bytes": 10**10, "memory_free_bytes": 10**9, **extra}
    probe = Probe(
        "cam", "aarch64", "cpu", 4, 4 * 10**9, "3.11.2", emulated=False, extra=answer, **{**fields, **changes}
    )
    return list(doctor._facts(Target("cam", "ssh://cam"), probe, answer))


def test_what_disturbs_measurements_is_a_warning():
    quiet = facts({"governor": "performance", "conditions": {"temperatures_c": {"cpu": 40.0}}})
    assert {c.state for c in quiet} == {"ok"}
    hot = facts({
        "governor": "ondemand", "free_bytes": 10**8, "memory_free_bytes": 10**8,
        "broken": [{"name": "onnxruntime", "why": "no"}],
        "conditions": {"temperatures_c": {"cpu": 40.0, "gpu": 85.0}, "throttled": True},
    })  # fmt: skip
    warned = {c.name for c in hot if c.state == "warn"}
    assert warned == {"governor", "disk", "memory", "temperature", "throttling", "runtime"}
    assert not doctor.broken(hot)
    assert all(c.mend for c in hot if c.state == "warn")


def test_no_runtime_is_broken_and_emulation_a_warning():
    assert doctor.broken(facts({}, runtimes=()))
    probe = Probe("cam", "aarch64", "cpu", 4, 10**9, "3.11.2", (), emulated=True)
    checks = list(doctor._facts(Target("cam", "ssh://cam"), probe, {"emulated_why": "an x86-64 processor"}))
    assert [c.what for c in checks if c.name == "machine"] == ["emulated: an x86-64 processor"]


def test_a_wrong_clock_is_told(local, monkeypatch):
    real = time.time
    monkeypatch.setattr(doctor.time, "time", lambda: real() + 3600)
    clock = next(c for c in doctor.doctor(local) if c.name == "clock")
    assert clock.state == "warn"
    assert "behind" in clock.what
