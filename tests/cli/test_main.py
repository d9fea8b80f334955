from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgelathe.cli import main


def test_help_of_every_command_says_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    commands = ["demo", "inspect", "compress", "simulate", "fit", "bench", "eval", "report", "device", "fleet", "runs"]
    commands.append("profiles")
    for command in commands:
        assert main.run([command, "--help"]) == 0
        assert len(capsys.readouterr().out) > 200
    assert main.run(["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {command} " in listed for command in commands)


def test_help_loads_nothing_heavy() -> None:
    import subprocess

    heavy = {"numpy", "onnx", "onnxruntime", "paramiko", "sqlalchemy", "rich", "jinja2", "ai_edge_litert"}
    code = (
        f"import sys; from edgelathe.cli import main; main.run(['--help']); print(sorted({heavy!r} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().splitlines()[-1] == "[]"


def test_ctrl_c_while_a_class_is_being_made_is_exit_code_130(tmp_path: Path) -> None:
    """Dataclasses are made by `exec`; most of the start goes into imports, so that Ctrl-C often falls there."""
    import subprocess

    (tmp_path / "pressed.py").write_text(
        "from edgelathe.cli import main\n"
        "press = 'import os, signal; os.kill(os.getpid(), signal.SIGINT)'\n"
        "main.app = lambda **_: exec(press)\n"
        "main.main()\n"
    )
    argv = [sys.executable, "-m", "pressed"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "error: edgelathe: interrupted; run it again\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["frobnicate"], "frobnicate"),
        (["fit", "--budgt", "x"], "--budgt"),
        (["fit"], "model"),
        (["compress"], "MODEL"),
        (["compress", "m.onnx", "--calib", "c.npz"], "--calib; --data gives the samples here"),
        (["bench", "--threads", "many", "m.onnx"], "--threads"),
        (["runs", "show"], "RUN"),
        (["device", "show", "no-such-device"], "no-such-device"),
        (["profiles", "show", "rasberry-pi-4"], "raspberry-pi-4"),
        (["inspect", "nowhere.onnx"], "nowhere.onnx"),
        (["fit", "--resume", "abc", "--budget", "size<=1kB"], "budget"),
    ],
)
def test_bad_usage_is_one_line_that_names_it(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert says in lines[0]


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([]) == 2
    assert "Commands:" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("edgelathe 0.")


def test_a_bug_is_exit_code_4_with_a_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pathlib import Path

    from edgelathe.core import profile

    monkeypatch.setattr(profile, "names", lambda: 1 / 0)
    assert main.run(["profiles", "list"]) == 4
    line = capsys.readouterr().err.strip()
    assert "bug" in line
    report = Path(line.split()[-1])
    assert "ZeroDivisionError" in report.read_text()
    report.unlink()
