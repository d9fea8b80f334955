"""The `edgelathe` command as users run it, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def start(*args: object, cwd: Path | None = None) -> subprocess.Popen[str]:
    """The command, running."""
    argv = [sys.executable, "-m", "edgelathe.cli.main", *map(str, args)]
    return subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd
    )


def run(*args: object, code: int = 0, cwd: Path | None = None, limit: float = 300) -> subprocess.CompletedProcess[str]:
    """The command, finished with the exit code that is expected and without a traceback."""
    process = start(*args, cwd=cwd)
    out, err = process.communicate(timeout=limit)
    assert process.returncode == code, f"exit {process.returncode}: {' '.join(map(str, args))}\n{err}\n{out}"
    assert "Traceback" not in err + out
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def answer(*args: object, code: int = 0, limit: float = 300) -> dict[str, Any]:
    """The JSON document of a command."""
    document: dict[str, Any] = json.loads(run(*args, "--json", code=code, limit=limit).stdout)
    return document


def error(*args: object, code: int = 2) -> str:
    """The one line of a command that is refused; nothing is on stdout."""
    done = run(*args, code=code, limit=60)
    assert done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert len(last) < 500
    return last
