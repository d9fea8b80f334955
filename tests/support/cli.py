"""The `edgelathe` command as users run it, in a process of its own."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import warm

#: Seconds after which something hangs; a command that is asked to stop has so long to write its answer.
HANGS = 120


def start(*args: object, cwd: Path | None = None) -> subprocess.Popen[str]:
    """The command, running."""
    return subprocess.Popen(
        _argv(args), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd
    )


@dataclass
class Watched:
    """The command with a terminal as its stderr, where progress moves. Stdout is read when it has ended."""

    process: subprocess.Popen[str]
    terminal: int
    shown: str = ""
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(self, text: str, limit: float = 300) -> None:
        """Until `text` was on the terminal."""
        with self._changed:
            assert self._changed.wait_for(lambda: text in self.shown or self.terminal < 0, limit), self.shown
            assert text in self.shown, self.shown

    def end(self, signal: int) -> tuple[int, str, str]:
        """Send the signal; the exit code, stdout and all that was on the terminal."""
        self.process.send_signal(signal)
        out, _ = self.process.communicate(timeout=HANGS)
        with self._changed:
            assert self._changed.wait_for(lambda: self.terminal < 0, HANGS)
        return self.process.returncode, out, self.shown

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self.terminal, 1 << 16)
            except OSError:  # EIO: nobody writes to it any more
                data = b""
            with self._changed:
                self.shown += data.decode(errors="replace")
                if not data:
                    os.close(self.terminal)
                    self.terminal = -1
                self._changed.notify_all()
            if not data:
                return


def watch(*args: object) -> Watched:
    """The command, running under the eyes of a user."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    process = subprocess.Popen(
        _argv(args), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs, text=True, env=env
    )
    os.close(theirs)
    watched = Watched(process, ours)
    threading.Thread(target=watched._read, daemon=True).start()
    return watched


def _argv(args: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-m", "edgelathe.cli.main", *map(str, args)]


def run(
    *args: object, code: int = 0, cwd: Path | None = None, limit: float = 300, fresh: bool = False
) -> subprocess.CompletedProcess[str]:
    """The command, finished with the exit code that is expected and without a traceback.

    `fresh`: from an interpreter of its own; else its imports are there before (see `warm`).
    """
    if fresh:
        process = start(*args, cwd=cwd)
        out, err = process.communicate(timeout=limit)
        done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    else:
        done = warm.run([*map(str, args)], cwd, limit)
    said = done.stderr + done.stdout
    assert done.returncode == code, f"exit {done.returncode}: {' '.join(map(str, args))}\n{said}"
    assert "Traceback" not in said
    return done


def answer(*args: object, code: int = 0, limit: float = 300, fresh: bool = False) -> dict[str, Any]:
    """The JSON document of a command."""
    document: dict[str, Any] = json.loads(run(*args, "--json", code=code, limit=limit, fresh=fresh).stdout)
    return document


def error(*args: object, code: int = 2) -> str:
    """The one line of a command that is refused; nothing is on stdout."""
    done = run(*args, code=code, limit=HANGS)
    assert done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert len(last) < 500
    return last
