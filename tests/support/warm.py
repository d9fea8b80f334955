"""The command in a process of its own that has its imports behind it: a fork of one that has done nothing else.

The imports are most of what a short command takes. Run as a program this file is what forks: a JSON line says what to
run, the process id and then the exit code are the answer. It has no threads, and each command starts from the same
state, with its own arguments, environment, working directory, standard streams and signals.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any

#: What the commands load when they need it, besides all modules of ours.
LIBRARIES = ("onnxruntime", "onnx_ir", "ai_edge_litert.interpreter", "rich.progress", "rich.table", "PIL.Image")


def run(argv: list[str], cwd: Path | None, limit: float) -> subprocess.CompletedProcess[str]:
    """`edgelathe *argv`, finished, with its exit code (negative: the signal that ended it), stdout and stderr."""
    with tempfile.TemporaryDirectory(prefix="edgelathe-test-") as folder:
        files = [str(Path(folder, name)) for name in ("out", "err")]
        code = _server().run(
            {"argv": argv, "cwd": str(cwd or Path.cwd()), "env": dict(os.environ), "files": files}, limit
        )
        out, err = (Path(f).read_text() for f in files)
    return subprocess.CompletedProcess(argv, code, out, err)


class Server:
    """The program below, running; one command at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        atexit.register(self.close)

    def run(self, order: dict[str, Any], limit: float) -> int:
        """The exit code of a command. Raises TimeoutExpired after `limit` seconds, and kills it."""
        pipes = self._process.stdin, self._process.stdout
        assert pipes[0]
        assert pipes[1]
        pipes[0].write(json.dumps(order).encode() + b"\n")
        pid = int(pipes[1].readline())
        try:
            if not select.select([pipes[1]], [], [], limit)[0]:
                raise subprocess.TimeoutExpired(order["argv"], limit)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            pipes[1].readline()
            raise
        return int(pipes[1].readline())

    def close(self) -> None:
        """End it."""
        self._process.communicate()


@functools.cache
def _server() -> Server:
    return Server()


def serve() -> None:
    """Fork a command for each line of standard input."""
    import edgelathe

    for module in pkgutil.walk_packages(edgelathe.__path__, "edgelathe."):
        importlib.import_module(module.name)
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, meant for the tests
    while line := sys.stdin.readline():
        pid = os.fork()
        if not pid:
            _become(json.loads(line))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _become(order: dict[str, Any]) -> None:
    """Be the command."""
    from edgelathe.cli.main import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    for number, name in enumerate((os.devnull, *order["files"])):
        opened = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv, sys.path[0] = ["edgelathe", *order["argv"]], order["cwd"]
    code: Any = 1
    try:
        main()
    except SystemExit as e:
        code = e.code
    except BaseException:
        traceback.print_exc()
    finally:  # as the interpreter ends, but for taking all modules apart
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
