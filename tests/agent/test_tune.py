"""Tuning on boards as their kernels show them, with real guards: whatever ends, all is as it was."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from edgelathe_agent import journal, tidy, tune
from edgelathe_agent.kernel import read
from edgelathe_agent.protocol import AgentError
from support.pythons import interpreter
from support.sshd import gone, running
from support.trees import BOARDS, jetson_clocks, write

NOBODY = 65534
PACKAGE = Path(__file__).parents[2] / "agent"
GOVERNOR = "sys/devices/system/cpu/cpufreq/policy{}/scaling_governor"
LOWEST = "sys/devices/system/cpu/cpufreq/policy0/scaling_min_freq"


@pytest.fixture
def rock(tmp_path):
    """A board with three policies; no guard outlives the test."""
    root = write(tmp_path / "rock", BOARDS["rk3588"]())
    yield root
    assert gone(str(tmp_path)), "a guard runs on"


@pytest.fixture
def home(tmp_path) -> str:
    return str(tmp_path / "agent-root")


def governors(root: str) -> list[str | None]:
    return [read(root, GOVERNOR.format(n)) for n in (0, 4, 6)]


def tuned(
    root: str, home: str, *, keep: bool = False, seconds: float = 0, then: str = "time.sleep(60)",
    python: str = sys.executable, package: Path = PACKAGE,
):  # fmt: skip
    """An agent that has tuned and goes on; it has written its changes."""
    code = "import json, os, sys, time\nfrom edgelathe_agent import tune\n"
    code += f"print(json.dumps(tune.apply({root!r}, {home!r}, keep={keep}, seconds={seconds})), flush=True)\n{then}\n"
    process = subprocess.Popen(
        [python, "-c", code],
        env={**os.environ, "PYTHONPATH": str(package), "PYENV_VERSION": ""},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process.stdout:
        changed, refused = json.loads(process.stdout.readline())
    return process, changed, refused


@contextlib.contextmanager
def ended(process):
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def soon(test, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while not test():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_governors_are_changed_and_put_back(rock, home):
    changed, refused = tune.apply(rock, home, keep=False, seconds=0)
    assert [(c["was"], c["is"]) for c in changed] == [("interactive", "performance")] * 3
    assert refused == []
    assert governors(rock) == ["performance"] * 3
    assert tune.state(home) == {"settings": [c["what"] for c in changed], "until": None}
    back, refused = tune.restore(rock, home)
    assert [(c["was"], c["is"]) for c in back] == [("performance", "interactive")] * 3
    assert refused == []
    assert governors(rock) == ["interactive"] * 3
    assert (tune.state(home), Path(home, tune.FOLDER).exists()) == (None, False)
    assert tune.restore(rock, home) == ([], [])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_agent_that_is_killed_leaves_nothing_changed(rock, home, number):
    process, changed, _ = tuned(rock, home)
    with ended(process):
        assert len(changed) == 3
        assert governors(rock) == ["performance"] * 3
        process.send_signal(number)
        assert soon(lambda: governors(rock) == ["interactive"] * 3)
    assert soon(lambda: not Path(home, tune.FOLDER).exists())


@pytest.mark.parametrize("version", ["3.8", "3.13"])
def test_the_guard_starts_from_the_archive_of_the_agent_on_old_and_new_pythons(rock, home, archive, tmp_path, version):
    copy = tmp_path / "agent.pyz"
    shutil.copy(archive, copy)
    process, changed, _ = tuned(rock, home, python=interpreter(version), package=copy)
    with ended(process):
        assert len(changed) == 3
        copy.unlink()  # a newer agent clears older ones away
        process.kill()
        assert soon(lambda: governors(rock) == ["interactive"] * 3)


def test_an_agent_that_simply_ends_leaves_nothing_changed(rock, home):
    process, _, _ = tuned(rock, home, then="")
    assert process.wait(120) == 0
    assert soon(lambda: governors(rock) == ["interactive"] * 3)


def test_with_keep_it_outlives_the_agent_for_its_time(rock, home):
    process, _, _ = tuned(rock, home, keep=True, seconds=4, then="")
    state, still = tune.state(home), governors(rock)
    assert process.wait(120) == 0
    assert 0 < state["until"] - time.time() <= 4
    time.sleep(0.5)
    now = governors(rock)
    assert still == ["performance"] * 3
    assert now == still or time.time() > state["until"]
    assert soon(lambda: governors(rock) == ["interactive"] * 3)


def test_a_kept_one_is_put_back_by_force_and_its_guard_ends(rock, home):
    process, _, _ = tuned(rock, home, keep=True, seconds=600, then="")
    assert process.wait(120) == 0
    assert tune.restore(rock, home) == (
        [],
        [tune._change("tuning", "on", "on", "another connection holds it; it ends with the last")],
    )
    assert governors(rock) == ["performance"] * 3
    changed, _ = tune.restore(rock, home, force=True)
    assert len(changed) == 3
    assert governors(rock) == ["interactive"] * 3
    assert gone(home)


def test_of_two_connections_the_last_puts_back_what_the_first_found(rock, home):
    first, changed, _ = tuned(rock, home)
    second, nothing, _ = tuned(rock, home)
    with ended(first), ended(second):
        assert (len(changed), nothing) == (3, [])
        first.kill()
        first.wait()
        time.sleep(0.5)
        assert governors(rock) == ["performance"] * 3
        second.kill()
        assert soon(lambda: governors(rock) == ["interactive"] * 3)


def test_when_the_guard_is_killed_too_the_next_agent_puts_it_back(rock, home):
    process, _, _ = tuned(rock, home)
    with ended(process):
        for pid in running(home):
            if pid != process.pid:
                os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()
    assert gone(home)
    assert governors(rock) == ["performance"] * 3
    changed, refused = tune.recover(rock, home)
    assert (len(changed), refused) == (3, [])
    assert governors(rock) == ["interactive"] * 3
    assert tune.recover(rock, home) == ([], [])


def note(folder: str, boot: str | None, files: dict[str, list[str]]) -> None:
    journal.note(folder, {"boot": boot, "files": files, "jetson": False, "until": None})


def leave(rock: str, home: str) -> str:
    """A journal that nobody holds."""
    folder = f"{home}/{tune.FOLDER}"
    path = f"{rock}/{GOVERNOR.format(4)}"
    Path(path).write_text("performance")
    with journal.locked(folder, make=True):
        boot = read(rock, "proc/sys/kernel/random/boot_id")
        journal.note(
            folder, {"boot": boot, "files": {path: ["interactive", "performance"]}, "jetson": False, "until": None}
        )
    return path


def test_a_running_agent_has_its_journal_respected_by_one_that_starts(rock, home):
    process, _, _ = tuned(rock, home)
    with ended(process):
        assert tune.recover(rock, home) == ([], [])
        assert governors(rock) == ["performance"] * 3


def test_after_a_restart_of_the_machine_the_journal_is_void(rock, home):
    path = leave(rock, home)
    Path(rock, "proc/sys/kernel/random/boot_id").write_text("another\n")
    assert tune.recover(rock, home) == ([], [])
    assert read(path) == "performance"  # as the machine starts; not ours
    assert tune.state(home) is None


def test_what_somebody_else_has_set_since_is_left_so_and_said(rock, home):
    path = leave(rock, home)
    Path(path).write_text("powersave")
    changed, refused = tune.recover(rock, home)
    assert [(c["what"], c["is"]) for c in changed] == [(path, "powersave")]
    assert "somebody else" in changed[0]["why"]
    assert (refused, read(path)) == ([], "powersave")


def test_one_that_was_left_over_is_put_back_before_what_was_is_noted_anew(rock, home):
    path = leave(rock, home)
    changed, _ = tune.apply(rock, home, keep=False, seconds=0)
    assert {c["was"] for c in changed} == {"interactive"}
    tune.restore(rock, home)
    assert read(path) == "interactive"


def test_a_virtual_machine_has_nothing_to_tune(tmp_path, home):
    changed, refused = tune.apply(write(tmp_path / "vm", BOARDS["vm"]()), home, keep=False, seconds=0)
    assert (changed, [c["what"] for c in refused]) == ([], ["clocks"])
    assert not Path(home, tune.FOLDER).exists()
    assert gone(home)


def test_what_runs_at_its_highest_already_is_not_touched(tmp_path, home):
    files = {k: "performance\n" if k.endswith("scaling_governor") else v for k, v in BOARDS["pi4"]().items()}
    assert tune.apply(write(tmp_path / "pi", files), home, keep=False, seconds=0) == ([], [])
    assert tune.state(home) is None


def test_a_governor_that_this_kernel_does_not_offer_or_take_is_refused(tmp_path, home):
    offers = {k: "powersave schedutil\n" for k in BOARDS["pi4"]() if k.endswith("available_governors")}
    root = write(tmp_path / "a", {**BOARDS["pi4"](), **offers})
    _, refused = tune.apply(root, home, keep=False, seconds=0)
    assert "offers powersave schedutil only" in refused[0]["why"]
    root = write(tmp_path / "b", BOARDS["pi4"]())
    path = Path(root, GOVERNOR.format(0))
    path.unlink()
    path.symlink_to("/proc/sys/kernel/ostype")  # a file of the kernel's that cannot be written
    changed, refused = tune.apply(root, home, keep=False, seconds=0)
    assert (changed, len(refused), refused[0]["is"]) == ([], 1, "Linux")
    assert refused[0]["why"]
    tune.restore(root, home)


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT ROOT: cannot be another user")
@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="NO PYTHON that all users may run")
def test_a_login_that_may_not_is_told_what_to_run():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(PACKAGE / "edgelathe_agent", folder / "edgelathe_agent")
        root, home = write(folder / "pi", {**BOARDS["pi4"](), **jetson_clocks()}), folder / "home"
        home.mkdir()
        os.chown(home, NOBODY, NOBODY)
        code = f"from edgelathe_agent import tune; print(tune.apply({root!r}, {str(home)!r}, keep=False, seconds=0))"
        done = subprocess.run(
            ["/usr/bin/python3", "-c", code], env={"PYTHONPATH": name}, capture_output=True, text=True, user=NOBODY,
            check=True, cwd="/",
        )  # fmt: skip
        path = f"{root}/{GOVERNOR.format(0)}"
        assert f"run there: echo performance | sudo tee {path}" in done.stdout
        assert "sudo jetson_clocks" in done.stdout
        assert read(path) == "ondemand"
        assert gone(name, 5)


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT ROOT: jetson_clocks is for root")
def test_the_clocks_of_a_jetson_are_stored_raised_and_restored(tmp_path, home):
    root = write(tmp_path / "orin", {**BOARDS["orin36"](), **jetson_clocks()})
    process, changed, refused = tuned(root, home)
    with ended(process):
        assert ("jetson_clocks", "off", "on") in [(c["what"], c["was"], c["is"]) for c in changed]
        assert (refused, read(root, LOWEST)) == ([], "1510400")
        again, changed, _ = tuned(root, home)  # keeps what the first stored
        with ended(again):
            assert changed == []
            process.kill()
        assert soon(lambda: read(root, LOWEST) == "115200")
    assert gone(str(tmp_path))
    assert read(root, GOVERNOR.format(0)) == "schedutil"


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT ROOT: jetson_clocks is for root")
def test_a_jetson_clocks_that_fails_is_refused_with_its_words(tmp_path, home):
    bad = {"usr/bin/jetson_clocks": "#!/bin/sh\necho Error: no uptime yet\nexit 1\n"}
    root = write(tmp_path / "orin", {**BOARDS["orin36"](), **bad})
    changed, refused = tune.apply(root, home, keep=False, seconds=0)
    assert (len(changed), refused[0]["what"]) == (2, "jetson_clocks")
    assert "Error: no uptime yet" in refused[0]["why"]
    tune.restore(root, home)
    assert read(root, GOVERNOR.format(4)) == "schedutil"


def test_a_journal_that_cannot_be_undone_is_kept(rock, home):
    path = Path(leave(rock, home))
    path.unlink()
    path.symlink_to("/proc/sys/kernel/ostype")
    with journal.locked(f"{home}/{tune.FOLDER}"):
        note(
            f"{home}/{tune.FOLDER}", read(rock, "proc/sys/kernel/random/boot_id"), {str(path): ["interactive", "Linux"]}
        )
    changed, refused = tune.recover(rock, home)
    assert (changed, len(refused)) == ([], 1)
    assert "sudo tee" in refused[0]["why"]
    assert tune.state(home) is not None


def test_keeping_needs_a_time(rock, home):
    with pytest.raises(AgentError, match="seconds"):
        tune.apply(rock, home, keep=True, seconds=0)


def test_an_agent_that_starts_puts_back_what_a_killed_one_left_and_says_so(start, tmp_path):
    setting = tmp_path / "scaling_governor"
    setting.write_text("performance")
    folder = str(tmp_path / "root" / tune.FOLDER)
    with journal.locked(folder, make=True):
        note(folder, read("/", "proc/sys/kernel/random/boot_id") or "", {str(setting): ["ondemand", "performance"]})
    found = start().ask("probe").head
    assert [(c["what"], c["was"], c["is"]) for c in found["recovered"]] == [(str(setting), "performance", "ondemand")]
    assert setting.read_text() == "ondemand"
    assert found["tuning"] is None


@pytest.mark.parametrize("text", ["", "[]", "{", '{"boot": ""}'])
def test_a_broken_journal_stops_no_agent(start, tmp_path, text):
    folder = tmp_path / "root" / tune.FOLDER
    folder.mkdir(parents=True)
    (folder / journal.JOURNAL).write_text(text)
    assert start().ask("probe").head["recovered"] == []
    assert not folder.exists()


def test_wiping_puts_back_first(start, tmp_path):
    agent = start()
    setting = tmp_path / "scaling_governor"
    setting.write_text("performance")
    folder = str(agent.root / tune.FOLDER)
    with journal.locked(folder, make=True):
        note(folder, read("/", "proc/sys/kernel/random/boot_id") or "", {str(setting): ["ondemand", "performance"]})
    assert agent.ask("wipe").head["left"] == []
    assert setting.read_text() == "ondemand"
    assert not agent.root.exists()


def test_the_agent_tunes_recovers_and_leaves_no_journal(start, tmp_path):
    agent = start()
    answer = agent.ask("tune", on=True, keep=False, seconds=0).head
    assert answer["changed"] or answer["refused"] or not agent.ask("probe").head["governor"]
    assert agent.ask("tune", on=False, keep=True, seconds=0).head["ok"]
    folder = agent.root / "tune"
    with journal.locked(str(folder), make=True):
        note(str(folder), "before", {})
    agent.end()
    again = start()
    found = again.ask("probe").head
    assert (found["tuning"], found["recovered"]) == (None, [])
    assert not folder.exists()
    with journal.locked(str(folder), make=True):
        note(str(folder), "before", {})
    assert "tune" in tidy.OURS
    assert again.ask("wipe").head["left"] == []
    assert not agent.root.exists()
