"""Make the machine quieter, and put it back as it was, whatever happens in between.

What was is in the journal before anything is changed. Each connection that tunes has a guard: a process of its own that
waits for the end of a pipe from the agent, which comes however the agent ends, or, with `keep`, for a time. The guard
that lets go last puts everything back. A journal that no guard holds (power cut, all were killed) is put back by the
next agent, and void once the machine was started again.

Settings: the governor of each cpufreq policy (kernel, admin-guide/pm/cpufreq), and jetson_clocks where it is there.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any, Dict, List, Optional, Tuple

from edgelathe_agent import journal
from edgelathe_agent.kernel import read
from edgelathe_agent.protocol import AgentError
from edgelathe_agent.sensors import policies

Change = Dict[str, Any]
Changes = Tuple[List[Change], List[Change]]

FOLDER = "tune"
_GOVERNOR = "performance"
_PROGRAM = "usr/bin/jetson_clocks"
#: Longest that jetson_clocks may take, and how often a guard that outlives its agent looks whether it is still needed.
_PROGRAM_SECONDS, _LOOK_SECONDS = 60.0, 1.0
_guards: Dict[str, subprocess.Popen[bytes]] = {}


def apply(root: str, agent_root: str, *, keep: bool, seconds: float) -> Changes:
    """(changed, refused): governors to performance, clocks to their highest; until the agent ends, or for `seconds`."""
    if keep and seconds <= 0:
        raise AgentError("request", f"tune.seconds is {seconds}", "say for how long it is to be kept")
    recover(root, agent_root)
    folder = os.path.join(agent_root, FOLDER)
    with journal.locked(folder, make=True):
        guard = _guard(root, folder, seconds if keep else 0.0)
        found = journal.load(folder) or {"boot": _boot(root), "files": {}, "jetson": False, "until": None}
        planned, refused = _plan(root)
        for change in planned:
            found["files"].setdefault(change["what"], [change["was"], change["is"]])
        if keep:
            found["until"] = max(found["until"] or 0.0, time.time() + seconds)
        changed, failed = _raise_clocks(root, folder, found)
        journal.note(folder, found)
        for change in planned:
            error = _write(change["what"], change["is"])
            now = change["was"] if error else change["is"]
            (failed if error else changed).append(_change(change["what"], change["was"], now, error))
        _dismiss(folder)
        _guards[folder] = guard
        if not found["files"] and not found["jetson"]:
            _dismiss(folder)
            journal.remove(folder)
    return changed, refused + failed


def restore(root: str, agent_root: str, *, force: bool = False) -> Changes:
    """(changed, refused): as it was before, unless another connection holds it tuned; with `force` even then."""
    folder = os.path.join(agent_root, FOLDER)
    with journal.locked(folder) as there:
        if not there:
            return [], []
        _dismiss(folder)
        if not force and journal.held(folder):
            return [], [_change("tuning", "on", "on", "another connection holds it; it ends with the last")]
        return _put_back(root, folder)


def recover(root: str, agent_root: str) -> Changes:
    """(changed, refused): put back what one that was killed left behind; nothing where a guard still holds it."""
    folder = os.path.join(agent_root, FOLDER)
    with journal.locked(folder) as there:
        return ([], []) if not there or journal.held(folder) else _put_back(root, folder)


def state(agent_root: str) -> Optional[Dict[str, Any]]:
    """What is tuned now: {"settings": [name], "until": seconds of the calendar or null}; None: nothing."""
    found = journal.load(os.path.join(agent_root, FOLDER))
    if found is None:
        return None
    return {"settings": sorted(found["files"]) + ["jetson_clocks"] * found["jetson"], "until": found["until"]}


def guard(root: str, folder: str, seconds: float) -> None:
    """In the guard: hold the machine tuned until stdin ends, or for `seconds` if not 0; then put it back.

    A byte on stdin says that the agent has seen to it.
    """
    hold = journal.hold(folder)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    os.write(1, b"\n")
    os.close(1)
    try:
        if not _wait(folder, seconds):
            return
    except SystemExit:  # the machine goes down, or somebody wants us gone: put it back first
        pass
    with journal.locked(folder) as there:
        os.close(hold)
        if there and not journal.held(folder):
            _put_back(root, folder)


def _wait(folder: str, seconds: float) -> bool:
    """Whether this guard has to let go: True at the end of stdin or of the time, False where somebody saw to it."""
    end = time.monotonic() + seconds
    watched = [0]
    while True:
        left = end - time.monotonic() if seconds else None
        if left is not None and left <= 0:
            return True
        if select.select(watched, [], [], None if left is None else min(left, _LOOK_SECONDS))[0]:
            if os.read(0, 1):
                return False
            if not seconds:
                return True
            watched = []  # the agent is gone, the time is not over
        if not watched and not os.path.exists(os.path.join(folder, journal.JOURNAL)):
            return False


def _guard(root: str, folder: str, seconds: float) -> subprocess.Popen[bytes]:
    """A guard that holds its lock already. Raises OSError where it does not start."""
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    code = f"import sys; sys.path.insert(0, {home!r}); from edgelathe_agent.tune import guard; "
    code += f"guard({root!r}, {folder!r}, {float(seconds)!r})"
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, start_new_session=True, bufsize=0, cwd="/",
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout as out:
        if out.read(1):
            return process
    process.kill()
    process.wait()
    raise OSError("the guard that would put the machine back does not start")


def _dismiss(folder: str) -> None:
    """End the guard of this connection without its putting anything back."""
    process = _guards.pop(folder, None)
    if process is not None and process.stdin is not None:
        with contextlib.suppress(OSError), process.stdin as pipe:
            pipe.write(b"q")
        process.wait()


def _plan(root: str) -> Changes:
    """Governors that are to change, and clocks that cannot be held, with the reason."""
    planned: List[Change] = []
    refused: List[Change] = []
    found = policies(root)
    if not found:
        refused.append(_change("clocks", "", "", "the kernel does not scale clocks here (a virtual machine?)"))
    for _, folder in found:
        path = os.path.join(folder, "scaling_governor")
        was = read(path)
        offered = (read(folder, "scaling_available_governors") or _GOVERNOR).split()
        if was is None or was == _GOVERNOR:
            continue
        if _GOVERNOR not in offered:
            refused.append(_change(path, was, was, f"this kernel offers {' '.join(offered)} only"))
        elif not os.access(path, os.W_OK):
            why = f"this login may not set it; run there: echo {_GOVERNOR} | sudo tee {path}"
            refused.append(_change(path, was, was, why))
        else:
            planned.append(_change(path, was, _GOVERNOR))
    return planned, refused


def _raise_clocks(root: str, folder: str, found: Dict[str, Any]) -> Changes:
    """Store the clocks of a Jetson, note that in the journal, then raise them."""
    program = os.path.join(root, _PROGRAM)
    if not os.access(program, os.X_OK) or found["jetson"]:
        return [], []
    error = "" if os.geteuid() == 0 else "only root may; run there: sudo jetson_clocks (a restart undoes it)"
    stored = os.path.join(folder, journal.CLOCKS)
    if not error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(stored)  # it would ask whether it may overwrite it
        error = _run([program, "--store", stored])
        if not error and not os.path.exists(stored):
            error = "it stored nothing"
    if not error:
        found["jetson"] = True
        journal.sync(stored)
        journal.note(folder, found)
        error = _run([program])
    change = _change("jetson_clocks", "off", "off" if error else "on", error)
    return ([], [change]) if error else ([change], [])


def _put_back(root: str, folder: str) -> Changes:
    """Undo what the journal says, and forget it; what somebody else has set since is left as it is, and said."""
    found = journal.load(folder)
    changed: List[Change] = []
    refused: List[Change] = []
    if found is not None and found["boot"] == _boot(root):  # else it was started again: it has what it starts with
        if found["jetson"]:
            error = _run([os.path.join(root, _PROGRAM), "--restore", os.path.join(folder, journal.CLOCKS)])
            (refused if error else changed).append(_change("jetson_clocks", "on", "on" if error else "off", error))
        for path, (was, ours) in found["files"].items():
            now = read(path)
            if now == ours:
                error = _write(path, was)
                why = f"{error}; run there: echo {was} | sudo tee {path}" if error else ""
                (refused if error else changed).append(_change(path, ours, ours if error else was, why))
            elif now not in (was, None):
                changed.append(_change(path, now or "", now or "", "set by somebody else since; left so"))
    if not refused:
        journal.remove(folder)
    return changed, refused


def _change(what: str, was: str, now: str, why: str = "") -> Change:
    return {"what": what, "was": was, "is": now, "why": why}


def _write(path: str, text: str) -> str:
    """Why a setting could not be written, "" where it was; the kernel may refuse it or take another."""
    try:
        with open(path, "w") as f:
            f.write(text)
    except OSError as e:
        return e.strerror or str(e)
    now = read(path)
    return "" if now == text else f"the kernel keeps it at {now}"


def _run(argv: List[str]) -> str:
    """Run a program without a shell; why it failed, "" where it did not."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=_PROGRAM_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as e:
        return f"{os.path.basename(argv[0])}: {e}"
    words = done.stdout.decode(errors="replace").strip().splitlines()
    return "" if done.returncode == 0 else f"it ended with code {done.returncode}: {words[-1] if words else ''}"[:300]


def _boot(root: str) -> str:
    return read(root, "proc/sys/kernel/random/boot_id") or ""
