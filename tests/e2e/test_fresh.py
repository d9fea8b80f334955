"""Every command starts in an interpreter that has loaded nothing before, unlike most tests' (see `support.warm`)."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from edgelathe.cli import main
from support import cli

MODEL = Path(main.__file__).parents[1] / "bundled" / "digits.onnx"
NONE = "none-such"

#: A short call of each command with its exit code and what its answer or its one line has.
CALLS: dict[str, tuple[list[object], int, str]] = {
    "inspect": ([MODEL], 0, "MACs"),
    "fit": ([MODEL, "--data", NONE, "--budget", "size<=1kB", "-o", "out"], 2, NONE),
    "eval": ([MODEL, "--data", NONE], 2, NONE),
    "runs list": ([], 0, "no runs"),
    "runs compare": ([NONE, NONE], 2, NONE),
    "runs export": ([NONE, "-o", "out"], 2, NONE),
    "runs delete": ([NONE], 2, NONE),
    "profiles list": ([], 0, "x86-cpu"),
    "profiles show": (["x86-cpu"], 0, "onnxruntime"),
    "profiles check": (["x86-cpu"], 0, "x86-cpu"),
    "device add": ([NONE, "ssh://"], 2, "ssh://"),
    "device list": ([], 0, "no devices"),
    "device show": ([NONE], 2, NONE),
    "device remove": ([NONE], 2, NONE),
}
#: Those that other tests start so, with what they do.
ELSEWHERE = {
    "demo": "e2e/test_local.py", "compress": "e2e/test_local.py", "report": "e2e/test_local.py",
    "runs show": "e2e/test_local.py", "bench": "e2e/test_bench.py", "trace": "measure/test_trace.py",
    "simulate": "cli/test_simulate.py", "sensitivity": "cli/test_sensitivity.py", "fleet check": "e2e/test_ssh.py",
    "device probe": "e2e/test_ssh.py", "device install": "e2e/test_ssh.py", "device uninstall": "e2e/test_ssh.py",
    "device doctor": "e2e/test_ssh.py",
}  # fmt: skip


def commands() -> set[str]:
    """All commands with their groups."""
    app = typer.main.get_command(main.app)
    found = set()
    for name, command in app.commands.items():
        found |= {f"{name} {inner}" for inner in command.commands} if hasattr(command, "commands") else {name}
    return found


def test_every_command_is_started_so_here_or_elsewhere():
    assert CALLS.keys() ^ ELSEWHERE.keys() == commands()
    for name, file in ELSEWHERE.items():
        words = ", ".join(f'"{word}"' for word in name.split())
        lines = (Path(__file__).parents[1] / file).read_text(encoding="utf-8").splitlines()
        assert any(f"({words}," in line and "fresh=True" in line for line in lines), name


@pytest.mark.parametrize("name", CALLS)
def test_a_fresh_process_gets_through(tmp_path, name):
    arguments, code, says = CALLS[name]
    done = cli.run(*name.split(), *arguments, code=code, cwd=tmp_path, fresh=True)
    assert says in (done.stderr.strip().splitlines()[-1] if code else done.stdout)
