"""The wheel, built from the sources and installed elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_wheel_holds_host_agent_and_profiles_and_works_elsewhere(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in ("cli/main.py", "device_profiles/arm-cpu.toml", "bundled/digits.onnx", "schemas/fit.json"):
        assert f"edgelathe/{name}" in names
    assert "edgelathe_agent/serve.py" in names
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "-q", str(wheel)], check=True, capture_output=True)
    command = [str(tmp_path / "env" / "bin" / "edgelathe"), "demo", "-o", str(tmp_path / "demo"), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    assert json.loads(done.stdout)["met"] is True
    listed = subprocess.run([command[0], "profiles", "list"], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert "raspberry-pi-5" in listed.stdout
