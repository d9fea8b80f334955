import socket
import time

import pytest

from edgelathe.core.device import Probe, Runtime, Target
from edgelathe.device import doctor
from edgelathe.device.facts import facts as of_probe
from edgelathe.device.tune import Change, Tuning


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
    return list(of_probe(Target("cam", "ssh://cam"), probe, answer))


def told(checks, name):
    return next((c.state, c.what, c.mend) for c in checks if c.name == name)


def sensed(**more):
    return {"governors": {"cpu0": "performance"}, "clocks_khz": {"cpu0": 1}, "throttled": False, "load1": 0.1, **more}


def test_what_disturbs_measurements_is_a_warning():
    quiet = facts({"swap_used_bytes": 0, "conditions": sensed(temperatures_c={"cpu": 40.0})})
    assert {c.state for c in quiet} == {"ok"}
    assert "sensors" not in states(quiet)
    hot = facts({
        "governor": "ondemand", "free_bytes": 10**8, "memory_free_bytes": 10**8, "swap_used_bytes": 3 * 10**8,
        "broken": [{"name": "onnxruntime", "why": "no"}],
        "conditions": {"temperatures_c": {"cpu": 40.0, "gpu": 85.0}, "throttled": True, "load1": 3.0},
    })  # fmt: skip
    warned = {c.name for c in hot if c.state == "warn"}
    assert warned == {"governor", "disk", "memory", "temperature", "throttling", "runtime", "load", "swap"}
    assert not doctor.broken(hot)
    assert all(c.mend for c in hot if c.state == "warn")
    assert told(hot, "governor")[2] == "run `edgelathe device doctor cam --tune`"


def test_any_clock_that_wanders_is_told_even_where_another_is_held():
    checks = facts({"conditions": sensed(governors={"cpu0": "performance", "cpu4": "schedutil"})})
    assert told(checks, "governor")[:2] == ("warn", "'schedutil': latencies will wander with the clock")


def test_the_power_mode_and_the_clocks_of_a_jetson():
    orin = {"fastest_modes": ["MAXN_SUPER"], "conditions": sensed(power_mode="15W", clocks_locked=False)}
    assert told(facts(orin), "power mode")[:2] == ("warn", "15W, the board can do MAXN_SUPER")
    assert told(facts(orin), "clocks")[0] == "warn"
    best = {"fastest_modes": ["MAXN_SUPER"], "conditions": sensed(power_mode="MAXN_SUPER", clocks_locked=True)}
    assert {told(facts(best), name)[0] for name in ("power mode", "clocks")} == {"ok"}
    pi = facts({"fastest_modes": [], "conditions": sensed(power_mode=None, clocks_locked=False)})
    assert not {"power mode", "clocks"} & states(pi).keys()


def test_throttling_now_and_before_is_told_with_its_reason():
    def throttling(**more):
        return told(facts({"conditions": sensed(**more)}), "throttling")

    state, what, mend = throttling(throttled=True, throttle_why=["under-voltage", "clock capped since boot"])
    assert (state, what) == ("warn", "it lowers its clocks now: under-voltage")
    assert "power supply" in mend
    assert throttling(throttle_why=["soft temperature limit since boot"])[:2] == (
        "warn", "not now, but soft temperature limit since boot",
    )  # fmt: skip
    assert throttling(throttle_count=7)[1] == "not now, but 7 events since boot"
    assert throttling(throttle_count=0)[0] == "ok"


def test_those_who_work_there_are_named():
    checks = facts({"busiest": [{"name": "apt", "pid": 7, "share": 0.93}], "conditions": sensed()})
    assert told(checks, "load")[:2] == ("warn", "others work there: apt (93% of a CPU)")


@pytest.mark.parametrize(
    ("why", "mend"),
    [
        ("libstdc++.so.6: cannot open shared object file: No such file or directory", "apt install libstdc++6"),
        ("libgomp.so.1: cannot open shared object file", "apt install libgomp1"),
        ("libfoo.so.2: cannot open shared object file", "package with libfoo"),
        ("/lib/libc.so.6: version `GLIBC_2.34' not found", "onnxruntime-*-cp311-cp311-manylinux_2_28_aarch64.whl"),
        ("/lib/libstdc++.so.6: version `GLIBCXX_3.4.29' not found", "--only-upgrade libstdc++6"),
        ("was killed by SIGILL", "device install cam"),
    ],
)
def test_a_runtime_that_cannot_be_imported_has_the_mend_of_its_reason(why, mend):
    broken = {"broken": [{"name": "onnxruntime", "why": why}], "libc": "glibc 2.31"}
    if "GLIBC_" in why:
        broken["libc"] = "glibc 2.36"
    assert mend in told(facts(broken), "runtime")[2]


def test_no_runtime_is_broken_names_the_wheel_that_fits_and_emulation_is_a_warning():
    checks = facts({"libc": "glibc 2.36"}, runtimes=())
    assert doctor.broken(checks)
    assert "onnxruntime-*-cp311-cp311-manylinux_2_28_aarch64.whl" in told(checks, "runtime")[2]
    probe = Probe("cam", "aarch64", "cpu", 4, 10**9, "3.11.2", (), emulated=True)
    checks = list(of_probe(Target("cam", "ssh://cam"), probe, {"emulated_why": "an x86-64 processor"}))
    assert [c.what for c in checks if c.name == "machine"] == ["emulated: an x86-64 processor"]


def test_kinds_of_cores_and_what_is_unknown_are_told():
    clusters = [{"name": "Cortex-A76", "cpus": [4, 5]}, {"name": "Cortex-A55", "cpus": [0, 1]}]
    checks = facts({"clusters": clusters, "conditions": {"throttled": None}})
    assert "Cortex-A76 (CPUs 4,5) and Cortex-A55 (CPUs 0,1)" in told(checks, "cores")[1]
    assert "clock, temperature, throttling" in told(checks, "sensors")[1]


def test_a_device_that_is_held_quiet_or_was_left_so_says_it():
    held = facts({"tuning": {"settings": ["x"], "until": time.time() + 60}})
    assert told(held, "tuning")[0] == "ok"
    assert "doctor cam --restore" in told(held, "tuning")[1]
    left = facts({"recovered": [{"what": "x", "was": "performance", "is": "ondemand", "why": ""}]})
    assert "it is ondemand again" in told(left, "tuning")[1]


def test_tuning_and_restoring_are_steps_of_their_own(local):
    checks = doctor.doctor(local, tune_seconds=60)
    tuned = [c for c in checks if c.name == "tuned"]
    assert tuned
    assert all(c.state == "ok" or c.mend for c in tuned)
    assert not doctor.broken(checks)
    again = doctor.doctor(local, restored=True)
    assert [c.state for c in again if c.name == "restored"] == ["ok"]
    assert "tuning" not in states(again)


def test_settings_of_one_kind_are_told_once():
    path = "/sys/devices/system/cpu/cpufreq/policy{}/scaling_governor"
    changed = tuple(Change(path.format(n), "ondemand", "performance") for n in (0, 4))
    refused = tuple(
        Change(path.format(n), "x", "x", f"not allowed; run there: echo performance | sudo tee {path.format(n)}")
        for n in (0, 4)
    )
    checks = list(doctor._changes("tuned", Tuning(changed, refused), ""))
    assert [c.what for c in checks] == [
        f"{path.format('*')}: ondemand -> performance (2 times)", f"{path.format('*')}: not allowed",
    ]  # fmt: skip
    assert checks[1].mend == f"`echo performance | sudo tee {path.format('*')}` there"


def test_a_wrong_clock_is_told(local, monkeypatch):
    real = time.time
    monkeypatch.setattr(doctor.time, "time", lambda: real() + 3600)
    clock = next(c for c in doctor.doctor(local) if c.name == "clock")
    assert clock.state == "warn"
    assert "behind" in clock.what
